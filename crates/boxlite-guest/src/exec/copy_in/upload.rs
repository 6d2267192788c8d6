//! The archive as it arrives, until the box is told to stop.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::linux::Signals;

/// Standard input; once SIGTERM has come, reading fails with `ECANCELED`, so that whoever reads can clean up.
pub(in crate::exec) struct Upload(BufReader<Interruptible>);

struct Interruptible {
    input: File,
    stop: Signals,
}

impl Upload {
    /// Takes standard input, and SIGTERM, which kills no more.
    pub(in crate::exec) fn on_standard_input() -> io::Result<Self> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let stop = Signals::block(&[libc::SIGTERM])?;
        Ok(Self(BufReader::new(Interruptible { input, stop })))
    }
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Read for Interruptible {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut fds = [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.input, PollFlags::IN)];
        rustix::event::poll(&mut fds, None)?;
        if !fds[0].revents().is_empty() {
            return Err(Errno::CANCELED.into());
        }
        self.input.read(buffer)
    }
}
