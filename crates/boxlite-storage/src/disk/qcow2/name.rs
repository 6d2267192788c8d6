//! What a backing file name means to QEMU: a path, or something this reader does not follow.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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
