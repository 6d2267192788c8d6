//! The exit of a child process, awaited without a thread or a signal handler.

use std::io;
use std::process::Child;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
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
