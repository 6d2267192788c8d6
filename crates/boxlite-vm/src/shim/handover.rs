//! The messages between a starter and its shim, before the control socket answers.

use std::io::Read;
use std::os::unix::net::UnixStream;

use boxlite_home::admission::LiveClaim;
use boxlite_types::{Error, ErrorCause, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::launch::LaunchSpec;

/// From the starter to its shim, in a memory file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LaunchMessage {
    pub(super) spec: LaunchSpec,
    /// The range of the claim on disk space that is handed over as a descriptor.
    pub(super) claimed: Option<LiveClaim>,
    /// The range of the claim on memory that is handed over as a descriptor, after that on disk space.
    pub(super) promised: Option<LiveClaim>,
}

/// From the shim to its starter, once, through the status channel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LaunchReport {
    /// QEMU runs and the control socket answers.
    Ready { shim_pid: u32, vm_pid: u32 },
    /// Neither is the case.
    Failed { kind: ErrorKind, cause: Option<ErrorCause>, message: String },
}

/// What the starter sends through the status channel to let its shim go on.
pub(super) const PROCEED: u8 = b'!';

/// Waits until the starter behind `status` lets the shim go on.
///
/// # Errors
/// `Io` when the start was called off, or the starter has ended.
pub(super) fn wait_to_proceed(mut status: &UnixStream) -> Result<()> {
    let mut word = [0; 1];
    let doing = "waiting for the start to be recorded";
    match status.read(&mut word) {
        Ok(1) if word == [PROCEED] => Ok(()),
        Ok(_) => Err(Error::new(ErrorKind::Io, "the start was called off")),
        Err(error) => {
            Err(Error::new(ErrorKind::Io, "the starter could not be heard").because(error).while_doing(doing))
        }
    }
}
