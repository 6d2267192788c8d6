//! Requests and reports of garbage collection.

mod explain;
mod report;
mod tree;
mod usage;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use explain::{ExplainedItem, Explanation, SubjectKind};
pub use report::{Fate, GcReport, Holder, HolderKind, Item, RemovalFailure, Skip, Unreadable};
pub use tree::{DiskTree, MAX_TREE_CHILDREN, NodeKind, TreeNode};
pub use usage::{BoxUsage, ImageShare, ImageUsage, KindUsage, StoppedUsage, Usage};

/// Options of a pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GcOptions {
    /// Delete nothing, and report what would be deleted.
    pub dry_run: bool,
    /// Drop images that no box uses from the catalogue as well, tagged or not.
    pub all: bool,
    /// With `all`: also those that have no name but such as were given here (by load, commit, import or tag), which no
    /// registry can give back.
    pub local: bool,
    /// Stop removing disk images, deltas and catalogue entries, least recently used first, once disk images, deltas,
    /// bases and blobs together allocate no more than so many bytes.
    pub keep_storage: Option<u64>,
    /// Spare disk images and catalogue entries that were used more recently than this.
    pub until: Option<Duration>,
    /// Stop once so many bytes have been freed: cheapest garbage first, then disk images least recently used first.
    pub free: Option<u64>,
    /// Derive every chain a second time through `qemu-img`, and remove nothing unless the two agree.
    pub verify: bool,
}

/// Counts of gc's passes since a runtime was opened; every figure only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GcActivity {
    /// Passes, automatic ones included, dry runs not.
    pub runs: u64,
    /// Passes that could not read or remove something.
    pub failed_runs: u64,
    /// Things removed.
    pub removed: u64,
    /// Allocated bytes removed.
    pub removed_bytes: u64,
    /// Disk images, deltas and boot files removed: caches, made again when they are needed. The rest of what was removed is
    /// garbage.
    #[serde(default)]
    pub evicted: u64,
    /// Allocated bytes of those.
    #[serde(default)]
    pub evicted_bytes: u64,
    /// Seconds that the passes took.
    pub seconds: f64,
}
