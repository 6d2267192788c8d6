//! Advisory whole-file locks (`flock`), bound to the open file and not to the process.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use boxlite_types::{Doing, Error, Result};

/// Between two attempts to take a lock that is waited for with a limit, which `flock` itself does not have.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The identity of a file under all its names: device and inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

impl FileId {
    /// The identity in `metadata`.
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A held `flock`; dropping it (or the death of every process that inherited it) releases it.
///
/// A shared lock is never upgraded: `flock` would give it up when the upgrade fails. Release it and take it anew.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock file at `path` exclusively, creating it if needed, waiting for other holders.
    pub fn exclusive(path: &Path) -> Result<Self> {
        loop {
            let file = open_lock_file(path)?;
            file.lock().doing("locking", path)?;
            let lock = Self { file, path: path.to_owned() };
            if lock.still_at_path()? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock file at `path` exclusively, creating it if needed; `None` when another holds it.
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        loop {
            let file = open_lock_file(path)?;
            let Some(lock) = Self::try_lock_open(file, path)? else { return Ok(None) };
            if lock.still_at_path()? {
                return Ok(Some(lock));
            }
        }
    }

    /// Takes a shared lock on the open `file`, waiting while another holds it exclusively.
    pub fn shared_on(file: File, path: &Path) -> Result<Self> {
        file.lock_shared().doing("leasing", path)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Takes a shared lock on the open `file`, waiting for `limit` at most while another holds it exclusively; `None` after
    /// that.
    pub fn shared_within(file: File, path: &Path, limit: Duration) -> Result<Option<Self>> {
        let is_locked = taken_within(limit, || file.try_lock_shared()).doing("leasing", path)?;
        Ok(is_locked.then(|| Self { file, path: path.to_owned() }))
    }

    /// Takes a shared lock on the open `file` without waiting; `None` when another holds it exclusively.
    pub fn try_shared_on(file: File, path: &Path) -> Result<Option<Self>> {
        Self::shared_within(file, path, Duration::ZERO)
    }

    /// Takes an exclusive lock on the open `file`, waiting for `limit` at most for other holders; `None` after that.
    pub fn exclusive_within(file: File, path: &Path, limit: Duration) -> Result<Option<Self>> {
        let is_locked = taken_within(limit, || file.try_lock()).doing("locking", path)?;
        Ok(is_locked.then(|| Self { file, path: path.to_owned() }))
    }

    /// Takes an exclusive lock on the open `file` without waiting; `None` when another holds it.
    pub fn try_lock_open(file: File, path: &Path) -> Result<Option<Self>> {
        Self::exclusive_within(file, path, Duration::ZERO)
    }

    /// Whether the path still names the locked file: same device and inode, link count above 0.
    pub fn still_at_path(&self) -> Result<bool> {
        let held = self.file.metadata().doing("examining", &self.path)?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(found) => Ok(held.nlink() > 0 && FileId::of(&held) == FileId::of(&found)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("examining", &self.path, error)),
        }
    }

    /// The same lock after the file was renamed to `path`.
    pub(super) fn renamed_to(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Releases the lock at once, even while a process that is being started still has a copy of the open file.
    pub fn release(self) {
        let _ = self.file.unlock();
    }

    /// The locked file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The path under which the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Tries to take a lock until that succeeds or `limit` is over, and says whether it did.
fn taken_within(
    limit: Duration,
    attempt: impl Fn() -> std::result::Result<(), TryLockError>,
) -> io::Result<bool> {
    let began = Instant::now();
    loop {
        match attempt() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if began.elapsed() >= limit => return Ok(false),
            Err(TryLockError::WouldBlock) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

fn open_lock_file(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .doing("opening the lock file", path)
}
