//! Leases: while one is held, gc does not delete the file.
//!
//! A lease is a shared `flock` on the file itself, taken before the file is relied upon. gc takes the same lock
//! exclusively, without waiting, before it marks for the second time; so either gc finds the file leased and
//! skips it, or the start finds after locking that the path no longer names the file it locked, and resolves
//! again. Leases do not exclude each other: starts never wait for starts. They die with the descriptor.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use boxlite_types::{Doing, Error, Result};
use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use crate::durable::{self, Lock, fault};

/// A file that gc will not delete while this is held, and that was found at its path after the lock was taken.
#[derive(Debug)]
pub struct Leased {
    lock: Lock,
}

impl Leased {
    /// Leases the regular file at `path`; `None` when nothing is there (any more): make it, then lease it.
    ///
    /// Waits only while gc holds the file; gc then removes it or releases it.
    pub fn acquire(path: &Path) -> Result<Option<Self>> {
        loop {
            let file = match open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::io("opening", path, error)),
            };
            if !file.metadata().doing("examining", path)?.is_file() {
                let message = format!("{} is not a regular file; move it out of the way", path.display());
                return Err(Error::conflict(message).at(path));
            }
            fault::point("lease.opened").doing("leasing", path)?;
            let lock = Lock::shared_on(file, path)?;
            fault::point("lease.locked").doing("leasing", path)?;
            if lock.still_at_path()? {
                return Ok(Some(Self { lock }));
            }
        }
    }

    /// Turns the exclusive lock with which `Staged::publish` returned a file into a lease.
    ///
    /// `None` when the file was removed in the instant between the two, which its age forbids gc to do.
    pub fn of_published(lock: Lock) -> Result<Option<Self>> {
        lock.file().lock_shared().doing("leasing", lock.path())?;
        Ok(lock.still_at_path()?.then_some(Self { lock }))
    }

    /// The file, open for reading.
    pub fn file(&self) -> &File {
        self.lock.file()
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        self.lock.path()
    }

    /// Unlinks the file's path, if that still names it. Other holders of a lease keep using the file.
    pub fn unlink(self) -> Result<()> {
        durable::unlink_locked(&self.lock)?.map_or(Ok(()), durable::Trash::delete)
    }

    /// Records that the file is used now: its access time, by which automatic gc takes the least recently used
    /// first. The modification time, on which the grace rests, stays. Allocates nothing.
    pub fn touch(&self) -> Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: now, last_modification: omit };
        rustix::fs::futimens(self.file(), &times).doing("recording the use of", self.path())
    }
}

/// Opens a regular file for reading without following a symlink and without blocking on a FIFO.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}
