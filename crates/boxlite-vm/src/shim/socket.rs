//! The control socket `boxes/<id>/shim.sock`, reachable however deep the home lies.
//!
//! A socket's address holds 107 bytes. Both ends therefore name it through a descriptor of its directory,
//! `/proc/self/fd/N/shim.sock`, which always fits.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use boxlite_home::durable;
use boxlite_types::{Doing, Error, Result};
use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

/// Listens on the socket at `path` (mode 0600), replacing one that a dead shim left.
///
/// The caller holds the box's lock, so that nobody else listens there.
pub(crate) fn listen(path: &Path) -> Result<UnixListener> {
    durable::remove_volatile(path)?;
    let (directory, short) = short_name(path).doing("opening the directory of the socket", path)?;
    let listener = UnixListener::bind(short).doing("creating the socket", path)?;
    drop(directory);
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR).doing("restricting the socket", path)?;
    listener.set_nonblocking(true).doing("preparing the socket", path)?;
    Ok(listener)
}

/// Connects to the socket at `path`; `None` when nobody listens there, or not for long enough to take the connection.
pub(crate) async fn connect(path: &Path) -> Result<Option<UnixStream>> {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, NotADirectory, NotFound};
    let connected = match short_name(path) {
        Ok((_directory, short)) => UnixStream::connect(short).await,
        Err(error) => Err(error),
    };
    match connected {
        Ok(stream) => Ok(Some(stream)),
        // A file where the box's directory was has no socket in it either.
        Err(error)
            if matches!(error.kind(), NotFound | NotADirectory | ConnectionRefused | ConnectionReset) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::io("connecting to", path, error)),
    }
}

/// The user whose box it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner(u32);

impl Owner {
    /// The user that this process is now.
    pub(crate) fn own() -> Self {
        Self(rustix::process::geteuid().as_raw())
    }

    /// Whether the process at the other end of `stream` is the owner's, or root's.
    pub(crate) fn may_ask(self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| peer.uid() == self.0 || peer.uid() == 0)
    }
}

fn short_name(path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let (parent, name) =
        (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or(OsStr::new("")));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((directory, short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_in_a_deep_home_is_reached_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("shim.sock");
        assert!(connect(&path).await.unwrap().is_none(), "nobody listens yet");
        let listener = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        let _client = connect(&path).await.unwrap().unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(Owner::own().may_ask(&accepted));
        drop(listener);
        assert!(connect(&path).await.unwrap().is_none(), "a dead shim's socket is nobody");
        listen(&path).unwrap();
    }

    /// Mutation tried: a reset that is an error fails within some hundred rounds.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_shim_that_ends_while_somebody_connects_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shim.sock");
        for _ in 0..3000 {
            let listener = listen(&path).unwrap();
            let ending = tokio::task::spawn_blocking(move || drop(listener));
            connect(&path).await.unwrap();
            ending.await.unwrap();
        }
    }
}
