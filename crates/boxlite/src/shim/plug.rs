//! What the other parts of a box (its network, its volumes) add to its QEMU: the one place where they plug in.

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use futures::future::BoxFuture;

use super::kin::Kin;
use super::launch::LaunchSpec;
use crate::error::Result;

/// One part's additions.
#[derive(Default)]
pub(crate) struct Plug {
    /// QEMU arguments; descriptors are named by their own number.
    pub(crate) arguments: Vec<OsString>,
    /// Descriptors that QEMU inherits under their own numbers; the shim closes its copies once QEMU runs.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Whether the guest's memory must be one that a vhost-user device can map.
    pub(crate) shared_memory: bool,
    /// Runs in the shim beside the box until QEMU has ended, and is then dropped. An error is logged, and only
    /// costs the box this part.
    pub(crate) task: Option<BoxFuture<'static, Result<()>>>,
}

/// Prepares every part of the box; called on the shim's main thread before QEMU starts and before any async runtime.
///
/// Programs that a part needs are started with [`Kin::spawn`], so that they cannot outlive the shim.
pub(crate) fn plugs(_spec: &LaunchSpec, _kin: &Kin) -> Result<Vec<Plug>> {
    Ok(Vec::new())
}
