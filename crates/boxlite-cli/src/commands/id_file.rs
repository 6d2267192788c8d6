//! `--cidfile`: a file that receives the id of the new box.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::report::CommandFailure;

/// A file made for this box alone; gone again unless it receives an id.
pub(super) struct IdFile {
    path: PathBuf,
    file: File,
    /// It has an id.
    written: bool,
}

impl IdFile {
    /// Makes the file, before the box: where it cannot be made, no box is.
    #[allow(clippy::disallowed_methods, reason = "a file of the user's, none of the home's")]
    pub(super) fn make(path: Option<PathBuf>) -> Result<Option<Self>, CommandFailure> {
        let Some(path) = path else { return Ok(None) };
        match File::create_new(&path) {
            Ok(file) => Ok(Some(Self { path, file, written: false })),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let message = format!("there is a file {} already; it may name another box", path.display());
                Err(CommandFailure::local(message).hint("remove it, or give --cidfile another name"))
            }
            Err(error) => {
                Err(CommandFailure::io(&format!("making the file {} failed", path.display()), &error))
            }
        }
    }

    /// Writes the id, in place of one that it has: all ids have the same length.
    pub(super) fn write(&mut self, id: &str) -> Result<(), CommandFailure> {
        self.written = true;
        self.file.write_all_at(id.as_bytes(), 0).map_err(|error| {
            CommandFailure::io(
                &format!("writing the id of box {id} to {} failed", self.path.display()),
                &error,
            )
        })
    }
}

impl Drop for IdFile {
    #[allow(clippy::disallowed_methods, reason = "as above")]
    fn drop(&mut self) {
        if !self.written {
            // It is empty; if it was removed meanwhile, nothing is lost.
            let _ = fs::remove_file(&self.path);
        }
    }
}
