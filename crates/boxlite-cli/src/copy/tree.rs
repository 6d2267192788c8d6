//! A destination directory that confines every write, regardless of the links in it.
//!
//! # Confinement
//!
//! The user's path to the root is followed; below it, no symbolic link is. Every name is resolved by `openat2` with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS` from the open root. A link that lies where the copy has a directory is
//! replaced by that directory: a box that sent the link in one copy and the directory in the next could otherwise write
//! where the link points.
//!
//! Files are written under a scratch name and renamed, so that none is visible half-written.
#![allow(
    clippy::disallowed_methods,
    reason = "these are the user's files, named on the command line, not boxlite's"
)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};

use boxlite_archive::DataRun;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::archive::ArchiveEntry;
use super::space::{CHECK_INTERVAL, DestinationSpace};

/// The attributes that a copied file keeps of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptAttributes {
    /// Whether owners are kept; only root can.
    pub(super) owners: bool,
    /// Bits of the mode that are kept. Never the set-id bits: a box would place a program that runs with its owner's rights.
    pub(super) mode: u32,
}

impl KeptAttributes {
    /// As `cp` does: the user's umask holds, unless `archive` asks for owner and mode as they are.
    pub(super) fn new(archive: bool) -> Self {
        let owners = archive && rustix::process::geteuid().is_root();
        Self { owners, mode: if archive { 0o1777 } else { 0o777 & !umask() } }
    }
}

/// The mask of this process, which can be read without changing it only here.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
}

/// The attributes that a directory gets once everything is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirectoryAttributes {
    mode: u32,
    owner: (u32, u32),
    modified: Option<u64>,
}

impl From<&ArchiveEntry> for DirectoryAttributes {
    fn from(entry: &ArchiveEntry) -> Self {
        Self { mode: entry.mode, owner: entry.owner, modified: entry.modified }
    }
}

/// The open directory.
#[derive(Debug)]
pub(super) struct DestinationTree {
    root: OwnedFd,
    scratch: OsString,
    kept: KeptAttributes,
    space: DestinationSpace,
}

/// A name in an open directory of the tree.
struct TreePlace {
    directory: OwnedFd,
    name: OsString,
}

impl DestinationTree {
    /// Opens the directory at `path`.
    pub(super) fn open(path: &Path, kept: KeptAttributes, space: DestinationSpace) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        let scratch = format!(".boxlite-cp.{}", std::process::id()).into();
        Ok(Self { root, scratch, kept, space })
    }

    /// Makes a directory unless there is one. Only its owner can enter it until [`Self::finish_directory`].
    pub(super) fn directory(&self, path: &Path) -> io::Result<()> {
        let Some(place) = self.place(path)? else { return Ok(()) };
        self.space.check(&place.directory, 0)?;
        enter_or_make(&place.directory, &place.name, Mode::RWXU).map(drop)
    }

    /// Makes a file, whole or not at all, replacing an existing file; the holes of the original are holes of the copy.
    pub(super) fn file(&self, path: &Path, entry: &ArchiveEntry, contents: &mut impl Read) -> io::Result<()> {
        self.replace(path, |place| {
            self.space.check(&place.directory, entry.stored)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&place.directory, &self.scratch, flags, Mode::RUSR | Mode::WUSR)?;
            let file = File::from(file);
            for run in &entry.runs {
                self.run(place, &file, *run, contents)?;
            }
            rustix::fs::ftruncate(&file, entry.length)?;
            if self.kept.owners {
                let (owner, group) = ids(entry.owner);
                rustix::fs::fchown(&file, owner, group)?;
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode & self.kept.mode))?;
            if let Some(modified) = entry.modified {
                rustix::fs::futimens(&file, &times(modified))?;
            }
            Ok(())
        })
    }

    /// Writes one run of a file's bytes.
    fn run(&self, place: &TreePlace, file: &File, run: DataRun, contents: &mut impl Read) -> io::Result<()> {
        let mut buffer = vec![0; run.length.min(256 << 10) as usize];
        let (mut done, mut unchecked) = (0, 0);
        while done < run.length {
            let most = buffer.len().min(usize::try_from(run.length - done).unwrap_or(usize::MAX));
            let count = match contents.read(&mut buffer[..most]) {
                Ok(0) => {
                    let message = format!("it ended after {done} of {} bytes", run.length);
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            file.write_all_at(&buffer[..count], run.offset + done)?;
            done += count as u64;
            unchecked += count as u64;
            if unchecked >= CHECK_INTERVAL {
                self.space.check(&place.directory, 0)?;
                unchecked = 0;
            }
        }
        Ok(())
    }

    /// Makes a symbolic link, replacing an existing file. Its target is not checked: no link of the tree is followed.
    pub(super) fn symlink(&self, path: &Path, target: &Path, owner: (u32, u32)) -> io::Result<()> {
        self.replace(path, |place| {
            self.space.check(&place.directory, 0)?;
            rustix::fs::symlinkat(target, &place.directory, &self.scratch)?;
            if self.kept.owners {
                let ((owner, group), flags) = (ids(owner), AtFlags::SYMLINK_NOFOLLOW);
                rustix::fs::chownat(&place.directory, &self.scratch, owner, group, flags)?;
            }
            Ok(())
        })
    }

    /// Makes `path` another name of the file `existing`, which must be in the tree as well.
    pub(super) fn hard_link(&self, path: &Path, existing: &Path) -> io::Result<()> {
        let name = existing.file_name().ok_or(Errno::INVAL)?;
        let directory = self.enter(existing.parent().unwrap_or(Path::new("")))?;
        self.replace(path, |place| {
            let flags = AtFlags::empty();
            Ok(rustix::fs::linkat(&directory, name, &place.directory, &self.scratch, flags)?)
        })
    }

    /// Sets owner, mode and time of a directory once everything is in it.
    pub(super) fn finish_directory(&self, path: &Path, attributes: DirectoryAttributes) -> io::Result<()> {
        let directory = self.enter(path)?;
        // An `O_PATH` descriptor cannot change its directory.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&directory, ".", flags, Mode::empty())?;
        if let Some(modified) = attributes.modified {
            rustix::fs::futimens(&directory, &times(modified))?;
        }
        if self.kept.owners {
            let (owner, group) = ids(attributes.owner);
            rustix::fs::fchown(&directory, owner, group)?;
        }
        Ok(rustix::fs::fchmod(&directory, Mode::from_raw_mode(attributes.mode & self.kept.mode))?)
    }

    /// Runs `make`, which creates the scratch name, then renames that to `path`.
    fn replace(&self, path: &Path, make: impl FnOnce(&TreePlace) -> io::Result<()>) -> io::Result<()> {
        let place = self.place(path)?.ok_or(Errno::ISDIR)?;
        if kind_of(&place.directory, &place.name) == Some(FileType::Directory) {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "a directory is in the way"));
        }
        let result = make(&place).and_then(|()| {
            Ok(rustix::fs::renameat(&place.directory, &self.scratch, &place.directory, &place.name)?)
        });
        // The scratch name remains after a failure, and after a rename between two names of one file.
        let _ = rustix::fs::unlinkat(&place.directory, &self.scratch, AtFlags::empty());
        result
    }

    /// Opens the parent of `path`, creating missing directories; `None` for the root itself.
    fn place(&self, path: &Path) -> io::Result<Option<TreePlace>> {
        let Some(name) = path.file_name() else { return Ok(None) };
        let mut directory = self.enter(Path::new(""))?;
        for component in path.parent().into_iter().flat_map(Path::components) {
            let Component::Normal(component) = component else { return Err(Errno::INVAL.into()) };
            directory = enter_or_make(&directory, component, Mode::from_raw_mode(0o777))?;
        }
        Ok(Some(TreePlace { directory, name: name.to_owned() }))
    }

    /// Opens a directory of the tree.
    fn enter(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { OsStr::new(".") } else { path.as_os_str() };
        open_beneath(&self.root, path).map_err(|error| match error {
            Errno::XDEV | Errno::LOOP => {
                io::Error::new(io::ErrorKind::PermissionDenied, "a link lies in its path")
            }
            other => other.into(),
        })
    }
}

/// Opens the directory `name` of `parent`. A missing one is made; a symbolic link is replaced by one.
fn enter_or_make(parent: &OwnedFd, name: &OsStr, mode: Mode) -> io::Result<OwnedFd> {
    if kind_of(parent, name) == Some(FileType::Symlink) {
        rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
    }
    match rustix::fs::mkdirat(parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => Ok(open_beneath(parent, name)?),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory below `parent` without following any link.
fn open_beneath(parent: &OwnedFd, path: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(parent.as_fd(), path, flags, Mode::empty(), resolve)
}

fn kind_of(directory: &OwnedFd, name: &OsStr) -> Option<FileType> {
    let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(found.st_mode))
}

/// An owner and group as `chown` takes them. The highest number means "unchanged" there.
fn ids((owner, group): (u32, u32)) -> (Option<Uid>, Option<Gid>) {
    let owner = (owner != u32::MAX).then(|| Uid::from_raw(owner));
    (owner, (group != u32::MAX).then(|| Gid::from_raw(group)))
}

fn times(modified: u64) -> Timestamps {
    let moment = Timespec { tv_sec: i64::try_from(modified).unwrap_or(i64::MAX), tv_nsec: 0 };
    Timestamps { last_access: moment, last_modification: moment }
}
