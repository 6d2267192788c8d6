//! The destination of a copy on the host, by Docker's rules.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::report::CommandFailure;

/// The state of the destination, after following links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DestinationState {
    Nothing,
    Directory,
    File,
    Special,
}

/// Where entries are written: below the directory `root`, which exists or is made, with the top entry called `name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CopyTarget {
    pub(super) root: PathBuf,
    /// `None` writes the contents of a directory straight into `root`.
    pub(super) name: Option<OsString>,
}

/// Decides where a source called `name` (`None` for the contents of a directory) is written, from the destination as the
/// user wrote it and what is there.
pub(super) fn decide(
    destination: &str,
    present: DestinationState,
    source_is_directory: bool,
    name: Option<&str>,
) -> Result<CopyTarget, CommandFailure> {
    let path = Path::new(destination);
    match (present, source_is_directory) {
        (DestinationState::Directory, _) => {
            Ok(CopyTarget { root: path.to_owned(), name: name.map(OsString::from) })
        }
        (DestinationState::Special, _) => {
            Err(CommandFailure::local(format!("{destination} is neither a file nor a directory"))
                .hint("`-` as the destination writes a tar stream to standard output"))
        }
        (DestinationState::File, true) => Err(CommandFailure::local(format!(
            "{destination} is a file; a directory cannot be copied onto it"
        ))),
        (DestinationState::File, false) if destination.ends_with('/') => {
            Err(CommandFailure::local(format!("{destination} is a file, not a directory")))
        }
        (DestinationState::Nothing, false) if destination.ends_with('/') => {
            Err(CommandFailure::local(format!("the directory {destination} does not exist"))
                .hint("create it first"))
        }
        (DestinationState::Nothing, true) if name.is_none() => {
            Ok(CopyTarget { root: path.to_owned(), name: None })
        }
        (DestinationState::File | DestinationState::Nothing, _) => {
            let name = path
                .file_name()
                .ok_or_else(|| CommandFailure::local(format!("{destination} does not end in a file name")))?;
            let root = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            };
            Ok(CopyTarget { root, name: Some(name.to_owned()) })
        }
    }
}

/// Returns what is at `path` now.
pub(super) fn present(path: &str) -> Result<DestinationState, CommandFailure> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(DestinationState::Directory),
        Ok(metadata) if metadata.is_file() => Ok(DestinationState::File),
        Ok(_) => Ok(DestinationState::Special),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(DestinationState::Nothing),
        // The kernel refuses `file/` before we can.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(CommandFailure::local(format!("part of the path {path} is a file, not a directory")))
        }
        Err(error) => Err(CommandFailure::local(format!("examining {path} failed: {error}"))),
    }
}
