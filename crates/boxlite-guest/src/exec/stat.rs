//! Describes a file.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use boxlite_proto::{FileKind, FileStat};

use super::op_error::OpError;

/// Describes `path`. A final symbolic link is described, not followed.
pub(super) fn describe(path: &str) -> Result<FileStat, OpError> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(OpError::invalid(format!("{path:?} is not an absolute path")));
    }
    let at = Path::new(path);
    let metadata =
        std::fs::symlink_metadata(at).map_err(|e| OpError::std_io(&format!("examining {path}"), &e))?;
    let link_target = metadata.is_symlink().then(|| {
        std::fs::read_link(at).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default()
    });
    Ok(FileStat {
        kind: kind(&metadata),
        mode: metadata.mode() & 0o7777,
        length: metadata.len(),
        mtime: metadata.mtime(),
        link_target,
        leads_to_directory: at.is_dir(),
    })
}

fn kind(metadata: &Metadata) -> FileKind {
    let kind = metadata.file_type();
    if kind.is_file() {
        FileKind::File
    } else if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_symlink() {
        FileKind::Symlink
    } else {
        FileKind::Other
    }
}
