//! Directories that are being made: out of sight until published, trash when their maker is gone.
//!
//! # Locking
//! A staged directory is locked itself (`flock` on the open directory) by its maker, and a directory that is being
//! removed by its remover: see `discard_dir`. A sweep takes only unlocked directories. Between `mkdir` and the lock
//! a sweep may be faster; the maker notices and begins anew.

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use boxlite_types::{Doing, Error, Result};
use rustix::fs::{CWD, RenameFlags};

use super::remove::{discard_locked_dir, is_trash, lock_dir};
use super::{Lock, fault, remove_trash_dir, sync_dir};
use crate::id::is_id;

/// The prefix of the names of staged directories.
const PREFIX: &str = "dir-";

/// An unfinished directory in the staging directory, exclusively locked by its maker.
///
/// Dropping it removes it. After a `kill -9` it stays behind unlocked, and [`sweep_staged_dir`] removes it.
#[derive(Debug)]
pub struct StagedDir {
    lock: Option<Lock>,
}

impl StagedDir {
    /// Creates a directory (mode 0700) in the staging directory `tmp`.
    pub fn create(tmp: &Path) -> Result<Self> {
        loop {
            let path = tmp.join(format!("{PREFIX}{}", uuid::Uuid::new_v4().simple()));
            DirBuilder::new().mode(0o700).create(&path).doing("creating the staged directory", &path)?;
            if let Some(lock) = lock_dir(&path)? {
                fault::point("dir.staged").doing("creating the staged directory", &path)?;
                return Ok(Self { lock: Some(lock) });
            }
        }
    }

    /// Where it is until it is published.
    pub fn path(&self) -> &Path {
        self.lock.as_ref().expect("a staged directory is held until it is published").path()
    }

    /// Creates the directory `name` (mode 0700) in it, which is durable once this one is published.
    pub fn create_dir(&self, name: &str) -> Result<()> {
        let path = self.path().join(name);
        DirBuilder::new().mode(0o700).create(&path).doing("creating the directory", path)
    }

    /// Writes the new file `name` (mode 0600) in it. Its contents are durable when this returns, its name is so once the
    /// directory is published.
    pub fn write(&self, name: &str, contents: &[u8]) -> Result<()> {
        let (path, doing) = (self.path().join(name), "writing");
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path).doing(doing, &path)?;
        if contents.is_empty() {
            return Ok(());
        }
        file.write_all(contents).doing(doing, &path)?;
        fault::point("dir.written").doing(doing, &path)?;
        file.sync_all().doing(doing, &path)
    }

    /// Fsyncs the directory, renames it to `destination`, where nothing may be, and fsyncs that one's parent.
    ///
    /// The caller has made what lies deeper durable. On an error before the rename the staged directory is removed.
    ///
    /// # Errors
    /// `Conflict` when something is at `destination`.
    pub fn publish(mut self, destination: &Path) -> Result<()> {
        let doing = "publishing the directory";
        sync_dir(self.path())?;
        fault::point("dir.synced").doing(doing, destination)?;
        match rustix::fs::renameat_with(CWD, self.path(), CWD, destination, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                let message = format!("{} exists already", destination.display());
                return Err(Error::conflict(message).at(destination));
            }
            Err(errno) => return Err(errno).doing(doing, destination),
        }
        self.lock.take();
        fault::point("dir.renamed").doing(doing, destination)?;
        destination.parent().map_or(Ok(()), sync_dir)
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            let _ = remove_trash_dir(lock.path());
        }
    }
}

/// Whether [`StagedDir`] gave the name.
pub fn is_staged_dir(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix(PREFIX)).is_some_and(is_id)
}

/// Removes the staged directory, or the trash of `discard_dir`, at `path` if it is not locked; with `dry_run`
/// only says that it would.
///
/// Returns false when its maker or remover is alive, when it has vanished, or when its name is not one of boxlite's.
pub fn sweep_staged_dir(path: &Path, dry_run: bool) -> Result<bool> {
    if !is_staged_dir(path) && !is_trash(path) {
        return Ok(false);
    }
    let Some(_lock) = lock_dir(path)? else { return Ok(false) };
    match path.parent() {
        _ if dry_run => {}
        // Renamed under the lock, so that a maker that has not locked it yet notices.
        Some(tmp) if is_staged_dir(path) => discard_locked_dir(path, tmp)?,
        _ => remove_trash_dir(path)?,
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// The race between `mkdir` and the lock is narrow: without the maker's look at its path this still passed.
    #[test]
    fn a_sweep_never_takes_a_directory_that_is_being_made() {
        let dir = tempfile::tempdir().unwrap();
        let (tmp, over) = (dir.path().join("tmp"), AtomicBool::new(false));
        std::fs::create_dir(&tmp).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        for entry in std::fs::read_dir(&tmp).unwrap() {
                            sweep_staged_dir(&entry.unwrap().path(), false).unwrap();
                        }
                    }
                });
            }
            for index in 0..400 {
                let staged = StagedDir::create(&tmp).unwrap();
                std::fs::write(staged.path().join("file"), b"x").unwrap();
                let destination = dir.path().join(index.to_string());
                staged.publish(&destination).unwrap();
                assert!(destination.join("file").exists());
            }
            over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn what_a_dead_maker_left_is_swept_and_a_taken_name_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut staged = StagedDir::create(dir.path()).unwrap();
        let path = staged.path().to_owned();
        assert!(!sweep_staged_dir(&path, false).unwrap());
        staged.lock.take();
        assert!(sweep_staged_dir(&path, true).unwrap());
        assert!(path.exists());
        assert!(sweep_staged_dir(&path, false).unwrap());
        assert!(!path.exists());

        let (taken, theirs) = (dir.path().join("taken"), dir.path().join("theirs"));
        std::fs::create_dir(&taken).unwrap();
        std::fs::create_dir(&theirs).unwrap();
        assert!(!sweep_staged_dir(&theirs, false).unwrap(), "not a name of boxlite's");
        let refused = StagedDir::create(dir.path()).unwrap().publish(&taken).unwrap_err();
        assert_eq!(refused.kind(), boxlite_types::ErrorKind::Conflict);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "the staged directory is gone");
    }

    /// A plain `remove_dir_all` passed here as well; it is what the second of two sweeps of one trash must get.
    #[test]
    fn two_removals_of_one_tree_both_succeed() {
        for _ in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            let trash = dir.path().join("trash-box.1");
            for index in 0..40 {
                let deep = trash.join(format!("{index}/disks"));
                std::fs::create_dir_all(&deep).unwrap();
                std::fs::write(deep.join("root.qcow2"), b"x").unwrap();
            }
            std::thread::scope(|scope| {
                let removals: Vec<_> = (0..3).map(|_| scope.spawn(|| remove_trash_dir(&trash))).collect();
                for removal in removals {
                    removal.join().unwrap().unwrap();
                }
            });
            assert!(!trash.exists());
        }
    }
}
