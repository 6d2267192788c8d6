//! The two directions between a process and the host, each bounded by its window.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use boxlite_proto::{Frame, ReceiveWindow, SendWindow, Stream};
use rustix::event::PollFlags;
use rustix::io::Errno;

use super::Interest;
use crate::port::{Port, PortError};

/// Bytes read at once.
pub(crate) const SCRATCH: usize = 32 * 1024;

/// A process that has ended may have left its output to a child. What was written before the end is always sent; after
/// that, output is waited for while it keeps coming in shorter pauses than this...
const LINGER: Duration = Duration::from_millis(100);
/// ...and no longer than this.
const LINGER_LIMIT: Duration = Duration::from_secs(1);

/// Control-D, which ends the input of whoever reads a terminal in its usual mode.
const END_OF_TRANSMISSION: u8 = 4;

/// Input: from the host to a process.
pub(super) struct Inlet {
    channel: u32,
    fd: Option<OwnedFd>,
    window: ReceiveWindow,
    pending: Vec<u8>,
    written: usize,
    ended: bool,
    terminal: bool,
}

impl Inlet {
    pub(super) fn new(channel: u32, fd: OwnedFd, terminal: bool) -> Self {
        let window = ReceiveWindow::new(channel, Stream::Stdin);
        Self { channel, fd: Some(fd), window, pending: Vec::new(), written: 0, ended: false, terminal }
    }

    /// Takes bytes; those for a process that has closed its input are dropped.
    pub(super) fn accept(&mut self, bytes: &[u8], port: &mut Port) -> Result<(), PortError> {
        if self.fd.is_some() && !self.ended {
            self.window.received(bytes.len())?;
            self.pending.extend_from_slice(bytes);
            self.write(port);
        }
        Ok(())
    }

    pub(super) fn end(&mut self) {
        if !self.ended && self.terminal {
            self.pending.push(END_OF_TRANSMISSION);
        }
        self.ended = true;
    }

    /// Writes what the process takes; an error means that it has closed its input.
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

    /// Room, if something is pending; otherwise only the error that tells of a closed input.
    pub(super) fn interest(&self) -> Option<Interest<'_>> {
        let fd = self.fd.as_ref()?.as_fd();
        if !self.pending.is_empty() {
            return Some((fd, PollFlags::OUT));
        }
        // A terminal reports its hang-up on the output side, for ever.
        (!self.terminal).then_some((fd, PollFlags::empty()))
    }

    /// Takes note of the error that [`Self::interest`] waits for.
    pub(super) fn broke(&mut self, port: &mut Port) {
        if self.fd.take().is_some() {
            self.pending = Vec::new();
            port.send_frame(&Frame::Close { channel: self.channel, stream: Stream::Stdin });
        }
    }
}

/// Output: from a process to the host.
pub(super) struct Outlet {
    channel: u32,
    stream: Stream,
    fd: Option<OwnedFd>,
    window: SendWindow,
    discarding: bool,
    ended_at: Option<Instant>,
    /// Bytes that were in the pipe when the process ended, and have not been read yet.
    owed: u64,
    /// Since when nothing was there to read.
    idle_since: Option<Instant>,
}

impl Outlet {
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

    /// From now on the output is read and dropped, so that the process neither blocks nor is killed by SIGPIPE.
    pub(super) fn discard(&mut self) {
        self.discarding = true;
    }

    pub(super) fn writer_ended(&mut self, now: Instant) {
        self.ended_at = Some(now);
        if let Some(fd) = &self.fd {
            self.owed = rustix::io::ioctl_fionread(fd).unwrap_or(0);
        }
    }

    fn capacity(&self, room: bool, most: usize) -> usize {
        if self.discarding {
            most
        } else if room {
            most.min(self.window.available())
        } else {
            0
        }
    }

    pub(super) fn interest(&self, room: bool) -> Option<Interest<'_>> {
        let fd = self.fd.as_ref()?;
        (self.capacity(room, SCRATCH) > 0).then_some((fd.as_fd(), PollFlags::IN))
    }

    /// Reads once and queues what came.
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
            // Also EIO, which is how a terminal says that nobody holds it open any more.
            Ok(_) | Err(_) => self.fd = None,
        }
    }

    /// Whether all of it was sent, or nobody is left to wait for.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        if self.fd.is_none() {
            return true;
        }
        let Some(ended_at) = self.ended_at else { return false };
        let quiet = self.idle_since.is_some_and(|since| now >= since.max(ended_at) + LINGER);
        let chatty = self.owed == 0 && self.window.available() > 0 && now >= ended_at + LINGER_LIMIT;
        self.discarding || quiet || chatty
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let ended_at = self.fd.as_ref().and(self.ended_at)?;
        Some(self.idle_since.map_or(ended_at + LINGER_LIMIT, |since| since.max(ended_at) + LINGER))
    }

    pub(super) fn finish(&mut self, port: &mut Port) {
        self.fd = None;
        if !self.discarding {
            port.send_frame(&Frame::Eof { channel: self.channel, stream: self.stream });
        }
    }
}
