//! A destination directory that confines every write, whatever links lie in it.
//!
//! Every path is resolved by `openat2` with `RESOLVE_BENEATH` from the open root, so a link that leads outside is an error.
//! Files are written under a scratch name and renamed, so that none is visible half-written.
#![allow(
    clippy::disallowed_methods,
    reason = "these are the user's files, named on the command line, not boxlite's"
)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

/// The open directory.
#[derive(Debug)]
pub(super) struct DestinationTree {
    root: OwnedFd,
    scratch: OsString,
}

/// A name in an open directory of the tree.
struct TreePlace {
    directory: OwnedFd,
    name: OsString,
}

impl DestinationTree {
    /// Opens the directory at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { root, scratch: format!(".boxlite-cp.{}", std::process::id()).into() })
    }

    /// Makes a directory unless there is one.
    pub(super) fn directory(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let place = self.place(path)?;
        match rustix::fs::mkdirat(&place.directory, &place.name, Mode::from_raw_mode(0o777)) {
            Err(Errno::EXIST) => self.enter(path).map(drop),
            other => Ok(other?),
        }
    }

    /// Makes a file of `length` bytes, whole or not at all, replacing an existing file.
    pub(super) fn file(
        &self,
        path: &Path,
        mode: u32,
        modified: Option<u64>,
        length: u64,
        contents: &mut impl io::Read,
    ) -> io::Result<()> {
        self.replace(path, |place| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file =
                rustix::fs::openat(&place.directory, &self.scratch, flags, Mode::from_raw_mode(0o600))?;
            let mut file = File::from(file);
            let count = io::copy(contents, &mut file)?;
            if count != length {
                let message = format!("it ended after {count} of {length} bytes");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
            if let Some(modified) = modified {
                rustix::fs::futimens(&file, &times(modified))?;
            }
            Ok(())
        })
    }

    /// Makes a symbolic link, replacing an existing file. Its target is not checked: links are never followed outside.
    pub(super) fn symlink(&self, path: &Path, target: &Path) -> io::Result<()> {
        self.replace(path, |place| Ok(rustix::fs::symlinkat(target, &place.directory, &self.scratch)?))
    }

    /// Makes `path` another name of the file `existing`, which must be in the tree as well.
    pub(super) fn hard_link(&self, path: &Path, existing: &Path) -> io::Result<()> {
        let from = self.place(existing)?;
        self.replace(path, |place| {
            let flags = AtFlags::empty();
            rustix::fs::linkat(&from.directory, &from.name, &place.directory, &self.scratch, flags)?;
            Ok(())
        })
    }

    /// Sets mode and time of a directory once everything is in it.
    pub(super) fn finish_directory(&self, path: &Path, mode: u32, modified: Option<u64>) -> io::Result<()> {
        let directory = self.enter(path)?;
        // An `O_PATH` descriptor cannot change its directory.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&directory, ".", flags, Mode::empty())?;
        if let Some(modified) = modified {
            rustix::fs::futimens(&directory, &times(modified))?;
        }
        Ok(rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode & 0o777))?)
    }

    /// Runs `make`, which creates the scratch name, then renames that to `path`.
    fn replace<T>(&self, path: &Path, make: impl FnOnce(&TreePlace) -> io::Result<T>) -> io::Result<T> {
        let place = self.place(path)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if let Ok(there) = rustix::fs::statat(&place.directory, &place.name, flags)
            && FileType::from_raw_mode(there.st_mode) == FileType::Directory
        {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "a directory is in the way"));
        }
        let result = make(&place).and_then(|made| {
            rustix::fs::renameat(&place.directory, &self.scratch, &place.directory, &place.name)?;
            Ok(made)
        });
        // The scratch name remains after a failure, and after a rename between two names of one file.
        let _ = rustix::fs::unlinkat(&place.directory, &self.scratch, AtFlags::empty());
        result
    }

    /// Opens the parent of `path`, creating missing directories.
    fn place(&self, path: &Path) -> io::Result<TreePlace> {
        let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
        let mut walked = PathBuf::new();
        for component in path.parent().into_iter().flat_map(Path::components) {
            let Component::Normal(component) = component else { return Err(Errno::INVAL.into()) };
            let parent = self.enter(&walked)?;
            walked.push(component);
            match rustix::fs::mkdirat(&parent, component, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(TreePlace { directory: self.enter(&walked)?, name })
    }

    /// Opens a directory of the tree, following links that stay inside.
    fn enter(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { OsStr::new(".") } else { path.as_os_str() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(self.root.as_fd(), path, flags, Mode::empty(), resolve).map_err(|error| {
            match error {
                Errno::XDEV => io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "a link in its path leads out of the destination",
                ),
                other => other.into(),
            }
        })
    }
}

fn times(modified: u64) -> Timestamps {
    let moment = Timespec { tv_sec: i64::try_from(modified).unwrap_or(i64::MAX), tv_nsec: 0 };
    Timestamps { last_access: moment, last_modification: moment }
}
