//! Where on the host a copy goes: Docker's rules, decided from what is there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::report::Failure;

/// What is at the destination, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Present {
    Nothing,
    Directory,
    File,
    Special,
}

/// Where entries go: `root` exists or is made; below it the source's top entry is called `name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) root: PathBuf,
    /// `None`: the contents of a directory go straight into `root`.
    pub(super) name: Option<OsString>,
}

/// Decides for a destination as it was written, what is there, and a source that is a directory or not and is called
/// `name` (`None` when only its contents are meant).
pub(super) fn decide(
    destination: &str,
    present: Present,
    source_is_directory: bool,
    name: Option<&str>,
) -> Result<Target, Failure> {
    let path = Path::new(destination);
    match (present, source_is_directory) {
        (Present::Directory, _) => Ok(Target { root: path.to_owned(), name: name.map(OsString::from) }),
        (Present::Special, _) => {
            Err(Failure::local(format!("{destination} is neither a file nor a directory"))
                .hint("`-` as the destination writes a tar stream to standard output"))
        }
        (Present::File, true) => {
            Err(Failure::local(format!("{destination} is a file; a directory can't be copied onto it")))
        }
        (Present::File, false) if destination.ends_with('/') => {
            Err(Failure::local(format!("{destination} is a file and no directory")))
        }
        (Present::Nothing, false) if destination.ends_with('/') => {
            Err(Failure::local(format!("the directory {destination} does not exist")).hint("create it first"))
        }
        (Present::Nothing, true) if name.is_none() => Ok(Target { root: path.to_owned(), name: None }),
        (Present::File | Present::Nothing, _) => {
            let name = path
                .file_name()
                .ok_or_else(|| Failure::local(format!("{destination} does not end in a file name")))?;
            let root = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            };
            Ok(Target { root, name: Some(name.to_owned()) })
        }
    }
}

/// What is at `path` now.
pub(super) fn present(path: &str) -> Result<Present, Failure> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(Present::Directory),
        Ok(metadata) if metadata.is_file() => Ok(Present::File),
        Ok(_) => Ok(Present::Special),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Present::Nothing),
        // `file/`: the kernel says so before we can.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(Failure::local(format!("part of the path {path} is a file and no directory")))
        }
        Err(error) => Err(Failure::local(format!("examining {path} failed: {error}"))),
    }
}
