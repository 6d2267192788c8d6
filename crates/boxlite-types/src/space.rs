//! Free space of a filesystem, and what admission makes of it.

use serde::{Deserialize, Serialize};

/// Space that a caller without privileges may still use, by `statvfs` (`f_bavail`, `f_favail`): bytes and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeSpace {
    /// Bytes available.
    pub bytes: u64,
    /// Bytes in total.
    pub bytes_total: u64,
    /// Inodes available.
    pub inodes: u64,
    /// Inodes in total; 0 on filesystems that do not count them.
    pub inodes_total: u64,
}

/// Whether there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Enough.
    Ok,
    /// Proceed, but warn and collect garbage first.
    Warn,
    /// Too little.
    Reject,
}
