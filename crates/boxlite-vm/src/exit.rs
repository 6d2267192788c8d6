//! The exit of a child process, awaited without a thread or a signal handler, and brought about.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

/// Returns a future that is ready once `child` has exited, so that `wait` does not block; it needs a tokio runtime.
///
/// # Errors
/// When the process cannot be watched; the future's own error is of the same kind.
pub(crate) fn exit_of(child: &mut Child) -> io::Result<impl Future<Output = io::Result<()>> + Send + use<>> {
    // One that was reaped already has no process to watch.
    let handle = match child.try_wait()? {
        Some(_) => None,
        None => Some(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?),
    };
    Ok(async move {
        let Some(handle) = handle else { return Ok(()) };
        // SAFETY: the registration owns the descriptor, which nothing else closes.
        #[allow(unsafe_code)]
        let registered = unsafe { AsyncFd::register(handle) };
        registered?.readable().await.map(drop)
    })
}

/// Ends a child, or what a jailer has in its jail.
#[derive(Debug)]
pub(crate) struct ChildEnder {
    handle: OwnedFd,
    signal: Signal,
}

impl ChildEnder {
    /// Kills `child`.
    pub(crate) fn of(child: &Child) -> io::Result<Self> {
        Ok(Self { handle: pidfd_open(Pid::from_child(child), PidfdFlags::empty())?, signal: Signal::KILL })
    }

    /// Has `jailer` kill everything in its jail. Without capabilities the shim may signal its jailers, but not their
    /// programs, which are another user's.
    pub(crate) fn of_jail(jailer: &Child) -> io::Result<Self> {
        Ok(Self { signal: boxlite_jail::END_OF_JAIL, ..Self::of(jailer)? })
    }

    /// Another one for the same child.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { handle: self.handle.try_clone()?, signal: self.signal })
    }

    /// Begins the end; nothing happens to a child that has ended.
    pub(crate) fn end(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, self.signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
