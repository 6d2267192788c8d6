//! Snapshots of boxes: what callers ask and are told.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A snapshot of a box's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Unique among the snapshots of its box.
    pub name: String,
    /// Id of its box.
    pub box_id: String,
    /// When it was taken.
    pub created_at: Timestamp,
    /// Bytes on the host's disk that it holds beyond what it stands on: what was written since the snapshot before. `None`
    /// when that cannot be measured.
    pub bytes: Option<u64>,
    /// Bytes of the disk as the guest saw it.
    pub virtual_size: u64,
    /// For how long the guest stood still, in microseconds; `None` of a box that did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_us: Option<u64>,
}

/// How a snapshot is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotOptions {
    /// Its name; made of the time when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How a box goes back to a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestoreOptions {
    /// Stops the box first, where it runs.
    pub force: bool,
}
