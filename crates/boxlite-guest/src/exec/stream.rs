//! Moves bytes between a process and the host, each direction bounded by its window.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use boxlite_proto::{Frame, ReceiveWindow, SendWindow, Stream};
use rustix::event::PollFlags;
use rustix::io::Errno;

use super::PollInterest;
use crate::port::{Port, PortError};

/// Most bytes in one read.
pub(crate) const READ_CHUNK: usize = 32 * 1024;

/// How long an output may pause after its process has ended, before it counts as complete.
///
/// A process may leave its output open in a child of its own. All output from before the end of the process is sent.
const OUTPUT_IDLE_TIMEOUT: Duration = Duration::from_millis(100);
/// How long after its process has ended an output is read at most, if it never pauses that long.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Control-D, which ends the input of a program that reads a terminal in its usual mode.
const END_OF_TRANSMISSION: u8 = 4;

/// Input: from the host to a process.
pub(super) struct ProcessInput {
    channel: u32,
    fd: Option<OwnedFd>,
    window: ReceiveWindow,
    pending: Vec<u8>,
    written: usize,
    ended: bool,
    terminal: bool,
}

impl ProcessInput {
    pub(super) fn new(channel: u32, fd: OwnedFd, terminal: bool) -> Self {
        let window = ReceiveWindow::new(channel, Stream::Stdin);
        Self { channel, fd: Some(fd), window, pending: Vec::new(), written: 0, ended: false, terminal }
    }

    /// Takes bytes for the process. They are dropped if it has closed its input.
    pub(super) fn accept(&mut self, bytes: &[u8], port: &mut Port) -> Result<(), PortError> {
        if self.fd.is_some() && !self.ended {
            self.window.received(bytes.len())?;
            self.pending.extend_from_slice(bytes);
            self.write(port);
        }
        Ok(())
    }

    /// Ends the input once what is pending has been written.
    pub(super) fn end(&mut self) {
        if !self.ended && self.terminal {
            self.pending.push(END_OF_TRANSMISSION);
        }
        self.ended = true;
    }

    /// Writes as much as the process accepts. An error means that it has closed its input.
    pub(super) fn write(&mut self, port: &mut Port) {
        let Some(fd) = &self.fd else { return };
        let mut closed = false;
        let before = self.written;
        while self.written < self.pending.len() {
            match rustix::io::write(fd, &self.pending[self.written..]) {
                Ok(n) => self.written += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    closed = true;
                    break;
                }
            }
        }
        if closed {
            self.fd = None;
            self.pending = Vec::new();
            port.send_frame(&Frame::Close { channel: self.channel, stream: Stream::Stdin });
            return;
        }
        if let Some(bytes) = self.window.consumed(self.written - before) {
            port.send_frame(&Frame::Credit { channel: self.channel, stream: Stream::Stdin, bytes });
        }
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
            if self.ended {
                self.fd = None;
            }
        }
    }

    /// Returns the events to poll for: room if bytes are pending, otherwise only the error that a closed input causes.
    pub(super) fn interest(&self) -> Option<PollInterest<'_>> {
        let fd = self.fd.as_ref()?.as_fd();
        if !self.pending.is_empty() {
            return Some((fd, PollFlags::OUT));
        }
        // A terminal reports its hang-up on the output side, and would never stop reporting it here.
        (!self.terminal).then_some((fd, PollFlags::empty()))
    }

    /// Handles the error that [`Self::interest`] polls for.
    pub(super) fn broke(&mut self, port: &mut Port) {
        if self.fd.take().is_some() {
            self.pending = Vec::new();
            port.send_frame(&Frame::Close { channel: self.channel, stream: Stream::Stdin });
        }
    }
}

/// Output: from a process to the host.
pub(super) struct ProcessOutput {
    channel: u32,
    stream: Stream,
    fd: Option<OwnedFd>,
    window: SendWindow,
    discarding: bool,
    ended_at: Option<Instant>,
    /// Bytes that were in the pipe when the process ended and have not been read yet.
    owed: u64,
    /// Since when the pipe has been empty.
    idle_since: Option<Instant>,
}

impl ProcessOutput {
    pub(super) fn new(channel: u32, stream: Stream, fd: OwnedFd) -> Self {
        let window = SendWindow::new(channel, stream);
        Self {
            channel,
            stream,
            fd: Some(fd),
            window,
            discarding: false,
            ended_at: None,
            owed: 0,
            idle_since: None,
        }
    }

    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    pub(super) fn granted(&mut self, bytes: u32) -> Result<(), PortError> {
        Ok(self.window.granted(bytes)?)
    }

    /// Reads and drops the output from now on, so that the process neither blocks nor is killed by SIGPIPE.
    pub(super) fn discard(&mut self) {
        self.discarding = true;
    }

    /// Records that the process has ended, and how much output it left in the pipe.
    pub(super) fn writer_ended(&mut self, now: Instant) {
        self.ended_at = Some(now);
        if let Some(fd) = &self.fd {
            self.owed = rustix::io::ioctl_fionread(fd).unwrap_or(0);
        }
    }

    /// Returns how many bytes may be read now, at most `most`.
    fn capacity(&self, room: bool, most: usize) -> usize {
        if self.discarding {
            most
        } else if room {
            most.min(self.window.available())
        } else {
            0
        }
    }

    pub(super) fn interest(&self, room: bool) -> Option<PollInterest<'_>> {
        let fd = self.fd.as_ref()?;
        (self.capacity(room, READ_CHUNK) > 0).then_some((fd.as_fd(), PollFlags::IN))
    }

    /// Reads once and queues the bytes for the host.
    pub(super) fn read(&mut self, scratch: &mut [u8], port: &mut Port, now: Instant) {
        let Some(fd) = &self.fd else { return };
        let capacity = self.capacity(port.has_room(), scratch.len());
        if capacity == 0 {
            return;
        }
        match rustix::io::read(fd, &mut scratch[..capacity]) {
            Ok(n) if n > 0 => {
                self.idle_since = None;
                self.owed = self.owed.saturating_sub(n as u64);
                if !self.discarding {
                    self.window.sent(n);
                    port.send_data(self.channel, self.stream, &scratch[..n]);
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                self.owed = 0;
                self.idle_since.get_or_insert(now);
            }
            // Includes EIO, which a terminal returns once no process has it open.
            Ok(_) | Err(_) => self.fd = None,
        }
    }

    /// Whether all output was sent, or the wait for more of it is over.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        if self.fd.is_none() {
            return true;
        }
        let Some(ended_at) = self.ended_at else { return false };
        let quiet = self.idle_since.is_some_and(|since| now >= since.max(ended_at) + OUTPUT_IDLE_TIMEOUT);
        let chatty = self.owed == 0 && self.window.available() > 0 && now >= ended_at + OUTPUT_TIMEOUT;
        self.discarding || quiet || chatty
    }

    /// When the wait for more output is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ended_at = self.fd.as_ref().and(self.ended_at)?;
        Some(
            self.idle_since
                .map_or(ended_at + OUTPUT_TIMEOUT, |since| since.max(ended_at) + OUTPUT_IDLE_TIMEOUT),
        )
    }

    /// Closes the output and tells the host that all of it was sent.
    pub(super) fn finish(&mut self, port: &mut Port) {
        self.fd = None;
        if !self.discarding {
            port.send_frame(&Frame::Eof { channel: self.channel, stream: self.stream });
        }
    }
}
