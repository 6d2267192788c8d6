//! Removing durable files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use boxlite_types::{Doing, Error, ErrorKind, Result};
use rustix::fs::{CWD, RenameFlags};

use super::{FileId, Lock, fault, sync_dir};

/// Removes the file at `path` and fsyncs its directory; a file that is gone already is a success.
pub fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("removing", path, error)),
    }
    fault::point("remove.unlinked").doing("removing", path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Removes a large file in two steps: renames it out of sight to a trash name in `tmp`, then unlinks it.
///
/// The returned trash has no name that anything looks up; a lock on the file may be released before
/// [`Trash::delete`]. After a crash in between, the sweep of the staging directory removes it. Where the disk is
/// too full for another name in `tmp`, the file is unlinked at once instead.
pub fn discard(path: &Path, tmp: &Path) -> Result<Trash> {
    match rename_to_trash(path, tmp) {
        Err(error) if error.kind() == ErrorKind::ResourceExhausted => unlink_in_place(path),
        other => other,
    }
}

/// Renames the file on which `lock` is held as [`discard`] does, but never unlinks it at once.
///
/// `None` when the path named another file already (a damaged one was replaced between the last look and the
/// rename); that file is put back unless the path is taken again.
///
/// # Errors
/// `ResourceExhausted` when the disk is too full for another name in `tmp`: see [`unlink_locked`].
pub fn discard_locked(lock: &Lock, tmp: &Path) -> Result<Option<Trash>> {
    let path = lock.path();
    let trash = rename_to_trash(path, tmp)?;
    let held = FileId::of(&lock.file().metadata().doing("examining", path)?);
    let moved = trash.path.as_deref().unwrap_or(path);
    if held == FileId::of(&std::fs::symlink_metadata(moved).doing("examining", moved)?) {
        return Ok(Some(trash));
    }
    match rustix::fs::renameat_with(CWD, moved, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::EXIST) => trash.delete().map(|()| None),
        Err(errno) => Err(errno).doing("putting back", path),
    }
}

/// Unlinks the file on which `lock` is held where it is; the fallback when [`discard_locked`] finds no room.
///
/// `None` when the path names another file meanwhile.
pub fn unlink_locked(lock: &Lock) -> Result<Option<Trash>> {
    if lock.still_at_path()? { unlink_in_place(lock.path()).map(Some) } else { Ok(None) }
}

/// Removes a directory tree: out of sight by one rename, then from the disk.
///
/// The tree is locked until it is gone, so that a sweep of the staging directory leaves it to the caller. Where the
/// disk is too full for another name in `tmp`, it is removed where it is. A tree that is gone already is a success.
pub fn discard_dir(path: &Path, tmp: &Path) -> Result<()> {
    let _lock = lock_dir(path)?;
    discard_locked_dir(path, tmp)
}

/// [`discard_dir`] for a caller who holds the directory's lock.
pub(super) fn discard_locked_dir(path: &Path, tmp: &Path) -> Result<()> {
    let trash = trash_path(path, tmp);
    fault::point("discard.start").doing("removing", path)?;
    match std::fs::rename(path, &trash) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            remove_trash_dir(path)?;
            return path.parent().map_or(Ok(()), sync_dir);
        }
        Err(error) => return Err(Error::io("removing", path, error)),
    }
    fault::point("discard.renamed").doing("removing", path)?;
    path.parent().map_or(Ok(()), sync_dir)?;
    remove_trash_dir(&trash)
}

/// Deletes a directory that [`discard_dir`] had renamed into the staging directory when it was killed.
///
/// Others may delete the same tree at the same time: an entry that they removed first is not an error.
pub fn remove_trash_dir(trash: &Path) -> Result<()> {
    loop {
        match std::fs::remove_dir_all(trash) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("removing", trash, error));
            }
            Err(_) if trash.symlink_metadata().is_err() => return Ok(()),
            Err(_) => {}
        }
    }
}

/// The lock of the directory at `path`; `None` when another process holds it, or when the directory is gone.
pub(super) fn lock_dir(path: &Path) -> Result<Option<Lock>> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    let opened = std::fs::File::options().read(true).custom_flags(flags.bits() as i32).open(path);
    let directory = match opened {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("opening the directory", path, error)),
    };
    let Some(lock) = Lock::try_lock_open(directory, path)? else { return Ok(None) };
    Ok(lock.still_at_path()?.then_some(lock))
}

/// A file that is out of sight and waits for its unlink.
#[derive(Debug)]
#[must_use = "the bytes are freed by `delete`"]
pub struct Trash {
    /// `None` when it is unlinked already.
    path: Option<PathBuf>,
    came_from: PathBuf,
}

impl Trash {
    /// The remains of an interrupted removal at `path`.
    pub(super) fn at(path: &Path) -> Self {
        Self { path: Some(path.to_owned()), came_from: path.to_owned() }
    }

    /// Unlinks the file and makes the removal durable.
    pub fn delete(self) -> Result<()> {
        self.unlink()?.as_deref().map_or(Ok(()), sync_dir)
    }

    /// Unlinks the file and returns the directory it came from, which has to be synced.
    fn unlink(self) -> Result<Option<PathBuf>> {
        match self.path.as_deref().map_or(Ok(()), std::fs::remove_file) {
            // Another process's sweep of the staging directory was faster.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("removing", self.path.unwrap_or(self.came_from), error));
            }
            _ => {}
        }
        fault::point("discard.unlinked").doing("removing", &self.came_from)?;
        Ok(self.came_from.parent().map(Path::to_owned))
    }
}

/// Deletes many files, syncing each directory once; returns what could not be, with its tag.
pub fn delete_all<T>(all: impl IntoIterator<Item = (T, Trash)>) -> Vec<(T, Error)> {
    let mut failed = Vec::new();
    let mut unlinked: BTreeMap<PathBuf, Vec<T>> = BTreeMap::new();
    for (tag, trash) in all {
        match trash.unlink() {
            Ok(Some(directory)) => unlinked.entry(directory).or_default().push(tag),
            Ok(None) => {}
            Err(error) => failed.push((tag, error)),
        }
    }
    for (directory, tags) in unlinked {
        if let Err(error) = sync_dir(&directory) {
            failed.extend(tags.into_iter().map(|tag| (tag, error.clone())));
        }
    }
    failed
}

fn rename_to_trash(path: &Path, tmp: &Path) -> Result<Trash> {
    let trash = trash_path(path, tmp);
    fault::point("discard.start").doing("removing", path)?;
    std::fs::rename(path, &trash).doing("removing", path)?;
    fault::point("discard.renamed").doing("removing", path)?;
    Ok(Trash { path: Some(trash), came_from: path.to_owned() })
}

fn unlink_in_place(path: &Path) -> Result<Trash> {
    std::fs::remove_file(path).doing("removing", path)?;
    Ok(Trash { path: None, came_from: path.to_owned() })
}

/// Whether [`discard`] or [`discard_dir`] gave the name.
pub(super) fn is_trash(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"trash-"))
}

fn trash_path(path: &Path, tmp: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    tmp.join(format!("trash-{name}.{}", uuid::Uuid::new_v4().simple()))
}
