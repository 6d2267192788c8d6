//! Directories that exist durably, and what waits for the disk.

use std::fs::{DirBuilder, File};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use boxlite_types::{Doing, Error, Result};

use super::fault;

/// Creates the directory `path` (mode 0700) in an existing parent and fsyncs the parent.
///
/// # Errors
/// `Conflict` when it exists already.
pub fn create_dir(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::conflict(format!("{} exists already", path.display()))
                .at(path)
                .because(source));
        }
        Err(source) => return Err(Error::io("creating the directory", path, source)),
    }
    fault::point("dir.created").doing("creating the directory", path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes sure that the directory `path` and its parents exist (mode 0700); writes nothing when they do.
pub fn ensure_dir(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).doing("creating the directory", path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Sets the mode of the file or directory `path`.
pub fn restrict(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).doing("setting the mode of", path)
}

/// Makes what was written to the file `path` durable, whoever wrote it.
pub fn sync_file(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).doing("syncing", path)
}

/// Has the kernel begin to write these bytes of the file to the disk, so that the fsync which must follow has less to wait
/// for. Promises nothing and waits for nothing; where the filesystem cannot do it, nothing happens.
pub fn begin_writeback(file: &File, bytes: Range<u64>) {
    let (from, length) = (bytes.start as libc::off64_t, (bytes.end - bytes.start) as libc::off64_t);
    // SAFETY: the call takes no memory, and the descriptor is open as long as `file` is borrowed.
    #[allow(unsafe_code)]
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}

/// Makes the entries of the directory `path` durable.
pub fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).doing("syncing the directory", path)
}
