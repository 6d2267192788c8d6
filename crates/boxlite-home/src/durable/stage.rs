//! Files that are being made: invisible until published, removed once their maker is gone.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use boxlite_types::{Doing, Error, Result};

use super::remove::is_trash;
use super::{Lock, Trash, allocated, discard, fault, sync_dir};

/// An unfinished file in the staging directory, exclusively locked by its maker.
///
/// Dropping it removes it. After a `kill -9` it stays behind unlocked, and [`sweep_staged`] removes it.
#[derive(Debug)]
pub struct Staged {
    lock: Option<Lock>,
}

impl Staged {
    /// Creates `name` in the staging directory `tmp`, made unique by a random suffix.
    pub fn create(tmp: &Path, name: &str) -> Result<Self> {
        loop {
            let path = tmp.join(format!("{name}.{}", uuid::Uuid::new_v4().simple()));
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .doing("creating the staged file", &path)?;
            if let Some(lock) = Lock::try_lock_open(file, &path)?
                && lock.still_at_path()?
            {
                return Ok(Self { lock: Some(lock) });
            }
        }
    }

    /// Takes over the file `name` in the staging directory `tmp`, with the bytes that a dead owner left in it, or
    /// creates it; `None` while its owner is alive.
    pub fn take_over(tmp: &Path, name: &str) -> Result<Option<Self>> {
        let lock = Lock::try_exclusive(&tmp.join(name))?;
        Ok(lock.map(|lock| Self { lock: Some(lock) }))
    }

    /// Leaves the file where it is, for [`Staged::take_over`] or, failing that, for the sweep.
    pub fn leave(mut self) {
        self.lock.take();
    }

    /// The file, for writing.
    pub fn file(&self) -> &File {
        self.lock().file()
    }

    /// Where it is until it is published.
    pub fn path(&self) -> &Path {
        self.lock().path()
    }

    fn lock(&self) -> &Lock {
        self.lock.as_ref().expect("a staged file is held until it is published")
    }

    /// Fsyncs the file, renames it to `destination` (replacing what is there) and fsyncs the directory.
    ///
    /// Returns the file, on which the maker's exclusive lock is still held. On an error before the rename
    /// the staged file is removed and `destination` is untouched; an error after it (the directory could not
    /// be synced) leaves the complete file in place, durable or not.
    pub fn publish(mut self, destination: &Path) -> Result<Lock> {
        let doing = "publishing";
        fault::point("publish.written").doing(doing, destination)?;
        self.file().sync_all().doing(doing, destination)?;
        fault::point("publish.synced").doing(doing, destination)?;
        std::fs::rename(self.path(), destination).doing(doing, destination)?;
        let lock = self.lock.take().ok_or_else(|| Error::bug("a staged file was published twice"))?;
        fault::point("publish.renamed").doing(doing, destination)?;
        destination.parent().map_or(Ok(()), sync_dir)?;
        fault::point("publish.durable").doing(doing, destination)?;
        Ok(lock.renamed_to(destination))
    }
}

impl Staged {
    /// Renames the file to `destination`, replacing what is there, and syncs nothing: for a lock, whose file has no contents
    /// and no holder after a crash.
    ///
    /// Returns the file, on which the maker's exclusive lock is still held. On an error `destination` is untouched.
    pub fn place(mut self, destination: &Path) -> Result<Lock> {
        std::fs::rename(self.path(), destination).doing("placing the lock", destination)?;
        let lock = self.lock.take().ok_or_else(|| Error::bug("a staged file was placed twice"))?;
        Ok(lock.renamed_to(destination))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            let _ = std::fs::remove_file(lock.path());
        }
    }
}

/// Replaces the file at `destination` by `contents`, atomically and durably.
pub fn write_atomically(tmp: &Path, destination: &Path, contents: &[u8]) -> Result<()> {
    let name = destination.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let staged = Staged::create(tmp, name)?;
    staged.file().write_all(contents).doing("writing", destination)?;
    staged.publish(destination).map(drop)
}

/// Makes sure that a file is at `path`, creating an empty one (mode 0600); writes nothing when there is one.
pub fn ensure_file(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(drop).doing("creating", path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// A staged file that a sweep found without an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweptFile {
    /// Its path in the staging directory.
    pub path: PathBuf,
    /// Bytes it had allocated.
    pub allocated: u64,
}

/// Removes the staged file at `path` if its owner is gone; with `dry_run` only says that it would.
///
/// No lock is held across the unlink.
///
/// Returns `None` when the owner is alive, when it is not a regular file, or when it vanished meanwhile.
pub fn sweep_staged(path: &Path, dry_run: bool) -> Result<Option<SweptFile>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = match File::options().read(true).custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("opening the unfinished file", path, error)),
    };
    let metadata = file.metadata().doing("examining", path)?;
    if !metadata.is_file() || metadata.nlink() == 0 {
        return Ok(None);
    }
    let Some(lock) = Lock::try_lock_open(file, path)? else { return Ok(None) };
    if !lock.still_at_path()? {
        return Ok(None);
    }
    let swept = SweptFile { path: path.to_owned(), allocated: allocated(&metadata) };
    if dry_run {
        lock.release();
        return Ok(Some(swept));
    }
    let doing = "removing the unfinished file";
    fault::point("sweep.locked").doing(doing, path)?;
    // Trash is never looked up by name, so it needs no second one.
    let trash = if is_trash(path) { Trash::at(path) } else { discard(path, path.parent().unwrap_or(path))? };
    lock.release();
    fault::point("sweep.unlinking").doing(doing, path)?;
    trash.delete()?;
    Ok(Some(swept))
}
