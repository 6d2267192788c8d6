//! The process that opens a log's files, and sets them aside.

use std::fs::File;
use std::path::{Path, PathBuf};

use boxlite_home::durable;
use boxlite_types::{Error, Result};

/// Opens the files of a log: in this process, or in another one for it.
pub(crate) trait LogFiles: std::fmt::Debug + Send + Sync {
    /// Makes the log at `path` the old one, in the place of that, and opens an empty one.
    fn set_aside(&self, path: &Path) -> Result<File>;

    /// Opens the log at `path`, and behind it the old one, to read them; one that is missing is left out.
    fn open(&self, path: &Path) -> Result<Vec<File>>;
}

/// A process that has the directory of its logs.
#[derive(Debug)]
pub(crate) struct OwnFiles;

impl LogFiles for OwnFiles {
    fn set_aside(&self, path: &Path) -> Result<File> {
        durable::rotate_log(path, &old_path(path))?;
        durable::open_log(path)
    }

    fn open(&self, path: &Path) -> Result<Vec<File>> {
        // The current file first: a rotation between the two opens then shows its records twice at worst, and positions
        // tell them apart.
        let mut files = Vec::new();
        for path in [path.to_owned(), old_path(path)] {
            match File::open(&path) {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("opening the log", path, error)),
            }
        }
        Ok(files)
    }
}

/// Where the old log of `path` is: the same name with `.1` after it.
pub fn old_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}
