//! The virtio-serial port to the host.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use boxlite_proto::{Decoder, Frame, FromGuest, ProtoError, Stream, ToGuest};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::linux::{self, Signals};

/// Most bytes in the queue before bulk data is read from processes, so that control messages behind it leave soon.
const MAX_BULK_QUEUE: usize = 64 * 1024;
/// Most bytes in the queue before requests are read, which bounds the memory of their answers.
const MAX_QUEUE: usize = 512 * 1024;
/// The driver returns at most a page per read.
const READ_CHUNK: usize = 4096;
const READS_PER_ROUND: usize = 16;

/// Why the connection to the host cannot go on.
#[derive(Debug)]
pub(crate) enum PortError {
    /// The device failed.
    Io(io::Error),
    /// The host broke the protocol.
    Protocol(ProtoError),
}

impl From<ProtoError> for PortError {
    fn from(error: ProtoError) -> Self {
        Self::Protocol(error)
    }
}

impl From<Errno> for PortError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl std::fmt::Display for PortError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Protocol(error) => error.fmt(f),
        }
    }
}

/// The open port: a decoder for incoming bytes and a bounded queue of outgoing ones.
pub(crate) struct Port {
    fd: OwnedFd,
    decoder: Decoder,
    /// Frames that arrived with the last message of [`Self::receive`], for the next [`Self::read`].
    early: Vec<Frame>,
    queue: Vec<u8>,
    sent: usize,
    connected: bool,
    /// Whether SIGIO announces that the host returns. Only asked for once the host has gone, because SIGIO announces
    /// each arrival of data as well from then on.
    watched: bool,
}

impl Port {
    /// Wraps an open port; `fd` must be non-blocking.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            decoder: Decoder::new(),
            early: Vec::new(),
            queue: Vec::new(),
            sent: 0,
            connected: true,
            watched: false,
        }
    }

    /// The events to poll for; none while the host is away, because SIGIO announces its return.
    pub(crate) fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if self.connected {
            flags.set(PollFlags::IN, self.queued() < MAX_QUEUE);
            flags.set(PollFlags::OUT, self.queued() > 0);
        }
        flags
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn queued(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// Whether bulk data may be queued.
    pub(crate) fn has_room(&self) -> bool {
        self.queued() < MAX_BULK_QUEUE
    }

    /// Queues a control message.
    pub(crate) fn send(&mut self, message: &FromGuest) -> Result<(), PortError> {
        Frame::control(message)?.encode(&mut self.queue);
        Ok(())
    }

    /// Queues another frame.
    pub(crate) fn send_frame(&mut self, frame: &Frame) {
        frame.encode(&mut self.queue);
    }

    /// Queues bytes of a stream.
    pub(crate) fn send_data(&mut self, channel: u32, stream: Stream, bytes: &[u8]) {
        Frame::encode_data(channel, stream, bytes, &mut self.queue);
    }

    /// Reads what has arrived, within bounds, and appends its frames to `frames`.
    ///
    /// Returns whether the host has gone. What it had asked for is then void, and the next host starts afresh.
    pub(crate) fn read(&mut self, frames: &mut Vec<Frame>) -> Result<bool, PortError> {
        frames.append(&mut self.early);
        let mut buffer = [0; READ_CHUNK];
        for _ in 0..READS_PER_ROUND {
            if self.queued() >= MAX_QUEUE {
                break;
            }
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(0) if !self.watched => {
                    // Read again, because the host may have returned before SIGIO was asked for.
                    linux::notify_by_signal(self.fd.as_fd()).map_err(PortError::Io)?;
                    self.watched = true;
                }
                Ok(0) => {
                    let was_connected = std::mem::replace(&mut self.connected, false);
                    if was_connected {
                        self.decoder = Decoder::new();
                    }
                    return Ok(was_connected);
                }
                Ok(n) => {
                    self.connected = true;
                    let mut input = &buffer[..n];
                    while let Some(frame) = self.decoder.next(&mut input)? {
                        frames.push(frame);
                    }
                }
                Err(Errno::AGAIN) => {
                    self.connected = true;
                    break;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Sends as much as the device takes.
    pub(crate) fn write(&mut self) -> Result<(), PortError> {
        while self.queued() > 0 {
            match rustix::io::write(&self.fd, &self.queue[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.queued() == 0 {
            self.queue.clear();
            self.sent = 0;
        } else if self.sent > MAX_QUEUE {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Waits for the next control message and sends the queue meanwhile. For use before the guest is up.
    pub(crate) fn receive(&mut self, signals: &Signals) -> Result<ToGuest, PortError> {
        loop {
            let mut frames = Vec::new();
            self.read(&mut frames)?;
            self.write()?;
            let mut frames = frames.into_iter();
            if let Some(Frame::Control(json)) = frames.next() {
                self.early.extend(frames);
                return Ok(Frame::parse_control(&json)?);
            }
            self.wait(signals, None)?;
        }
    }

    /// Sends the queue, then waits until the host hangs up or `limit` has passed.
    pub(crate) fn linger(&mut self, signals: &Signals, limit: Duration) -> Result<(), PortError> {
        let deadline = Instant::now() + limit;
        loop {
            self.write()?;
            let gone = self.read(&mut Vec::new())?;
            let left = deadline.saturating_duration_since(Instant::now());
            if gone || left.is_zero() {
                return Ok(());
            }
            self.wait(signals, Some(left))?;
        }
    }

    fn wait(&self, signals: &Signals, limit: Option<Duration>) -> Result<(), PortError> {
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        if !self.interest().is_empty() {
            fds.push(PollFd::new(&self.fd, self.interest()));
        }
        wait(&mut fds, limit)?;
        signals.drain();
        Ok(())
    }
}

/// Polls; an interruption ends the wait like an event.
pub(crate) fn wait(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> Result<(), PortError> {
    let timeout = limit
        .map(|limit| Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) });
    match rustix::event::poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
