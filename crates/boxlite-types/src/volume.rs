//! Volumes of a box.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A directory or a file of the host that a box mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The directory or file on the host: absolute, and free of symlinks when it was resolved.
    pub source: PathBuf,
    /// Where the box mounts it, absolute.
    pub target: String,
    /// Whether the box may not write.
    pub read_only: bool,
    /// Whether everything belongs to root in the box, and what the box makes to the directory's owner on the host.
    #[serde(default)]
    pub map_ids: bool,
    /// Whether it is a single file, and not a directory.
    #[serde(default)]
    pub file: bool,
    /// Bytes by which the box may make it grow; `None` leaves that to the setting `volume_quota`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}
