//! Why the guest of a box is paused, and what lets it go on.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The pause of a box whose guest would take space that must stay free.
///
/// Nothing in the guest is lost: it goes on by itself as soon as there is room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// What is short.
    pub cause: PauseCause,
    /// The directory whose filesystem is short of space.
    pub path: PathBuf,
    /// Bytes that are free there; `None` when they cannot be measured.
    pub free: Option<u64>,
    /// Free bytes at which the guest goes on.
    pub resumes_at: u64,
}

/// What a paused box is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseCause {
    /// Free space of the filesystem that the home lies on.
    HostDisk,
    /// Free space of the filesystem that a volume's directory lies on.
    Volume,
}
