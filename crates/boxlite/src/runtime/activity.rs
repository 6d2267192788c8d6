//! What a runtime has done, and what a box consumes.

use serde::{Deserialize, Serialize};

use crate::gc::GcActivity;
use crate::litebox::BoxState;

/// What a runtime has done since it was opened, other processes' doings left out; every figure only grows.
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
    /// Commands begun in boxes, main processes left out.
    pub commands: u64,
    /// Commands that could not be handed to a box.
    pub commands_failed: u64,
    /// What gc has done, on request and by itself.
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
    /// What its guest says of itself; `None` unless it runs and answers.
    pub guest: Option<GuestConsumption>,
}

/// What a guest consumes, by its own account: a hostile guest may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConsumption {
    /// Milliseconds since its kernel started.
    pub uptime_ms: u64,
    /// Milliseconds its processors were busy, all together.
    pub cpu_busy_ms: u64,
    /// Its processors.
    pub cpus: u32,
    /// Bytes of memory its kernel has.
    pub memory_total: u64,
    /// Bytes of memory that programs could still get.
    pub memory_available: u64,
    /// Processes.
    pub processes: u32,
    /// Length of its root filesystem in bytes.
    pub root_total: u64,
    /// Bytes in use on its root filesystem.
    pub root_used: u64,
}
