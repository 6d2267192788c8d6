//! A command's output on its way from the guest to whoever attaches: bounded, and kept until its reader has it.
//!
//! It is kept as bytes, whatever pieces it came in: pieces of one byte would cost a hundred times what they hold.

mod runs;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use boxlite::wire::WINDOW;
use boxlite::{OutputChunk, OutputStream};
use tokio::sync::Notify;

use runs::Runs;

/// The longest piece, in bytes.
const LONGEST: usize = WINDOW / 4;
/// Troubles that are kept; further ones are left out.
const TROUBLES: usize = 16;

/// Something to tell the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Output.
    Output(OutputChunk),
    /// Output was lost on the way here, for this reason.
    Trouble(String),
}

/// The queue between one writer and one reader at a time. Positions count bytes of output since the command began.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    state: Mutex<State>,
    /// Told when there is room.
    room: Notify,
    /// Told when there is something to read.
    more: Notify,
}

#[derive(Debug, Default)]
struct State {
    output: Runs,
    /// What went wrong before the byte of that position.
    troubles: VecDeque<(u64, String)>,
    /// Position of the first byte of `output`.
    position: u64,
    /// How many of the troubles the present reader was sent.
    told: usize,
    /// Bytes of the piece that it was handed and not yet sent; a trouble has none.
    handed: usize,
    closed: bool,
}

impl State {
    fn end(&self) -> u64 {
        self.position + self.output.len() as u64
    }

    /// Position after what the present reader was sent, or had before.
    fn sent(&self) -> u64 {
        self.position + self.output.passed() as u64
    }

    fn next(&self) -> Option<Piece> {
        let before_trouble = match self.troubles.get(self.told) {
            Some((at, reason)) if *at <= self.sent() => return Some(Piece::Trouble(reason.clone())),
            Some((at, _)) => (at - self.sent()) as usize,
            None => LONGEST,
        };
        self.output.next(LONGEST.min(before_trouble)).map(Piece::Output)
    }

    /// The present reader was sent what it was handed.
    fn advance(&mut self) {
        match std::mem::take(&mut self.handed) {
            0 => self.told = (self.told + 1).min(self.troubles.len()),
            length => self.output.pass(length),
        }
    }

    /// Drops what was sent before `position`, with the troubles in between.
    fn drop_before(&mut self, position: u64) {
        let position = position.clamp(self.position, self.sent());
        self.output.drop_first((position - self.position) as usize);
        self.position = position;
        while self.told > 0 && self.troubles.front().is_some_and(|(at, _)| *at <= position) {
            self.troubles.pop_front();
            self.told -= 1;
        }
    }
}

impl Buffer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece, in several if it is long, once there is room in the window.
    pub(super) async fn push(&self, piece: Piece) {
        match piece {
            Piece::Output(OutputChunk { stream, bytes }) => {
                for bytes in bytes.chunks(LONGEST) {
                    while !self.push_short(stream, bytes) {
                        self.room.notified().await;
                    }
                }
            }
            Piece::Trouble(reason) => {
                let mut state = self.state();
                if state.troubles.len() < TROUBLES {
                    let end = state.end();
                    state.troubles.push_back((end, reason));
                    self.more.notify_one();
                }
            }
        }
    }

    /// False when there is no room.
    fn push_short(&self, stream: OutputStream, bytes: &[u8]) -> bool {
        let mut state = self.state();
        if state.output.len() + bytes.len() > WINDOW {
            return false;
        }
        state.output.push(stream, bytes);
        self.more.notify_one();
        true
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.more.notify_one();
    }

    /// A reader begins, after `received` bytes if it says so; false when what follows those is not here.
    ///
    /// What it received and has not acknowledged goes on to take up room, however often it comes back.
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
        state.told = state.troubles.iter().take_while(|(at, _)| *at < received).count();
        true
    }

    /// The next piece for the present reader, from the same place until it is [`Buffer::sent`] or
    /// [`Buffer::passed_on`]; `None` when it was sent all and no more comes.
    pub(super) async fn next(&self) -> Option<Piece> {
        loop {
            {
                let mut state = self.state();
                if let Some(piece) = state.next() {
                    state.handed = match &piece {
                        Piece::Output(chunk) => chunk.bytes.len(),
                        Piece::Trouble(_) => 0,
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

    /// The reader was sent the next piece and will acknowledge it.
    pub(super) fn sent(&self) {
        self.state().advance();
    }

    /// Position after what the present reader was sent.
    pub(super) fn sent_to(&self) -> u64 {
        self.state().sent()
    }

    /// The reader was sent the next piece, and that is all there will be known of it.
    pub(super) fn passed_on(&self) {
        let mut state = self.state();
        state.advance();
        state.drop_before(u64::MAX);
        self.room.notify_one();
    }

    /// The reader has everything before `position`, as far as it was sent that.
    pub(super) fn acknowledge(&self, position: u64) {
        self.state().drop_before(position);
        self.room.notify_one();
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        state.output.len() == 0 && state.troubles.is_empty()
    }
}

#[cfg(test)]
mod tests;
