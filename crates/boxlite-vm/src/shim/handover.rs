//! The messages between a starter and its shim, before the control socket answers.

use boxlite_home::admission::LiveClaim;
use boxlite_types::{ErrorCause, ErrorKind};
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

/// From the shim to its starter, once, through the status pipe.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LaunchReport {
    /// QEMU runs and the control socket answers.
    Ready { shim_pid: u32, vm_pid: u32 },
    /// Neither is the case.
    Failed { kind: ErrorKind, cause: Option<ErrorCause>, message: String },
}
