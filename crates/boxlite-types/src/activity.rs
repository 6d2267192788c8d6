//! What a runtime has done, and what a box consumes.

use boxlite_proto::GuestMetrics;
use serde::{Deserialize, Serialize};

use crate::{BoxState, GcActivity};

/// What this runtime, not other processes, has done since it was opened; every figure only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Boxes created.
    pub boxes_created: u64,
    /// Starts after which the box ran.
    pub boxes_started: u64,
    /// Boxes stopped on request.
    pub boxes_stopped: u64,
    /// Starts refused for want of disk space or inodes.
    pub starts_refused: u64,
    /// Starts that failed otherwise.
    pub starts_failed: u64,
    /// Commands begun in boxes, not counting main processes.
    pub commands: u64,
    /// Commands that could not be handed to a box.
    pub commands_failed: u64,
    /// What gc has done, on request and automatically.
    pub gc: GcActivity,
}

/// What a box consumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumption {
    /// The box's id.
    pub id: String,
    /// What it is doing.
    pub state: BoxState,
    /// Bytes allocated to its overlays; `None` when they cannot be measured.
    pub disk_allocated: Option<u64>,
    /// What its guest reports; `None` unless it runs and answers. A hostile guest may lie.
    pub guest: Option<GuestMetrics>,
}
