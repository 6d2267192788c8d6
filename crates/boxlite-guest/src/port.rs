//! The virtio-serial port to the host.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use boxlite_proto::{Decoder, Frame, FromGuest, ProtoError, Stream, ToGuest};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::linux::{self, Signals};

/// Bulk data is read from processes only while less than this is waiting to be sent, so that control messages, which
/// queue behind it, leave soon.
const BULK_LIMIT: usize = 64 * 1024;
/// Requests are taken only while less than this is waiting to be sent, which bounds the queue of answers.
const ANSWER_LIMIT: usize = 512 * 1024;
/// The driver hands out at most a page at once.
const READ_CHUNK: usize = 4096;
const READS_PER_ROUND: usize = 16;

/// What ends the connection for good.
#[derive(Debug)]
pub(crate) enum PortError {
    /// The device failed.
    Io(io::Error),
    /// The host sent what it must not.
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

/// The open port: a decoder for what arrives and a bounded queue of what is to be sent.
pub(crate) struct Port {
    fd: OwnedFd,
    decoder: Decoder,
    /// What came with the first message and is for whoever serves the guest once it is up.
    early: Vec<Frame>,
    queue: Vec<u8>,
    sent: usize,
    connected: bool,
    /// Whether SIGIO tells of the host's return: asked for when it goes, because each arrival is told as well then.
    watched: bool,
}

impl Port {
    /// `fd` must not block.
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

    /// What to wait for; nothing while the host is away, whose return is told by SIGIO.
    pub(crate) fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if self.connected {
            flags.set(PollFlags::IN, self.queued() < ANSWER_LIMIT);
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
        self.queued() < BULK_LIMIT
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

    /// Takes what has arrived, within bounds, and hands the frames to `sink`.
    ///
    /// Returns whether the host has gone; whatever it was doing is then over, and a new host begins anew.
    pub(crate) fn read(&mut self, frames: &mut Vec<Frame>) -> Result<bool, PortError> {
        frames.append(&mut self.early);
        let mut buffer = [0; READ_CHUNK];
        for _ in 0..READS_PER_ROUND {
            if self.queued() >= ANSWER_LIMIT {
                break;
            }
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(0) if !self.watched => {
                    // Read again: the host may have returned before its return would have been told.
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
        } else if self.sent > ANSWER_LIMIT {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Waits for the next control message, sending what is queued meanwhile; for use before the guest is up.
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

    /// Sends what is queued, then waits until the host hangs up or `limit` has passed.
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

/// Polls, with an interruption counted as an end of waiting.
pub(crate) fn wait(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> Result<(), PortError> {
    let timeout = limit
        .map(|limit| Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) });
    match rustix::event::poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
