//! The starters of tied boxes: an auto-remove box that is to go with its starter goes although it never ran.
//!
//! # Locking
//! `starter.lock` in the directory of such a box is held exclusively by its starter, from before the box can be seen until
//! its shim watches that process. A process that finds it free may remove the box, if that was never started.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use boxlite_home::BoxPaths;
use boxlite_home::durable::Lock;
use boxlite_types::{Error, Result};

/// The boxes that are to go with this process and do not run yet, each with the lock that says so.
#[derive(Debug, Default)]
pub(crate) struct Starters(Mutex<HashMap<String, Lock>>);

impl Starters {
    /// Takes the lock of the new box `id`, whose files are at `paths`.
    pub(crate) fn begin(&self, id: &str, paths: &BoxPaths) -> Result<()> {
        let lock = Lock::exclusive(&paths.starter_lock())?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), lock);
        Ok(())
    }

    /// Lets go of the box `id`, whose shim knows its starter by now.
    pub(crate) fn end(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// Whether the box at `paths` was to go with its starter, and that has ended.
pub(crate) fn has_ended(paths: &BoxPaths) -> Result<bool> {
    let path = paths.starter_lock();
    match std::fs::File::open(&path) {
        Ok(file) => Ok(Lock::try_lock_open(file, &path)?.is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("opening", path, error)),
    }
}
