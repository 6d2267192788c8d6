//! A box that ends with the process that started it.
//!
//! The starter is known by a pidfd, which means that very process whatever becomes of its number. Whoever holds one may also
//! signal the process, so the steward has it, which hears nothing from a guest, and not the shim. The steward's other end of a
//! pipe is all that the shim has: it ends when the starter has, and when the steward has.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use boxlite_types::{Doing, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// A handle of this process, for boxes that are to end with it.
///
/// # Errors
/// When the process has no descriptor left.
pub fn own_process() -> Result<OwnedFd> {
    pidfd_open(getpid(), PidfdFlags::empty()).doing("opening a handle of", "this process")
}

/// The steward's side.
#[derive(Debug)]
pub(super) struct Tie {
    starter: OwnedFd,
    /// Its closing tells the shim.
    told: OwnedFd,
}

/// The shim's side: a pipe that ends.
pub(super) type Tied = OwnedFd;

impl Tie {
    /// Makes both sides for a box with this starter; neither for one that is tied to nobody.
    pub(super) fn of(starter: Option<OwnedFd>) -> io::Result<(Option<Self>, Option<Tied>)> {
        let Some(starter) = starter else { return Ok((None, None)) };
        let (tied, told) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((Some(Self { starter, told }), Some(tied)))
    }

    /// Every descriptor of it.
    pub(super) fn descriptors(&self) -> [RawFd; 2] {
        [self.starter.as_raw_fd(), self.told.as_raw_fd()]
    }

    /// Waits until the starter has ended, and tells the shim. Blocks.
    pub(super) fn watch(self) {
        let mut ends = [PollFd::new(&self.starter, PollFlags::IN)];
        while let Err(rustix::io::Errno::INTR) = poll(&mut ends, None) {}
        tracing::info!("the starter has ended, and its box with it");
    }
}

/// Waits in the shim for the starter's end.
#[derive(Debug)]
pub(super) struct StarterWatch(Option<pipe::Receiver>);

impl StarterWatch {
    /// Watches `tied`; without it, the starter's end is never told. Needs a tokio runtime.
    pub(super) fn new(tied: Option<Tied>) -> io::Result<Self> {
        Ok(Self(tied.map(pipe::Receiver::from_owned_fd).transpose()?))
    }

    /// Returns once the starter has ended, and then never again.
    pub(super) async fn ended(&mut self) {
        match &mut self.0 {
            // Nothing is ever written: whatever comes is the end.
            Some(pipe) => drop(pipe.read_u8().await),
            None => std::future::pending().await,
        }
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::Pid;

    use super::*;

    #[tokio::test]
    async fn the_end_of_the_starter_is_told_once() {
        let mut starter = Command::new("sleep").arg("1000").spawn().unwrap();
        let handle = pidfd_open(Pid::from_child(&starter), PidfdFlags::empty()).unwrap();
        let (tie, tied) = Tie::of(Some(handle)).unwrap();
        let mut watch = StarterWatch::new(tied).unwrap();
        let steward = std::thread::spawn(|| tie.unwrap().watch());
        assert!(is_pending(&mut watch).await, "the starter lives");
        starter.kill().unwrap();
        watch.ended().await;
        steward.join().unwrap();
        starter.wait().unwrap();
        assert!(is_pending(&mut watch).await, "it is told once");
    }

    #[tokio::test]
    async fn a_box_without_a_tie_never_hears_of_an_end() {
        let (tie, tied) = Tie::of(None).unwrap();
        assert!(tie.is_none());
        assert!(is_pending(&mut StarterWatch::new(tied).unwrap()).await);
    }

    async fn is_pending(watch: &mut StarterWatch) -> bool {
        tokio::select! {
            biased;
            () = watch.ended() => false,
            () = tokio::task::yield_now() => true,
        }
    }
}
