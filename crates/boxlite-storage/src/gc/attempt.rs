//! Locking a candidate without waiting for its holder.

use std::fs::File;
use std::path::Path;

use boxlite_home::durable::Lock;
use boxlite_types::{Error, Result};

/// The result of trying to lock a candidate.
pub(super) enum LockAttempt {
    /// The lock is ours.
    Locked(Lock),
    /// A lease or a lock on it is held.
    Busy,
    /// It is gone, or its path names another file meanwhile.
    Gone,
}

impl LockAttempt {
    /// Locks the regular file at `path` exclusively, without waiting and without creating it.
    ///
    /// `write` opens the file for writing, which some filesystems ask of an exclusive lock.
    pub(super) fn on(path: &Path, write: bool) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = File::options().read(true).write(write).custom_flags(flags.bits() as i32).open(path);
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::Gone),
            Err(error) => return Err(Error::io("opening", path, error)),
        };
        let Some(lock) = Lock::try_lock_open(file, path)? else { return Ok(Self::Busy) };
        Ok(if lock.still_at_path()? { Self::Locked(lock) } else { Self::Gone })
    }
}

/// The state of a candidate's lock at one moment; the lock is released at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    Free,
    Busy,
    Gone,
}

impl Probe {
    /// Looks whether a lock is held on the regular file at `path`.
    pub(super) fn of(path: &Path) -> Result<Self> {
        Ok(match LockAttempt::on(path, false)? {
            LockAttempt::Locked(lock) => {
                lock.release();
                Self::Free
            }
            LockAttempt::Busy => Self::Busy,
            LockAttempt::Gone => Self::Gone,
        })
    }
}
