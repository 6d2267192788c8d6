//! A tar stream from a box, unpacked on the host. The box is not trusted: no entry is written outside the destination.
#![allow(
    clippy::disallowed_methods,
    reason = "the destination is the user's directory, named on the command line"
)]

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry, EntryType};

use super::endpoint::copied_name;
use super::target::{self, CopyTarget, DestinationState};
use super::tree::DestinationTree;
use crate::report::CommandFailure;

/// What was unpacked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Bytes of file contents.
    pub(crate) bytes: u64,
    /// Entries that were skipped: devices, FIFOs and the like.
    pub(crate) skipped: Vec<PathBuf>,
}

/// Unpacks the copy of a box's `source` path to `destination`, both as they were written.
///
/// Files get their mode (without set-id bits) and modification time, and belong to the user who copies.
pub(crate) fn unpack(tar: impl Read, source: &str, destination: &str) -> Result<Unpacked, CommandFailure> {
    let mut archive = Archive::new(tar);
    let mut unpacking: Option<Unpacking> = None;
    for entry in archive.entries().map_err(|error| malformed(&error))? {
        let mut entry = entry.map_err(|error| malformed(&error))?;
        let path = entry.path().map_err(|error| malformed(&error))?.into_owned();
        let unpacking = match &mut unpacking {
            Some(begun) => begun,
            none => none.insert(Unpacking::begin(&path, entry.header().entry_type(), source, destination)?),
        };
        unpacking.entry(&mut entry, &path).map_err(|error| {
            CommandFailure::local(format!("copying {} to {destination} failed: {error}", path.display()))
        })?;
    }
    let unpacking = unpacking.ok_or_else(|| CommandFailure::local(format!("nothing arrived of {source}")))?;
    unpacking.finish(destination)
}

fn malformed(error: &io::Error) -> CommandFailure {
    CommandFailure::local(format!("the box sent a malformed tar stream: {error}"))
}

struct Unpacking {
    tree: DestinationTree,
    /// First component of every entry; empty when only contents are copied.
    top: PathBuf,
    target: CopyTarget,
    directories: Vec<(PathBuf, u32, Option<u64>)>,
    done: Unpacked,
}

impl Unpacking {
    fn begin(first: &Path, kind: EntryType, source: &str, destination: &str) -> Result<Self, CommandFailure> {
        let first = inner(first).map_err(|error| malformed(&error))?;
        let top = first.components().next().map(|top| PathBuf::from(top.as_os_str())).unwrap_or_default();
        let is_directory = kind.is_dir() || first.components().count() != 1;
        let name = if top.as_os_str().is_empty() { None } else { copied_name(source) };
        let present = target::present(destination)?;
        let target = target::decide(destination, present, is_directory, name)?;
        if present == DestinationState::Nothing && target.name.is_none() {
            std::fs::create_dir(&target.root).map_err(|error| {
                CommandFailure::local(format!("creating {} failed: {error}", target.root.display()))
            })?;
        }
        let tree = DestinationTree::open(&target.root).map_err(|error| {
            CommandFailure::local(format!("opening the directory {} failed: {error}", target.root.display()))
        })?;
        let top = if target.name.is_some() { top } else { PathBuf::new() };
        Ok(Self { tree, top, target, directories: Vec::new(), done: Unpacked::default() })
    }

    /// Returns where a path of the archive lies below the root of the tree.
    fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let path = inner(path)?;
        match &self.target.name {
            None => Ok(path),
            Some(name) => match path.strip_prefix(&self.top) {
                Ok(rest) if rest.as_os_str().is_empty() => Ok(name.into()),
                Ok(rest) => Ok(Path::new(name).join(rest)),
                Err(_) => Err(io::Error::other("it is not part of what was asked for")),
            },
        }
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        let place = self.place(path)?;
        let mode = entry.header().mode()?;
        let modified = entry.header().mtime().ok();
        match entry.header().entry_type() {
            EntryType::Directory => {
                self.tree.directory(&place)?;
                if !place.as_os_str().is_empty() {
                    self.directories.push((place, mode, modified));
                }
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let length = entry.size();
                self.tree.file(&place, mode, modified, length, entry)?;
                self.done.bytes += length;
            }
            EntryType::Symlink => self.tree.symlink(&place, &link_target(entry)?)?,
            EntryType::Link => {
                let existing = self.place(&link_target(entry)?)?;
                self.tree.hard_link(&place, &existing)?;
            }
            EntryType::XGlobalHeader => {}
            _ => self.done.skipped.push(path.to_owned()),
        }
        Ok(())
    }

    fn finish(self, destination: &str) -> Result<Unpacked, CommandFailure> {
        // Innermost first: a directory must have its contents before it becomes read-only.
        for (path, mode, modified) in self.directories.iter().rev() {
            self.tree.finish_directory(path, *mode, *modified).map_err(|error| {
                CommandFailure::local(format!(
                    "setting the mode of {} in {destination} failed: {error}",
                    path.display()
                ))
            })?;
        }
        Ok(self.done)
    }
}

fn link_target(entry: &Entry<'_, impl Read>) -> io::Result<PathBuf> {
    entry
        .link_name()?
        .map(std::borrow::Cow::into_owned)
        .ok_or_else(|| io::Error::other("it is a link to nothing"))
}

/// Returns the path without `.` components; refuses an absolute path and `..`.
fn inner(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "its path leads out of the destination",
                ));
            }
        }
    }
    Ok(clean)
}
