//! The input of an execution, on its way from the clients that take its seat one after the other.

use std::collections::VecDeque;

use boxlite_proto::{Frame, GivenInput, MAX_PAYLOAD, ProtoError, SendWindow, Stream};

use crate::shim::sink::FrameSink;

/// Input that was accepted and that the guest has no room for yet, at most one window of it.
#[derive(Debug)]
pub(super) struct HeldInput {
    channel: u32,
    window: SendWindow,
    queue: VecDeque<u8>,
    accepted: u64,
    /// A client has ended it, or there is none.
    ended: bool,
    /// The end was passed on, or the process wants no more.
    closed: bool,
    /// Bytes may be missing after those that were accepted.
    broken_off: bool,
}

/// Input that follows a gap was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MissingInput;

impl HeldInput {
    /// The input of the execution that the guest knows as `channel`; `open` if it has one.
    pub(super) fn new(channel: u32, open: bool) -> Self {
        Self {
            channel,
            window: SendWindow::new(channel, Stream::Stdin),
            queue: VecDeque::new(),
            accepted: 0,
            ended: !open,
            closed: !open,
            broken_off: false,
        }
    }

    /// Returns the amount accepted so far.
    pub(super) fn given(&self) -> GivenInput {
        GivenInput { bytes: self.accepted, closed: self.ended || self.closed }
    }

    /// Bytes that wait for the guest.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// A part has come, and the rest may still come.
    pub(super) fn is_partial(&self) -> bool {
        self.accepted > 0 && !self.ended && !self.closed
    }

    /// Accepts input; false when it is not wanted any more and was dropped.
    pub(super) fn accept(&mut self, bytes: &[u8]) -> Result<bool, MissingInput> {
        if self.ended || self.closed {
            return Ok(false);
        }
        if self.broken_off {
            return Err(MissingInput);
        }
        self.queue.extend(bytes);
        self.accepted += bytes.len() as u64;
        Ok(true)
    }

    /// The input has ended.
    pub(super) fn end(&mut self) -> Result<(), MissingInput> {
        if self.broken_off && !self.ended && !self.closed {
            return Err(MissingInput);
        }
        self.ended = true;
        Ok(())
    }

    /// Bytes may be missing from here on, unless all have come.
    pub(super) fn break_off(&mut self) {
        self.broken_off = true;
    }

    /// Ends the input for a process that nobody will feed any more.
    pub(super) fn abandon(&mut self) {
        self.ended = true;
    }

    /// The process takes no more; returns the bytes that it will not have.
    pub(super) fn close(&mut self) -> usize {
        (self.ended, self.closed) = (true, true);
        std::mem::take(&mut self.queue).len()
    }

    /// The guest takes `bytes` more.
    pub(super) fn granted(&mut self, bytes: u32) -> Result<(), ProtoError> {
        self.window.granted(bytes)
    }

    /// Passes on what the guest has room for, and then the end; returns the bytes.
    pub(super) fn forward(&mut self, guest: &FrameSink) -> usize {
        let mut forwarded = 0;
        while !self.closed && !self.queue.is_empty() {
            let length = self.window.available().min(self.queue.len()).min(MAX_PAYLOAD);
            if length == 0 {
                return forwarded;
            }
            self.window.sent(length);
            let bytes = self.queue.drain(..length).collect();
            guest.send(Frame::Data { channel: self.channel, stream: Stream::Stdin, bytes });
            forwarded += length;
        }
        if self.ended && !self.closed {
            self.closed = true;
            guest.send(Frame::Eof { channel: self.channel, stream: Stream::Stdin });
        }
        if self.queue.capacity() > 4 * MAX_PAYLOAD && self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        forwarded
    }
}
