//! Attaching a volume's disk to a machine.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use boxlite_home::Home;
use boxlite_home::durable::{Lock, fault};
use boxlite_types::{Doing, Error, ErrorCause, Result};
use rustix::fs::OFlags;

use super::read;

/// The place of an ext4 superblock, and in it of the features that a kernel must know before it reads anything.
const INCOMPATIBLE_AT: u64 = 1024 + 0x60;

/// The feature that says that the journal has to be replayed first.
const NEEDS_RECOVERY: u32 = 0x4;

/// A volume's disk, open and locked for one machine.
#[derive(Debug)]
pub struct VolumeDisk(Lock);

impl VolumeDisk {
    /// Opens and locks the disk of the volume `name`: exclusively to write, shared to read. `None` when another machine's lock
    /// forbids that.
    ///
    /// # Errors
    /// `NotFound` when there is no such volume; `Corrupt` for a disk that is not the one that was made; `Conflict` for one that
    /// is to be read only and whose journal must be replayed first, after its writer was killed.
    pub fn attach(home: &Home, name: &str, read_only: bool) -> Result<Option<Self>> {
        let volume = read(home, name)?;
        let path = home.of_volume(name).disk();
        let file = open(&path, !read_only).doing("opening the volume", &path)?;
        let lock =
            if read_only { Lock::try_shared_on(file, &path)? } else { Lock::try_lock_open(file, &path)? };
        let Some(lock) = lock else { return Ok(None) };
        fault::point("volume.attached").doing("attaching the volume", &path)?;
        let found = lock.file().metadata().doing("examining the volume", &path)?;
        if !lock.still_at_path()? || !found.is_file() || found.len() != volume.size {
            let message = format!(
                "{} is not the disk of {} bytes that volume '{name}' was made with",
                path.display(),
                volume.size
            );
            return Err(Error::corrupt(message).at(path));
        }
        if read_only && needs_recovery(lock.file()).doing("reading the volume", &path)? {
            let message = format!(
                "volume '{name}' was not unmounted by its last writer and cannot be read before a box has mounted it \
                 writable once; leave `:ro` out"
            );
            return Err(Error::conflict(message).at(path).about(ErrorCause::Volume));
        }
        Ok(Some(Self(lock)))
    }

    /// The open disk, on which the lock is.
    pub fn file(&self) -> &File {
        self.0.file()
    }
}

impl AsFd for VolumeDisk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a machine has the disk of the volume `name` attached now. What cannot be looked at is not.
pub fn is_attached(home: &Home, name: &str) -> bool {
    let path = home.of_volume(name).disk();
    let tried = open(&path, false).ok().map(|file| Lock::try_lock_open(file, &path));
    matches!(tried, Some(Ok(None)))
}

pub(super) fn open(path: &std::path::Path, write: bool) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    File::options().read(true).write(write).custom_flags(flags.bits() as i32).open(path)
}

/// Whether the filesystem's journal holds what its tables lack.
fn needs_recovery(disk: &File) -> std::io::Result<bool> {
    let mut features = [0; 4];
    disk.read_exact_at(&mut features, INCOMPATIBLE_AT)?;
    Ok(u32::from_le_bytes(features) & NEEDS_RECOVERY != 0)
}
