//! Named volumes: filesystems of their own that boxes mount, and that outlive them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The longest name of a volume, in bytes.
const MAX_NAME: usize = 128;

/// Whether a volume may have that name. Docker's rule: a letter or digit, then letters, digits, `_`, `.` and `-`. So no name
/// is a path, and none an option.
pub fn is_volume_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= MAX_NAME
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// A named volume that a box mounts, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The volume's name.
    pub name: String,
    /// Where the box mounts it, absolute.
    pub target: String,
    /// Whether the box may not write.
    pub read_only: bool,
}

/// A new named volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    /// Its name, unique in the home: a letter or digit, then letters, digits, `_`, `.` and `-`.
    pub name: String,
    /// Bytes that its filesystem spans; the setting `volume_size` when absent.
    pub size: Option<u64>,
    /// Labels, which mean nothing to boxlite.
    pub labels: BTreeMap<String, String>,
}

/// The contents of `volume.json` in a volume's directory, written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDescription {
    /// Counts up with every change that older builds must not meet.
    pub format: u32,
    /// 32 lower-case hex digits, never used again: the intent to remove the volume names it by this.
    pub id: String,
    /// Its name, which is that of its directory as well.
    pub name: String,
    /// Bytes that its filesystem spans.
    pub size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl VolumeDescription {
    /// The format that this build writes.
    pub const FORMAT: u32 = 1;
}

/// A named volume, as it was observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The file of the host that is its disk.
    pub path: PathBuf,
    /// Bytes that its filesystem spans: what it holds at most.
    pub size: u64,
    /// Bytes that are allocated to it on the host.
    pub allocated: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Names of the boxes that mount it, whether or not they run.
    pub boxes: Vec<String>,
    /// Whether a box that runs, or a copy with one that does not, has it attached now.
    pub in_use: bool,
}

/// The outcome of a prune of volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePrune {
    /// Names of the volumes that were removed.
    pub removed: Vec<String>,
    /// Bytes that were allocated to them.
    pub reclaimed: u64,
    /// Why others could not be removed, a sentence each.
    pub failures: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_a_path_or_an_option() {
        for name in ["a", "7", "data", "pg-data_1.old", "A..b", &"x".repeat(MAX_NAME)] {
            assert!(is_volume_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "_a",
            "a/b",
            "../a",
            "a b",
            "a:b",
            "ä",
            "a\0",
            "a\n",
            &"x".repeat(MAX_NAME + 1),
        ] {
            assert!(!is_volume_name(name), "{name:?}");
        }
    }
}
