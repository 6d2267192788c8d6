//! The destination of a copy on the host, by Docker's rules, but for links.
//!
//! Docker copies into the directory that a link at the destination leads to. Here the user has to ask for that with a
//! trailing `/`: the link may have come from a box in an earlier copy, as `./out` of `cp BOX:/out ./out`, and the next
//! copy would write wherever the box chose. A link to anything else is replaced, not followed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::report::CommandFailure;

/// The entry at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DestinationState {
    /// Nothing, or a link to nothing.
    Nothing,
    Directory,
    /// A link that leads to a directory, written without a trailing `/`.
    DirectoryLink,
    /// A file, or a link to one.
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
        (DestinationState::DirectoryLink, _) => Err(CommandFailure::local(format!(
            "{destination} is a symbolic link to a directory, which an earlier copy may have brought from a box"
        ))
        .hint(format!("write {destination}/ to copy into that directory, or remove the link"))),
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
    // The kernel follows a link that a trailing `/` or `/.` comes after.
    let is_link = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() && is_link => Ok(DestinationState::DirectoryLink),
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
