//! Why the guest of a box is paused, and what lets it go on.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The pause of a box whose guest would take space that must stay free, or whose user has paused it.
///
/// Nothing in the guest is lost: it goes on by itself as soon as there is room, under a quota once that is raised. A box that its
/// user has paused goes on once the user says so and there is room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// The resource that is short.
    pub cause: PauseCause,
    /// The directory whose filesystem is short of space; the overlay where it is the quota that is used up.
    pub path: PathBuf,
    /// Bytes that are free there, or left of the quota; `None` when they cannot be measured.
    pub free: Option<u64>,
    /// Free bytes at which the guest goes on.
    pub resumes_at: u64,
    /// The quota, where that is used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaUse>,
}

/// The resource that a paused box is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseCause {
    /// Free space of the filesystem that the home lies on.
    HostDisk,
    /// Free space of the filesystem that a volume's directory lies on.
    Volume,
    /// The box's own disk quota: other boxes run on.
    DiskQuota,
    /// Nothing: its user has paused it, and lets it go on.
    User,
}

impl PauseCause {
    /// Every cause.
    pub const ALL: [Self; 4] = [Self::HostDisk, Self::Volume, Self::DiskQuota, Self::User];

    /// Its name for programs, as it serialises.
    pub fn name(self) -> &'static str {
        match self {
            Self::HostDisk => "host_disk",
            Self::Volume => "volume",
            Self::DiskQuota => "disk_quota",
            Self::User => "user",
        }
    }
}

/// A disk quota and what is used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaUse {
    /// Allocated bytes of the box's overlay; `None` when they cannot be measured.
    pub used: Option<u64>,
    /// The quota in bytes.
    pub limit: u64,
}
