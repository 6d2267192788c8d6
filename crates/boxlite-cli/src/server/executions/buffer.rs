//! A command's output on its way from the guest to whoever attaches: bounded, and read only once it was passed on.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use boxlite::OutputChunk;
use tokio::sync::Notify;

/// Bytes that wait; the guest is not read further until some are passed on.
pub(super) const CAPACITY: usize = 256 << 10;

/// Something to tell the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Output.
    Output(OutputChunk),
    /// Output was lost on the way here, for this reason.
    Trouble(String),
}

impl Piece {
    /// What it counts against the capacity.
    fn weight(&self) -> usize {
        match self {
            Self::Output(chunk) => chunk.bytes.len(),
            Self::Trouble(message) => message.len(),
        }
    }
}

/// The queue between one writer and one reader at a time.
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
    weight: usize,
    closed: bool,
}

impl Buffer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece once what waits is less than the capacity.
    pub(super) async fn push(&self, piece: Piece) {
        loop {
            {
                let mut state = self.state();
                if state.weight < CAPACITY {
                    state.weight += piece.weight();
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

    /// The oldest piece, which stays until it is [`Buffer::passed_on`]; `None` when all was passed on and no more comes.
    pub(super) async fn front(&self) -> Option<Piece> {
        loop {
            {
                let state = self.state();
                if let Some(piece) = state.pieces.front() {
                    return Some(piece.clone());
                }
                if state.closed {
                    return None;
                }
            }
            self.more.notified().await;
        }
    }

    /// Drops the oldest piece: its reader has it.
    pub(super) fn passed_on(&self) {
        let mut state = self.state();
        if let Some(piece) = state.pieces.pop_front() {
            state.weight -= piece.weight();
            self.room.notify_one();
        }
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.state().pieces.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use boxlite::OutputStream;

    use super::*;

    fn piece(length: usize) -> Piece {
        Piece::Output(OutputChunk { stream: OutputStream::Stdout, bytes: vec![b'x'; length].into() })
    }

    /// Mutation tried: with `<=` for `<` in `push`, the writer does not wait.
    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_for_its_reader_and_nothing_is_lost() {
        let buffer = Arc::new(Buffer::default());
        buffer.push(piece(CAPACITY)).await;
        let waiting = tokio::time::timeout(Duration::from_secs(1), buffer.push(piece(1)));
        assert!(waiting.await.is_err(), "the buffer grows without a bound");

        let writer = Arc::clone(&buffer);
        let writing = tokio::spawn(async move {
            for length in 1..2000 {
                writer.push(piece(length)).await;
            }
            writer.close();
        });
        let mut lengths = Vec::new();
        while let Some(front) = buffer.front().await {
            // A reader that goes away before it has passed on finds the same piece again.
            assert_eq!(buffer.front().await, Some(front.clone()));
            lengths.push(front.weight());
            buffer.passed_on();
        }
        writing.await.unwrap();
        assert_eq!(lengths, std::iter::once(CAPACITY).chain(1..2000).collect::<Vec<_>>());
        assert!(buffer.is_empty());
    }
}
