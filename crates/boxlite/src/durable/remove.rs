//! Taking durable files away.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::{FileId, Lock, fault, sync_dir};
use crate::error::{Doing, Error, Result};

/// Removes the file at `path` and fsyncs its directory; a file that is gone already is a success.
pub fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("removing", path, error)),
    }
    fault::point("remove.unlinked").doing("removing", path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Takes a large file away in two steps: at once out of sight to a trash name in `tmp`, then off the disk.
///
/// The returned trash has no name that anybody looks for; a lock on the file may be released before
/// [`Trash::delete`]. After a crash in between, the sweep of the staging directory removes it.
pub fn discard(path: &Path, tmp: &Path) -> Result<Trash> {
    let trash = trash_path(path, tmp);
    fault::point("discard.start").doing("removing", path)?;
    std::fs::rename(path, &trash).doing("removing", path)?;
    fault::point("discard.renamed").doing("removing", path)?;
    Ok(Trash { path: trash, came_from: path.to_owned() })
}

/// [`discard`] of the file on which `lock` is held.
///
/// `None` when the path had come to name another file (a damaged one was replaced between the last look and the
/// rename), which is put back unless the path is taken again.
pub fn discard_locked(lock: &Lock, tmp: &Path) -> Result<Option<Trash>> {
    let path = lock.path();
    let trash = discard(path, tmp)?;
    let held = FileId::of(&lock.file().metadata().doing("examining", path)?);
    let moved = FileId::of(&std::fs::symlink_metadata(&trash.path).doing("examining", &trash.path)?);
    if held == moved {
        return Ok(Some(trash));
    }
    match rustix::fs::renameat_with(CWD, &trash.path, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::EXIST) => trash.delete().map(|()| None),
        Err(errno) => Err(errno).doing("putting back", path),
    }
}

/// Takes a directory tree away: out of sight by one rename, then off the disk.
pub fn discard_dir(path: &Path, tmp: &Path) -> Result<()> {
    let trash = trash_path(path, tmp);
    fault::point("discard.start").doing("removing", path)?;
    match std::fs::rename(path, &trash) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("removing", path, error)),
    }
    fault::point("discard.renamed").doing("removing", path)?;
    path.parent().map_or(Ok(()), sync_dir)?;
    std::fs::remove_dir_all(&trash).doing("removing", &trash)
}

/// Deletes a directory that [`discard_dir`] had renamed into the staging directory when it was killed.
pub fn remove_trash_dir(trash: &Path) -> Result<()> {
    match std::fs::remove_dir_all(trash) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("removing", trash, error))
        }
        _ => Ok(()),
    }
}

/// A file that is out of sight and waits for its unlink.
#[derive(Debug)]
#[must_use = "the bytes are freed by `delete`"]
pub struct Trash {
    path: PathBuf,
    came_from: PathBuf,
}

impl Trash {
    /// Unlinks the file and makes the removal durable.
    pub fn delete(self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => {}
            // Another process's sweep of the staging directory was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("removing", &self.path, error)),
        }
        fault::point("discard.unlinked").doing("removing", &self.came_from)?;
        self.came_from.parent().map_or(Ok(()), sync_dir)
    }
}

fn trash_path(path: &Path, tmp: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    tmp.join(format!("trash-{name}.{}", uuid::Uuid::new_v4().simple()))
}
