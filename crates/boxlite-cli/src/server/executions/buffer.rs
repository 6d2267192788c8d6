//! A command's output on its way from the guest to whoever attaches: bounded, and kept until its reader has it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use boxlite::OutputChunk;
use boxlite::wire::WINDOW;
use tokio::sync::Notify;

/// The longest piece, in bytes.
const LONGEST: usize = WINDOW / 4;

/// Something to tell the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Output.
    Output(OutputChunk),
    /// Output was lost on the way here, for this reason.
    Trouble(String),
}

impl Piece {
    /// Bytes of output.
    fn length(&self) -> usize {
        match self {
            Self::Output(chunk) => chunk.bytes.len(),
            Self::Trouble(_) => 0,
        }
    }
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
    pieces: VecDeque<Piece>,
    /// Bytes in them.
    length: usize,
    /// Position of their first byte.
    position: u64,
    /// How many of them the present reader was sent.
    sent: usize,
    /// Bytes of the next one that the present reader had before.
    skip: usize,
    closed: bool,
}

impl State {
    fn drop_first(&mut self) {
        if let Some(piece) = self.pieces.pop_front() {
            self.length -= piece.length();
            self.position += piece.length() as u64;
            if self.sent == 0 {
                self.skip = 0;
            }
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// Drops what lies before `position`, with the troubles in between.
    fn drop_before(&mut self, position: u64) {
        while let Some(first) = self.pieces.front() {
            let end = self.position + first.length() as u64;
            let done = if first.length() == 0 { self.sent > 0 || end < position } else { end <= position };
            if !done {
                break;
            }
            self.drop_first();
        }
    }

    /// Goes on after `received`, which is not dropped: that it arrived does not say that anybody took it.
    fn resume(&mut self, received: u64) {
        let mut position = self.position;
        for piece in &self.pieces {
            let end = position + piece.length() as u64;
            let done = if piece.length() == 0 { end < received } else { end <= received };
            if !done {
                break;
            }
            (position, self.sent) = (end, self.sent + 1);
        }
        self.skip = (received - position) as usize;
    }

    /// Position after what the present reader was sent.
    fn sent_to(&self) -> u64 {
        self.position + self.pieces.iter().take(self.sent).map(Piece::length).sum::<usize>() as u64
    }
}

impl Buffer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece, in several if it is long, once there is room in the window.
    pub(super) async fn push(&self, piece: Piece) {
        match piece {
            Piece::Output(chunk) if chunk.bytes.len() > LONGEST => {
                let mut rest = chunk.bytes;
                while !rest.is_empty() {
                    let bytes = rest.split_to(rest.len().min(LONGEST));
                    self.push_short(Piece::Output(OutputChunk { stream: chunk.stream, bytes })).await;
                }
            }
            piece => self.push_short(piece).await,
        }
    }

    async fn push_short(&self, piece: Piece) {
        loop {
            {
                let mut state = self.state();
                if state.length + piece.length() <= WINDOW {
                    state.length += piece.length();
                    state.pieces.push_back(piece);
                    self.more.notify_one();
                    return;
                }
            }
            self.room.notified().await;
        }
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
        (state.sent, state.skip) = (0, 0);
        self.more.notify_one();
        let Some(received) = received else { return true };
        if !(state.position..=state.position + state.length as u64).contains(&received) {
            return false;
        }
        state.resume(received);
        true
    }

    /// The next piece for the present reader, the same until it is [`Buffer::sent`] or [`Buffer::passed_on`]; `None`
    /// when it was sent all and no more comes.
    pub(super) async fn next(&self) -> Option<Piece> {
        loop {
            {
                let state = self.state();
                if let Some(piece) = state.pieces.get(state.sent) {
                    return Some(match piece {
                        Piece::Output(chunk) if state.skip > 0 => {
                            let bytes = chunk.bytes.slice(state.skip..);
                            Piece::Output(OutputChunk { stream: chunk.stream, bytes })
                        }
                        piece => piece.clone(),
                    });
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
        let mut state = self.state();
        (state.sent, state.skip) = ((state.sent + 1).min(state.pieces.len()), 0);
    }

    /// Position after what the present reader was sent.
    pub(super) fn sent_to(&self) -> u64 {
        self.state().sent_to()
    }

    /// The reader was sent the next piece, and that is all there will be known of it.
    pub(super) fn passed_on(&self) {
        self.state().drop_first();
        self.room.notify_one();
    }

    /// The reader has everything before `position`, as far as it was sent that.
    pub(super) fn acknowledge(&self, position: u64) {
        let mut state = self.state();
        let sent = state.sent_to();
        state.drop_before(position.min(sent));
        self.room.notify_one();
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.state().pieces.is_empty()
    }
}

#[cfg(test)]
mod tests;
