//! The meaning of a backing file name: to QEMU a path, to a home the file of its own that has this name.
//!
//! A header holds the absolute path at which the backing file was when the header was written. A home can be copied,
//! moved, restored beside its original, or be mounted at another place since, so a start goes by the file name alone:
//! [`BackingDirectories::own`]. gc asks the same function, and pins the path's literal target as well where there is
//! one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use boxlite_home::Home;

use super::header::BackingFormat;
use crate::disk::is_digest;

/// The directories of a home in which the files are that overlays stand on.
#[derive(Debug, Clone)]
pub struct BackingDirectories {
    /// Raw files: disk images.
    pub raw: PathBuf,
    /// qcow2 files that are named by a digest: deltas.
    pub deltas: PathBuf,
    /// All other qcow2 files: bases.
    pub bases: PathBuf,
}

impl BackingDirectories {
    /// Those of `home`.
    pub fn of_home(home: &Home) -> Self {
        Self { raw: home.disk_images(), deltas: home.deltas(), bases: home.bases() }
    }

    /// The file of this home that a header means by `name`, wherever the name's directory is; it need not exist.
    ///
    /// `None` for what is not a path and for a format that boxlite never names.
    pub fn own(&self, name: &[u8], format: BackingFormat) -> Option<PathBuf> {
        let file = local_path(name)?.file_name()?;
        let is_raw = match format {
            BackingFormat::Raw => true,
            BackingFormat::Qcow2 => false,
            BackingFormat::Unnamed => file.as_bytes().ends_with(b".ext4"),
            BackingFormat::Other => return None,
        };
        let directory = if is_raw {
            &self.raw
        } else if is_delta(file) {
            &self.deltas
        } else {
            &self.bases
        };
        Some(directory.join(file))
    }
}

/// Whether a file of this name is a delta: 64 lower-case hex digits and `.qcow2`. Bases have shorter names.
pub(crate) fn is_delta(name: &OsStr) -> bool {
    name.as_bytes().strip_suffix(b".qcow2").is_some_and(is_digest)
}

/// The path that the backing name stands for; `None` for `json:`, `nbd:` and every other protocol.
///
/// A name has a protocol when a colon comes before the first slash; of these only `file:` is a path. A relative
/// path starts at the directory of the overlay.
pub(super) fn local_path(name: &[u8]) -> Option<&Path> {
    let name = name.strip_prefix(b"file:").unwrap_or(name);
    let before_slash = name.split(|byte| *byte == b'/').next().unwrap_or_default();
    if before_slash.contains(&b':') {
        return None;
    }
    Some(Path::new(OsStr::from_bytes(name)))
}
