//! Leases: while one is held, gc does not delete the file.
//!
//! A lease is a shared `flock` on the file itself, taken before the file is relied upon. gc takes the same lock
//! exclusively, without waiting, before it marks for the second time; so either gc finds the file leased and
//! skips it, or the start finds after locking that the path no longer names the file it locked, and resolves
//! again. Leases do not exclude each other: starts never wait for starts. They die with the descriptor.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use boxlite_types::{Doing, Error, ErrorKind, Result};
use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use crate::durable::{self, Lock, fault};

/// How long a process that holds a file, because it means to remove it, is waited for.
pub const HOLDER_TIMEOUT: Duration = Duration::from_secs(60);

/// A file that gc will not delete while this is held, and that was found at its path after the lock was taken.
#[derive(Debug)]
pub struct Leased {
    lock: Lock,
}

impl Leased {
    /// Leases the regular file at `path`; `None` when nothing is there (any more): make it, then lease it.
    ///
    /// Waits only while gc holds the file; gc then removes it or releases it.
    ///
    /// # Errors
    /// `Busy` when it does neither within a minute, as one whose process was stopped.
    pub fn acquire(path: &Path) -> Result<Option<Self>> {
        Self::acquire_within(path, HOLDER_TIMEOUT)
    }

    fn acquire_within(path: &Path, limit: Duration) -> Result<Option<Self>> {
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
            let Some(lock) = Lock::shared_within(file, path, limit)? else {
                return Err(held(path));
            };
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

/// The refusal of a file, or a directory, that a process holds to remove it and does not remove.
pub fn held(path: &Path) -> Error {
    let message = format!(
        "{} is held by a process that began to remove it and does not end; continue or end that process, which `fuser` names",
        path.display()
    );
    Error::new(ErrorKind::Busy, message).at(path)
}

/// Opens a regular file for reading without following a symlink and without blocking on a FIFO.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before: whoever needed the file waited for ever.
    #[test]
    fn a_file_that_a_stopped_gc_holds_is_given_up_and_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        std::fs::write(&path, "").unwrap();
        let held = Lock::exclusive(&path).unwrap();
        let error = Leased::acquire_within(&path, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("does not end"), "{error}");
        let waiting = std::thread::spawn(move || Leased::acquire_within(&path, HOLDER_TIMEOUT));
        held.release();
        assert!(waiting.join().unwrap().unwrap().is_some());
    }
}
