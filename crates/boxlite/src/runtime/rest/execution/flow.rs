//! What is on its way in either direction, and how much of it has arrived.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use boxlite_types::wire::{ClientFrame, WINDOW};
use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::Notify;

/// Bytes of input in one frame.
const FRAME: usize = 32 * 1024;
/// Output is acknowledged when so many bytes more were taken.
const WORTH_SAYING: u64 = WINDOW as u64 / 4;
/// Bytes of output that may wait here to be taken: twice what a server sends without an acknowledgement.
const OUTPUT_LIMIT: u64 = 2 * WINDOW as u64;

/// Shared by an execution's streams and its connection.
#[derive(Debug, Default)]
pub(super) struct Flow {
    state: Mutex<State>,
    /// There may be something to send.
    pub(super) stirred: Notify,
}

#[derive(Debug, Default)]
struct State {
    input: Input,
    output: Output,
}

/// Standard input from the first byte that is not acknowledged on.
#[derive(Debug, Default)]
struct Input {
    /// Position of the first byte of `unacknowledged`.
    acknowledged: u64,
    unacknowledged: BytesMut,
    /// Position of the next byte to send; `None` until the server has said what it has.
    next: Option<u64>,
    /// Nothing more comes.
    ended: bool,
    /// That was said on this connection.
    end_said: bool,
    /// Nothing more is wanted.
    closed: bool,
    waiting: Option<Waker>,
}

#[derive(Debug, Default)]
struct Output {
    /// Bytes that have reached us.
    received: u64,
    /// Those that the reader has taken.
    taken: u64,
    /// Those that the server knows to be taken.
    said: u64,
    discarded: bool,
}

/// What there is to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    Frame(ClientFrame),
    Input(Bytes),
}

/// The server says what can't be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nonsense(pub(super) &'static str);

impl Flow {
    /// Takes input as far as there is room.
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
        self.stirred.notify_one();
        Poll::Ready(Ok(count))
    }

    /// No more input comes.
    pub(super) fn end_input(&self) {
        self.state().input.ended = true;
        self.stirred.notify_one();
    }

    /// No more input is wanted.
    pub(super) fn close_input(&self) {
        self.state().input.close();
    }

    /// The server has so much of the input.
    pub(super) fn input_arrived(&self, position: u64, closed: bool) -> Result<(), Nonsense> {
        let mut state = self.state();
        let input = &mut state.input;
        let count = position
            .checked_sub(input.acknowledged)
            .filter(|&count| count <= input.unacknowledged.len() as u64)
            .ok_or(Nonsense("it acknowledges input that it was not sent"))?;
        input.unacknowledged.advance(count as usize);
        input.acknowledged = position;
        input.next = Some(input.next.unwrap_or_default().max(position));
        if closed {
            input.close();
        } else if let Some(waker) = input.waiting.take() {
            waker.wake();
        }
        self.stirred.notify_one();
        Ok(())
    }

    /// Output has come; false when nobody wants it.
    pub(super) fn output_arrived(&self, length: usize) -> Result<bool, Nonsense> {
        let mut state = self.state();
        let output = &mut state.output;
        output.received += length as u64;
        if output.discarded {
            output.taken = output.received;
            self.stirred.notify_one();
        }
        if output.received - output.taken > OUTPUT_LIMIT {
            return Err(Nonsense("it sends more output than was asked for"));
        }
        Ok(!output.discarded)
    }

    /// The reader has taken so many bytes more.
    pub(super) fn took(&self, length: usize) {
        let mut state = self.state();
        let output = &mut state.output;
        output.taken += length as u64;
        if output.taken - output.said >= WORTH_SAYING {
            self.stirred.notify_one();
        }
    }

    /// Nobody takes output any more.
    pub(super) fn discard_output(&self) {
        let mut state = self.state();
        let output = &mut state.output;
        (output.discarded, output.taken) = (true, output.received);
        self.stirred.notify_one();
    }

    /// A connection begins: returns the position after which output goes on, and forgets what was only sent.
    pub(super) fn begin(&self) -> u64 {
        let mut state = self.state();
        (state.input.next, state.input.end_said) = (None, false);
        // What was said last may not have been heard, and only what is said makes room for more: it is said again.
        state.output.said = state.output.taken.saturating_sub(WORTH_SAYING);
        state.output.received
    }

    /// How far both directions have come, to tell whether a connection was good for anything.
    pub(super) fn progress(&self) -> (u64, u64) {
        let state = self.state();
        (state.output.received, state.input.acknowledged)
    }

    /// What is to be sent next, and counts as sent.
    pub(super) fn next_outgoing(&self) -> Option<Outgoing> {
        let mut state = self.state();
        let State { input, output } = &mut *state;
        if output.taken - output.said >= WORTH_SAYING {
            output.said = output.taken;
            return Some(Outgoing::Frame(ClientFrame::Ack { output: output.taken }));
        }
        let next = input.next.filter(|_| !input.closed)?;
        let sent = (next - input.acknowledged) as usize;
        let rest = input.unacknowledged.len() - sent;
        if rest > 0 {
            let frame = &input.unacknowledged[sent..sent + rest.min(FRAME)];
            let frame = Bytes::copy_from_slice(frame);
            input.next = Some(next + frame.len() as u64);
            return Some(Outgoing::Input(frame));
        }
        (input.ended && !std::mem::replace(&mut input.end_said, input.ended))
            .then_some(Outgoing::Frame(ClientFrame::StdinEof))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Input {
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
