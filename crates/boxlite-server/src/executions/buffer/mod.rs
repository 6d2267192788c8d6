//! A command's output on its way from the guest to the attached client: bounded, and kept until the client has it.
//!
//! # Layout
//!
//! Output is kept as bytes, not as the pieces it came in: pieces of one byte would cost a hundred times their content.
//! Positions count bytes of output since the command began. Dropped output ends at `position`; the reader's cursor lies
//! between there and the end.
//!
//! # Flow control
//!
//! The writer waits while the window is full. A reader that acknowledges frees room with [`OutputBuffer::acknowledge`], so
//! that output in flight survives a broken connection; for a reader that does not, sending frees room at once.

mod runs;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use boxlite::wire::WINDOW;
use boxlite::{OutputChunk, OutputStream};
use tokio::sync::Notify;

use runs::ByteRuns;

/// The longest piece, in bytes.
const MAX_PIECE_BYTES: usize = WINDOW / 4;
/// Troubles that are kept; further ones are left out.
const MAX_LOSSES: usize = 16;

/// Something to send to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OutputPiece {
    /// Output.
    Output(OutputChunk),
    /// Output was lost on its way here, for this reason.
    Loss(String),
}

/// The queue between the writer and one reader at a time.
#[derive(Debug, Default)]
pub(super) struct OutputBuffer {
    state: Mutex<BufferState>,
    /// Notified when there is room.
    room: Notify,
    /// Notified when there is something to read.
    more: Notify,
}

#[derive(Debug, Default)]
struct BufferState {
    output: ByteRuns,
    /// Losses, each before the byte at its position.
    losses: VecDeque<(u64, String)>,
    /// Position of the first byte of `output`.
    position: u64,
    /// How many of the losses the present reader was sent.
    told: usize,
    /// Bytes of the piece that the reader was handed and has not sent yet; 0 for a loss.
    handed: usize,
    closed: bool,
}

impl BufferState {
    fn end(&self) -> u64 {
        self.position + self.output.len() as u64
    }

    /// Position after the output that the present reader was sent, or had before.
    fn sent(&self) -> u64 {
        self.position + self.output.passed() as u64
    }

    fn next(&self) -> Option<OutputPiece> {
        let before_loss = match self.losses.get(self.told) {
            Some((at, reason)) if *at <= self.sent() => return Some(OutputPiece::Loss(reason.clone())),
            Some((at, _)) => (at - self.sent()) as usize,
            None => MAX_PIECE_BYTES,
        };
        self.output.next(MAX_PIECE_BYTES.min(before_loss)).map(OutputPiece::Output)
    }

    /// Moves the present reader past the piece that it was handed.
    fn advance(&mut self) {
        match std::mem::take(&mut self.handed) {
            0 => self.told = (self.told + 1).min(self.losses.len()),
            length => self.output.pass(length),
        }
    }

    /// Drops sent output before `position`, with the losses in between.
    fn drop_before(&mut self, position: u64) {
        let position = position.clamp(self.position, self.sent());
        self.output.drop_first((position - self.position) as usize);
        self.position = position;
        while self.told > 0 && self.losses.front().is_some_and(|(at, _)| *at <= position) {
            self.losses.pop_front();
            self.told -= 1;
        }
    }
}

impl OutputBuffer {
    /// A buffer whose first byte is at `position`.
    pub(super) fn at(position: u64) -> Self {
        Self { state: Mutex::new(BufferState { position, ..BufferState::default() }), ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, BufferState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece, split if it is long, waiting while the window is full.
    pub(super) async fn push(&self, piece: OutputPiece) {
        match piece {
            OutputPiece::Output(OutputChunk { stream, bytes }) => {
                for bytes in bytes.chunks(MAX_PIECE_BYTES) {
                    while !self.push_short(stream, bytes) {
                        self.room.notified().await;
                    }
                }
            }
            OutputPiece::Loss(reason) => {
                let mut state = self.state();
                if state.losses.len() < MAX_LOSSES {
                    let end = state.end();
                    state.losses.push_back((end, reason));
                    self.more.notify_one();
                }
            }
        }
    }

    /// Adds a piece; false when there is no room.
    fn push_short(&self, stream: OutputStream, bytes: &[u8]) -> bool {
        let mut state = self.state();
        if state.output.len() + bytes.len() > WINDOW {
            return false;
        }
        state.output.push(stream, bytes);
        self.more.notify_one();
        true
    }

    /// Marks the end of the output.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.more.notify_one();
    }

    /// Starts a reader, after `received` bytes if it says so; false when the output from there on is not here.
    ///
    /// Output that it received and has not acknowledged still takes up room, however often it comes back.
    pub(super) fn begin(&self, received: Option<u64>) -> bool {
        let mut state = self.state();
        state.output.rewind();
        (state.told, state.handed) = (0, 0);
        self.more.notify_one();
        let Some(received) = received else { return true };
        if !(state.position..=state.end()).contains(&received) {
            return false;
        }
        let had = (received - state.position) as usize;
        state.output.pass(had);
        state.told = state.losses.iter().take_while(|(at, _)| *at < received).count();
        true
    }

    /// Returns the next piece for the present reader, the same one until [`OutputBuffer::sent`] or
    /// [`OutputBuffer::passed_on`]; `None` once it was sent everything and no more can come.
    pub(super) async fn next(&self) -> Option<OutputPiece> {
        loop {
            {
                let mut state = self.state();
                if let Some(piece) = state.next() {
                    state.handed = match &piece {
                        OutputPiece::Output(chunk) => chunk.bytes.len(),
                        OutputPiece::Loss(_) => 0,
                    };
                    return Some(piece);
                }
                if state.closed {
                    return None;
                }
            }
            self.more.notified().await;
        }
    }

    /// Records that the next piece was sent to a reader that will acknowledge it.
    pub(super) fn sent(&self) {
        self.state().advance();
    }

    /// Returns the position after the output that the present reader was sent.
    pub(super) fn sent_to(&self) -> u64 {
        self.state().sent()
    }

    /// Records that the next piece was sent to a reader that does not acknowledge, and drops it.
    pub(super) fn passed_on(&self) {
        let mut state = self.state();
        state.advance();
        state.drop_before(u64::MAX);
        self.room.notify_one();
    }

    /// Records that the reader has everything before `position`, as far as that was sent.
    pub(super) fn acknowledge(&self, position: u64) {
        self.state().drop_before(position);
        self.room.notify_one();
    }

    /// Returns the position before which output was dropped.
    pub(super) fn dropped_to(&self) -> u64 {
        self.state().position
    }

    /// Tells whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        state.output.len() == 0 && state.losses.is_empty()
    }
}

#[cfg(test)]
mod tests;
