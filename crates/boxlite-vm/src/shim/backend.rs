//! What the other parts of a box (its network, its volumes) add to its QEMU: the one place where they backend in.

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use boxlite_types::{Error, ErrorKind, Result};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::child::ChildSpawner;
use super::launch::LaunchSpec;
use crate::net::{MacAddr, Network, Policy, Wire, claim_ports, loopback_aliases};
use crate::volume::{self, Share};

/// One part's additions.
#[derive(Default)]
pub(crate) struct DeviceBackend {
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
/// Programs that a part needs are started with [`ChildSpawner::spawn`], so that they cannot outlive the shim.
pub(crate) fn backends(spec: &LaunchSpec, spawner: &ChildSpawner) -> Result<Vec<DeviceBackend>> {
    let mut backends = Vec::new();
    if let Some(network) = &spec.network {
        backends.push(network_backend(&spec.box_id, network)?);
    }
    let shares = volume::start(&spec.shares, |command, keep| spawner.spawn(command, keep))?;
    backends.extend(shares.into_iter().map(share_backend));
    Ok(backends)
}

fn network_backend(box_id: &str, network: &Network) -> Result<DeviceBackend> {
    // QEMU binds the ports itself, an instant later; taking them first tells which one is in use.
    let ports = claim_ports(&network.ports)?.release();
    let policy = Policy::new(&ports, loopback_aliases()?);
    let (wire, ends) = Wire::new(MacAddr::of_box(box_id), &ports, policy)?;
    let carry = async move {
        let counts = wire.counts();
        let carried = wire.carry().await;
        tracing::info!(?counts, "the network's wire has ended");
        carried.map_err(|error| Error::new(ErrorKind::Io, "the box's network wire broke").because(error))
    };
    Ok(DeviceBackend {
        arguments: ends.arguments.into_iter().map(OsString::from).collect(),
        descriptors: ends.descriptors,
        shared_memory: false,
        task: Some(carry.boxed()),
    })
}

fn share_backend(share: Share) -> DeviceBackend {
    DeviceBackend {
        arguments: share.arguments.into_iter().map(OsString::from).collect(),
        descriptors: vec![share.descriptor],
        shared_memory: true,
        task: Some(share.daemon.watch().boxed()),
    }
}
