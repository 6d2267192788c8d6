//! Flow control of one execution: the bytes on their way in either direction, and how much of them has arrived.
//!
//! Both directions keep what was sent until the other end acknowledges it, at most [`WINDOW`] bytes, and survive the
//! connection: after a breakage a new attachment sends again what was not acknowledged.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use boxlite_types::wire::{ClientFrame, WINDOW};
use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::Notify;

/// Bytes of input in one frame.
const MAX_FRAME: usize = 32 * 1024;
/// Output is acknowledged each time the reader has taken this many bytes more.
const ACK_INTERVAL: u64 = WINDOW as u64 / 4;
/// Bytes of output that may wait here for the reader: twice what a server sends without an acknowledgement.
const MAX_OUTPUT: u64 = 2 * WINDOW as u64;

/// Shared by an execution's streams and its connection.
#[derive(Debug, Default)]
pub(super) struct FlowControl {
    state: Mutex<FlowState>,
    /// There may be something to send.
    changed: Notify,
}

#[derive(Debug, Default)]
struct FlowState {
    input: InputWindow,
    output: OutputWindow,
}

/// Standard input from the first byte that is not acknowledged on.
#[derive(Debug, Default)]
struct InputWindow {
    /// Position of the first byte of `unacknowledged`.
    acknowledged: u64,
    unacknowledged: BytesMut,
    /// Position of the next byte to send; `None` until the server has said how much it has.
    next: Option<u64>,
    /// The writer has reached its end.
    ended: bool,
    /// The server was told so on this connection.
    eof_sent: bool,
    /// The process takes no more.
    closed: bool,
    waiting: Option<Waker>,
}

#[derive(Debug, Default)]
struct OutputWindow {
    /// Bytes that have reached us.
    received: u64,
    /// Bytes that the reader has taken.
    taken: u64,
    /// Bytes of which the server was told that they were taken.
    acknowledged: u64,
    discarded: bool,
}

/// The next thing to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    Frame(ClientFrame),
    Input(Bytes),
}

/// The server broke the protocol, in the way that the text describes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProtocolViolation(pub(super) &'static str);

impl FlowControl {
    /// Takes input as far as the window has room.
    pub(super) fn poll_give(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        let input = &mut state.input;
        if input.closed || input.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(WINDOW - input.unacknowledged.len().min(WINDOW));
        if count == 0 && !bytes.is_empty() {
            input.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        input.unacknowledged.extend_from_slice(&bytes[..count]);
        self.changed.notify_one();
        Poll::Ready(Ok(count))
    }

    /// Notes that the writer has reached its end.
    pub(super) fn end_input(&self) {
        self.state().input.ended = true;
        self.changed.notify_one();
    }

    /// Refuses further input.
    pub(super) fn close_input(&self) {
        self.state().input.close();
    }

    /// Notes that the server has the input up to `position`.
    pub(super) fn input_arrived(&self, position: u64, closed: bool) -> Result<(), ProtocolViolation> {
        let mut state = self.state();
        let input = &mut state.input;
        let count = position
            .checked_sub(input.acknowledged)
            .filter(|&count| count <= input.unacknowledged.len() as u64)
            .ok_or(ProtocolViolation("it acknowledges input that it was not sent"))?;
        input.unacknowledged.advance(count as usize);
        input.acknowledged = position;
        input.next = Some(input.next.unwrap_or_default().max(position));
        if closed {
            input.close();
        } else if let Some(waker) = input.waiting.take() {
            waker.wake();
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Notes that output has arrived; false when the reader was dropped.
    pub(super) fn output_arrived(&self, length: usize) -> Result<bool, ProtocolViolation> {
        let mut state = self.state();
        let output = &mut state.output;
        output.received += length as u64;
        if output.discarded {
            output.taken = output.received;
            self.changed.notify_one();
        }
        if output.received - output.taken > MAX_OUTPUT {
            return Err(ProtocolViolation("it sends more output than was asked for"));
        }
        Ok(!output.discarded)
    }

    /// Notes that the reader has taken so many bytes more.
    pub(super) fn output_taken(&self, length: usize) {
        let mut state = self.state();
        let output = &mut state.output;
        output.taken += length as u64;
        if output.taken - output.acknowledged >= ACK_INTERVAL {
            self.changed.notify_one();
        }
    }

    /// Notes that the reader was dropped.
    pub(super) fn discard_output(&self) {
        let mut state = self.state();
        let output = &mut state.output;
        (output.discarded, output.taken) = (true, output.received);
        self.changed.notify_one();
    }

    /// Begins an attachment: returns the position from which the server continues the output, and forgets what was sent
    /// but not acknowledged.
    pub(super) fn begin_attachment(&self) -> u64 {
        let mut state = self.state();
        (state.input.next, state.input.eof_sent) = (None, false);
        // The last acknowledgement may have been lost, and without it the server sends nothing more: it is sent again.
        state.output.acknowledged = state.output.taken.saturating_sub(ACK_INTERVAL);
        state.output.received
    }

    /// The positions of both directions, to tell whether a connection made progress.
    pub(super) fn progress(&self) -> (u64, u64) {
        let state = self.state();
        (state.output.received, state.input.acknowledged)
    }

    /// Waits for something to send, which then counts as sent.
    pub(super) async fn next_outgoing(&self) -> Outgoing {
        loop {
            if let Some(outgoing) = self.try_next_outgoing() {
                return outgoing;
            }
            self.changed.notified().await;
        }
    }

    fn try_next_outgoing(&self) -> Option<Outgoing> {
        let mut state = self.state();
        let FlowState { input, output } = &mut *state;
        if output.taken - output.acknowledged >= ACK_INTERVAL {
            output.acknowledged = output.taken;
            return Some(Outgoing::Frame(ClientFrame::Ack { output: output.taken }));
        }
        let next = input.next.filter(|_| !input.closed)?;
        let sent = (next - input.acknowledged) as usize;
        let rest = input.unacknowledged.len() - sent;
        if rest > 0 {
            let frame = &input.unacknowledged[sent..sent + rest.min(MAX_FRAME)];
            let frame = Bytes::copy_from_slice(frame);
            input.next = Some(next + frame.len() as u64);
            return Some(Outgoing::Input(frame));
        }
        (input.ended && !std::mem::replace(&mut input.eof_sent, input.ended))
            .then_some(Outgoing::Frame(ClientFrame::StdinEof))
    }

    fn state(&self) -> MutexGuard<'_, FlowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InputWindow {
    fn close(&mut self) {
        self.closed = true;
        self.unacknowledged = BytesMut::new();
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
