//! The activity of a runtime, and the consumption of a box.

use boxlite_proto::{GuestMetrics, NetworkUsage};
use serde::{Deserialize, Serialize};

use crate::{BoxState, GcActivity, Latencies, StartTimes};

/// Counts of what this runtime, not other processes, has done since it was opened; every figure only grows.
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
    /// Passes of gc, requested and automatic.
    pub gc: GcActivity,
    /// Latencies by operation.
    #[serde(default)]
    pub latencies: Latencies,
}

/// The resources that a box consumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumption {
    /// The box's id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its state.
    pub state: BoxState,
    /// The memory of its guest in bytes.
    #[serde(default)]
    pub memory_limit: u64,
    /// Its use of the network; `None` unless it runs with one and answers.
    #[serde(default)]
    pub network: Option<NetworkUsage>,
    /// Bytes allocated to its overlays; `None` when they cannot be measured.
    pub disk_allocated: Option<u64>,
    /// The guest's own report; `None` unless it runs and answers. A hostile guest may lie.
    pub guest: Option<GuestMetrics>,
    /// How long its last start took; `None` when another process started it, or that is long ago.
    #[serde(default)]
    pub start: Option<StartTimes>,
}
