//! Reads the incoming archive until its end, or until the box is told to stop.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::linux::Signals;

/// Standard input. Once SIGTERM has arrived, reading fails with `ECANCELED`, so that the reader can clean up.
pub(in crate::exec) struct Upload(BufReader<InterruptibleInput>);

struct InterruptibleInput {
    input: File,
    stop: Signals,
}

impl Upload {
    /// Takes standard input, and SIGTERM, which does not kill this process any more.
    pub(in crate::exec) fn on_standard_input() -> io::Result<Self> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let stop = Signals::block(&[libc::SIGTERM])?;
        Ok(Self(BufReader::new(InterruptibleInput { input, stop })))
    }
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Read for InterruptibleInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut fds = [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.input, PollFlags::IN)];
        rustix::event::poll(&mut fds, None)?;
        if !fds[0].revents().is_empty() {
            return Err(Errno::CANCELED.into());
        }
        self.input.read(buffer)
    }
}
