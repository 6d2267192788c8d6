//! A tar stream from a box, unpacked on the host. The box is not trusted: no entry is written outside the destination.
#![allow(
    clippy::disallowed_methods,
    reason = "the destination is the user's directory, named on the command line"
)]

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

use super::archive::{ArchiveEntry, IncomingArchive};
use super::endpoint::copied_name;
use super::skipped::SkippedPaths;
use super::space::DestinationSpace;
use super::target::{self, CopyTarget, DestinationState};
use super::tree::{DestinationTree, DirectoryAttributes, KeptAttributes};
use crate::report::CommandFailure;

/// Totals of an unpacked archive.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Bytes of file contents.
    pub(crate) bytes: u64,
    /// Entries that were skipped: devices, FIFOs and the like.
    pub(crate) skipped: SkippedPaths,
}

/// Unpacks the copy of a box's `source` path to `destination`, both as they were written.
///
/// Files get their modification time and, as far as the umask allows, their mode, and belong to the user who copies; with
/// `keep` they get mode and owner as they were. No copy has set-id bits, and none fills the destination's disk.
pub(crate) fn unpack(
    tar: impl Read,
    source: &str,
    destination: &str,
    keep: bool,
) -> Result<Unpacked, CommandFailure> {
    unpack_within(tar, source, destination, KeptAttributes::new(keep), DestinationSpace::new())
}

pub(super) fn unpack_within(
    tar: impl Read,
    source: &str,
    destination: &str,
    kept: KeptAttributes,
    space: DestinationSpace,
) -> Result<Unpacked, CommandFailure> {
    let mut archive = IncomingArchive::new(tar);
    let Some(first) = archive.next().map_err(|error| malformed(&error))? else {
        return Err(CommandFailure::local(format!("nothing arrived of {source}")));
    };
    let mut unpacking = Unpacking::begin(&first, source, destination, kept, space)?;
    let mut next = Some(first);
    while let Some(entry) = next {
        unpacking.entry(&entry, &mut archive).map_err(|error| {
            let failed = format!("copying {} to {destination} failed", entry.path.display());
            CommandFailure::io(&failed, &error)
        })?;
        next = archive.next().map_err(|error| malformed(&error))?;
    }
    unpacking.finish(destination)
}

fn malformed(error: &io::Error) -> CommandFailure {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return CommandFailure::local("the box's tar stream was broken off");
    }
    CommandFailure::local(format!("the box sent a malformed tar stream: {error}"))
}

struct Unpacking {
    tree: DestinationTree,
    /// First component of every entry; empty when only contents are copied.
    top: PathBuf,
    target: CopyTarget,
    /// The directory that is being filled and those above it, outermost first. A box can send any number of directories,
    /// so each is finished as soon as an entry lies outside of it.
    open: Vec<(PathBuf, DirectoryAttributes)>,
    done: Unpacked,
}

impl Unpacking {
    fn begin(
        first: &ArchiveEntry,
        source: &str,
        destination: &str,
        kept: KeptAttributes,
        space: DestinationSpace,
    ) -> Result<Self, CommandFailure> {
        let kind = first.kind;
        let first = inner(&first.path).map_err(|error| malformed(&error))?;
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
        let tree = DestinationTree::open(&target.root, kept, space).map_err(|error| {
            CommandFailure::local(format!("opening the directory {} failed: {error}", target.root.display()))
        })?;
        let top = if target.name.is_some() { top } else { PathBuf::new() };
        Ok(Self { tree, top, target, open: Vec::new(), done: Unpacked::default() })
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

    fn entry(&mut self, entry: &ArchiveEntry, contents: &mut impl Read) -> io::Result<()> {
        let place = self.place(&entry.path)?;
        self.finish_directories(|open| !place.starts_with(open) || place == open)?;
        match entry.kind {
            EntryType::Directory => {
                self.tree.directory(&place)?;
                if !place.as_os_str().is_empty() {
                    self.open.push((place, entry.into()));
                }
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.tree.file(&place, entry, contents)?;
                self.done.bytes += entry.stored;
            }
            EntryType::Symlink => self.tree.symlink(&place, link_target(entry)?, entry.owner)?,
            EntryType::Link => {
                let existing = self.place(link_target(entry)?)?;
                self.tree.hard_link(&place, &existing)?;
            }
            _ => self.done.skipped.add(&entry.path),
        }
        Ok(())
    }

    /// Finishes the open directories for which `is_full`, innermost first: a directory must have its contents before it
    /// becomes read-only.
    fn finish_directories(&mut self, is_full: impl Fn(&Path) -> bool) -> io::Result<()> {
        while let Some((path, attributes)) = self.open.pop_if(|(path, _)| is_full(path)) {
            self.tree.finish_directory(&path, attributes).map_err(|error| {
                io::Error::new(error.kind(), format!("setting the mode of {}: {error}", path.display()))
            })?;
        }
        Ok(())
    }

    fn finish(mut self, destination: &str) -> Result<Unpacked, CommandFailure> {
        self.finish_directories(|_| true)
            .map_err(|error| CommandFailure::io(&format!("copying to {destination} failed"), &error))?;
        Ok(self.done)
    }
}

fn link_target(entry: &ArchiveEntry) -> io::Result<&Path> {
    entry.link.as_deref().ok_or_else(|| io::Error::other("it is a link to nothing"))
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
