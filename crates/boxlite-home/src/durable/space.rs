//! How much room a filesystem has, and how much a file takes.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use boxlite_types::{Doing, Error, FreeSpace, Result};

/// Measures the free space of the filesystem that holds `path`.
///
/// # Errors
/// `Unsupported` where the filesystem does not tell its size, as ramfs and some network filesystems.
pub fn free_space(path: &Path) -> Result<FreeSpace> {
    super::fault::point("space.measure").doing("measuring free space at", path)?;
    told(path, rustix::fs::statvfs(path))
}

/// The same of the filesystem of `place`, an open file or directory at `path`, which may be out of this process's reach.
///
/// # Errors
/// As for [`free_space`].
pub fn free_space_of(place: &File, path: &Path) -> Result<FreeSpace> {
    super::fault::point("space.measure").doing("measuring free space at", path)?;
    told(path, rustix::fs::fstatvfs(place))
}

fn told(path: &Path, found: rustix::io::Result<rustix::fs::StatVfs>) -> Result<FreeSpace> {
    let found = found.doing("measuring free space at", path)?;
    if found.f_blocks == 0 {
        let message = format!("the filesystem at {} does not tell how large it is", path.display());
        return Err(Error::unsupported(message).at(path));
    }
    Ok(FreeSpace {
        bytes: found.f_bavail.saturating_mul(found.f_frsize),
        bytes_total: found.f_blocks.saturating_mul(found.f_frsize),
        inodes: found.f_favail,
        inodes_total: found.f_files,
    })
}

/// Bytes allocated on disk: `st_blocks * 512`.
pub fn allocated(metadata: &Metadata) -> u64 {
    metadata.blocks().saturating_mul(512)
}

/// Bytes allocated on disk to what stands at `path` itself (a symlink is not followed).
pub fn allocated_of(path: &Path) -> Result<u64> {
    Ok(allocated(&std::fs::symlink_metadata(path).doing("examining", path)?))
}
