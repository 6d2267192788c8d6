//! Room on the filesystem that a copy is written to.

use std::io;
use std::os::fd::OwnedFd;

use boxlite::settings::Bytes;

/// Bytes that a copy leaves free.
const BYTE_FLOOR: u64 = 256 << 20;
/// Inodes that a copy leaves free.
const INODE_FLOOR: u64 = 2_000;
/// On a small filesystem a copy may fill all but this part (one in …).
const SMALL_PART: u64 = 20;
/// How many bytes are written between two looks at the filesystem.
pub(super) const CHECK_INTERVAL: u64 = 8 << 20;

/// Refuses what would take the destination's filesystem below the floor.
#[derive(Debug)]
pub(super) struct DestinationSpace {
    bytes_floor: u64,
    inodes_floor: u64,
    small_part: u64,
}

impl DestinationSpace {
    pub(super) fn new() -> Self {
        Self { bytes_floor: BYTE_FLOOR, inodes_floor: INODE_FLOOR, small_part: SMALL_PART }
    }

    #[cfg(test)]
    pub(super) fn with_floor(bytes_floor: u64) -> Self {
        Self { bytes_floor, inodes_floor: 0, small_part: 1 }
    }

    /// Checks that `bytes` more leave the floor free. Figures that cannot be read refuse nothing.
    pub(super) fn check(&self, directory: &OwnedFd, bytes: u64) -> io::Result<()> {
        let Ok(found) = rustix::fs::fstatvfs(directory) else { return Ok(()) };
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let floor = self.bytes_floor.min(found.f_blocks.saturating_mul(found.f_frsize) / self.small_part);
        if free < floor.saturating_add(bytes) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "the destination's disk has {} free; {} are needed and {} stay free",
                    Bytes(free),
                    Bytes(bytes),
                    Bytes(floor)
                ),
            ));
        }
        // A filesystem without a table of inodes reports none.
        if found.f_files > 0 && found.f_favail < self.inodes_floor.min(found.f_files / self.small_part) {
            let message = format!("the destination's disk has {} inodes left", found.f_favail);
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        Ok(())
    }
}
