//! The directory or file that a virtiofsd serves: the one that was checked.
//!
//! virtiofsd resolves the path of its directory by itself. A box that may write above that directory could put a link into
//! the path after it was checked. So the directory is opened without following any link, and compared with the one that
//! virtiofsd has made its root before a guest is connected to it. A descriptor cannot be handed over instead: virtiofsd
//! mounts its directory in a namespace of its own, where a descriptor of this one cannot be mounted. A
//! file cannot be a root; virtiofsd is given the descriptor to compare with, and serves nothing else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use boxlite_types::{Doing, Error, ErrorCause, ErrorKind, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Daemon;
use super::daemon::Identity;

/// How long a virtiofsd may take to make its directory its root; a few milliseconds unless the host is busy.
const ROOT_TIMEOUT: Duration = Duration::from_secs(20);
const ROOT_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A volume's directory or file, held open so that no other one gets its inode.
#[derive(Debug)]
pub(super) struct ServedSource(File);

impl ServedSource {
    /// Opens the directory, or the `file`, at `path`, which must not lead through a link.
    pub(super) fn open(path: &Path, file: bool) -> Result<Self> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        flags.set(OFlags::DIRECTORY, !file);
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Err(Errno::LOOP) => Err(replaced(path)),
            other => {
                Ok(Self(other.map_err(io::Error::from).doing("opening the volume's directory", path)?.into()))
            }
        }
    }

    /// The descriptor, with which nothing can be read.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The owner of the directory or file, which lies at `path`.
    pub(super) fn owner(&self, path: &Path) -> Result<Identity> {
        let found = self.0.metadata().doing("examining the volume's directory", path)?;
        Ok(Identity { uid: found.uid(), gid: found.gid() })
    }

    /// Waits until `daemon` has the directory at `path` as its root, unless it ends before.
    ///
    /// # Errors
    /// `Conflict` if the root is another directory; `Unavailable` if it cannot be found out.
    pub(super) fn confirm(&self, daemon: &mut Daemon, path: &Path) -> Result<()> {
        let ours = identity(&std::fs::metadata("/").doing("examining", "/")?);
        let expected = identity(&self.0.metadata().doing("examining the volume's directory", path)?);
        let root = format!("/proc/{}/root/", daemon.pid());
        let began = Instant::now();
        loop {
            if daemon.has_ended() {
                return Ok(());
            }
            match std::fs::metadata(&root).map(|found| identity(&found)) {
                Ok(found) if found == expected => return Ok(()),
                Ok(found) if found != ours => return Err(replaced(path)),
                looked if began.elapsed() > ROOT_TIMEOUT => {
                    let message =
                        format!("virtiofsd does not serve the volume's directory {} yet", path.display());
                    let error = Error::new(ErrorKind::Unavailable, message).at(path);
                    return Err(match looked {
                        Ok(_) => error,
                        Err(cause) => error.because(cause),
                    });
                }
                _ => thread::sleep(ROOT_POLL_INTERVAL),
            }
        }
    }
}

fn replaced(path: &Path) -> Error {
    let message = format!(
        "the volume's directory {} was replaced while the box started; see who can write above it",
        path.display()
    );
    Error::conflict(message).about(ErrorCause::Volume).at(path)
}

fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
