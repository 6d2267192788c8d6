//! A command's standard input, on its way from the attached client to the process.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use boxlite::GivenInput;
use boxlite::wire::WINDOW;
use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How much input the process has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DeliveredInput {
    /// Bytes since the command began.
    pub(super) bytes: u64,
    /// It takes no more input.
    pub(super) closed: bool,
}

/// How much input the process has taken, as one client learns it.
#[derive(Debug)]
pub(super) struct InputProgress {
    first: Option<DeliveredInput>,
    later: watch::Receiver<DeliveredInput>,
}

impl InputProgress {
    /// Returns the figures at the client's start, from which it resumes, and later each change; `None` when no change can
    /// follow.
    pub(super) async fn next(&mut self) -> Option<DeliveredInput> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        self.later.changed().await.ok()?;
        Some(*self.later.borrow_and_update())
    }
}

/// Input that was accepted from clients and that the process has not taken yet. It reaches the process even when its
/// client leaves.
#[derive(Debug)]
pub(super) struct ExecutionInput {
    state: Mutex<InputState>,
    /// Notified when there is something to write.
    more: Notify,
    given: watch::Sender<DeliveredInput>,
    /// Notified when something was written, and at the end.
    written: Notify,
    /// Its box says what it was given; otherwise that is what was written.
    confirmed: bool,
}

#[derive(Debug, Default)]
struct InputState {
    queue: VecDeque<Bytes>,
    queued: usize,
    accepted: u64,
    ended: bool,
    /// Bytes may be missing after those that were accepted.
    broken_off: bool,
    /// Nothing more will be written.
    finished: bool,
}

/// Input that follows a gap was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InputGap;

impl ExecutionInput {
    /// Writes everything that is offered into `stdin`, until `stopped` is cancelled, which leaves `stdin` open. Without a
    /// `stdin`, and after that, everything is dropped.
    pub(super) fn into(
        stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
        stopped: &CancellationToken,
    ) -> Arc<Self> {
        let given = DeliveredInput { bytes: 0, closed: stdin.is_none() };
        let input = Arc::new(Self::new(given, false));
        if let Some(stdin) = stdin {
            Arc::clone(&input).write_until(stdin, stopped);
        }
        input
    }

    fn new(given: DeliveredInput, confirmed: bool) -> Self {
        Self {
            state: Mutex::new(InputState { accepted: given.bytes, ..InputState::default() }),
            more: Notify::new(),
            given: watch::Sender::new(given),
            written: Notify::new(),
            confirmed,
        }
    }

    fn write_until(self: Arc<Self>, stdin: Pin<Box<dyn AsyncWrite + Send>>, stopped: &CancellationToken) {
        let writing = Arc::clone(&self).write(stdin);
        let stopped = stopped.clone();
        tokio::spawn(async move {
            stopped.run_until_cancelled_owned(writing).await;
            {
                let mut state = self.state();
                state.queue.clear();
                state.finished = true;
            }
            self.written.notify_waiters();
            // A client takes nothing for given after that; the box has yet to confirm the last bytes.
            if !self.confirmed {
                self.given.send_modify(|given| given.closed = true);
            }
        });
    }

    /// Waits until everything that was accepted was written, or nothing more will be.
    pub(super) async fn drained(&self) {
        loop {
            let written = self.written.notified();
            {
                let state = self.state();
                if state.finished || (state.queued == 0 && !state.ended) {
                    return;
                }
            }
            written.await;
        }
    }

    /// Passes everything on to the box that holds the execution, which says in `given` what it has, until `stopped` is
    /// cancelled.
    pub(super) fn of_held(
        stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
        mut given: watch::Receiver<GivenInput>,
        stopped: &CancellationToken,
    ) -> Arc<Self> {
        let delivered = |given: GivenInput| DeliveredInput { bytes: given.bytes, closed: given.closed };
        let first = delivered(*given.borrow_and_update());
        let input = Arc::new(Self::new(first, true));
        match stdin {
            Some(stdin) => Arc::clone(&input).write_until(stdin, stopped),
            None => input.state().finished = true,
        }
        let (told, stopped) = (Arc::clone(&input), stopped.clone());
        tokio::spawn(stopped.run_until_cancelled_owned(async move {
            while given.changed().await.is_ok() {
                let now = delivered(*given.borrow_and_update());
                told.given.send_modify(|given| {
                    *given = DeliveredInput { bytes: now.bytes, closed: now.closed || given.closed }
                });
            }
        }));
        input
    }

    async fn write(self: Arc<Self>, mut stdin: Pin<Box<dyn AsyncWrite + Send>>) {
        while let Some(bytes) = self.next().await {
            if stdin.write_all(&bytes).await.is_err() || stdin.flush().await.is_err() {
                break;
            }
            self.state().queued -= bytes.len();
            self.written.notify_waiters();
            // Also lets a client that waits for room look again.
            self.given
                .send_modify(|given| given.bytes += if self.confirmed { 0 } else { bytes.len() as u64 });
        }
        let _ = stdin.shutdown().await;
    }

    /// Returns the next bytes; `None` at the end.
    async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.state();
                if let Some(bytes) = state.queue.pop_front() {
                    return Some(bytes);
                }
                if state.ended {
                    return None;
                }
            }
            self.more.notified().await;
        }
    }

    /// Accepts bytes once there is room for them; bytes that the process no longer takes are dropped.
    pub(super) async fn offer(&self, bytes: Bytes) -> Result<(), InputGap> {
        let mut given = self.given.subscribe();
        loop {
            {
                let mut state = self.state();
                if state.ended || given.borrow_and_update().closed {
                    return Ok(());
                }
                if state.broken_off {
                    return Err(InputGap);
                }
                if state.queued == 0 || state.queued + bytes.len() <= 2 * WINDOW {
                    state.queued += bytes.len();
                    state.accepted += bytes.len() as u64;
                    state.queue.push_back(bytes);
                    self.more.notify_one();
                    return Ok(());
                }
            }
            if given.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Marks the end of the input.
    pub(super) fn end(&self) -> Result<(), InputGap> {
        let mut state = self.state();
        if state.broken_off && !state.ended && !self.given.borrow().closed {
            return Err(InputGap);
        }
        state.ended = true;
        self.more.notify_one();
        Ok(())
    }

    /// Marks a gap after what was accepted, unless that was the end.
    pub(super) fn break_off(&self) {
        self.state().broken_off = true;
    }

    /// Starts a client, which resumes after the first figure of its progress. The second value is how many of the bytes it
    /// then sends were accepted before.
    pub(super) fn begin(&self) -> (InputProgress, u64) {
        let state = self.state();
        let mut later = self.given.subscribe();
        let first = *later.borrow_and_update();
        let again = state.accepted - first.bytes.min(state.accepted);
        (InputProgress { first: Some(first), later }, again)
    }

    fn state(&self) -> MutexGuard<'_, InputState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn accepted_input_arrives_once_whichever_client_sent_it() {
        let (theirs, mut ours) = tokio::io::duplex(4);
        let input = ExecutionInput::into(Some(Box::pin(theirs)), &CancellationToken::new());
        input.offer(Bytes::from_static(b"abcdefgh")).await.unwrap();
        input.offer(Bytes::from_static(b"ijkl")).await.unwrap();
        let mut taken = [0; 8];
        ours.read_exact(&mut taken).await.unwrap();
        let (mut progress, _) = input.begin();
        while progress.next().await.unwrap().bytes < 8 {}
        // The next client learns 8 and sends from there on; the bytes accepted before are skipped.
        let (mut progress, again) = input.begin();
        let eight = DeliveredInput { bytes: 8, closed: false };
        assert_eq!((progress.next().await, again), (Some(eight), 4));
        input.end().unwrap();
        let mut rest = String::new();
        ours.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "ijkl");
    }

    #[tokio::test]
    async fn a_client_resumes_from_its_figure_while_the_process_reads_on() {
        let (theirs, mut ours) = tokio::io::duplex(4);
        let input = ExecutionInput::into(Some(Box::pin(theirs)), &CancellationToken::new());
        input.offer(Bytes::from_static(b"abcdefgh")).await.unwrap();
        let (mut progress, again) = input.begin();
        let (mut other, _) = input.begin();
        let mut taken = [0; 8];
        ours.read_exact(&mut taken).await.unwrap();
        while other.next().await.unwrap().bytes < 8 {}
        let told = progress.next().await.unwrap().bytes;
        assert_eq!((told, again), (0, 8), "the client sends what comes after {told}");
        assert_eq!(progress.next().await.unwrap().bytes, 8);
    }

    /// Mutation tried: without the comparison with the window, the offer does not wait.
    #[tokio::test]
    async fn a_process_that_does_not_read_blocks_its_client_and_a_dead_one_does_not() {
        let (theirs, ours) = tokio::io::duplex(4);
        let input = ExecutionInput::into(Some(Box::pin(theirs)), &CancellationToken::new());
        input.offer(vec![0; 2 * WINDOW].into()).await.unwrap();
        let waiting = input.offer(Bytes::from_static(b"x"));
        assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
        drop(ours);
        input.offer(Bytes::from_static(b"x")).await.unwrap();
        assert!(input.begin().0.next().await.unwrap().closed);
    }

    /// Mutation tried: without `break_off`, the end arrives and the process takes four bytes for all of its input.
    #[tokio::test]
    async fn nothing_follows_a_gap() {
        let (theirs, mut ours) = tokio::io::duplex(64);
        let input = ExecutionInput::into(Some(Box::pin(theirs)), &CancellationToken::new());
        input.offer(Bytes::from_static(b"half")).await.unwrap();
        input.break_off();
        assert_eq!(input.offer(Bytes::from_static(b"more")).await, Err(InputGap));
        assert_eq!(input.end(), Err(InputGap));
        let mut taken = [0; 8];
        assert_eq!(ours.read(&mut taken).await.unwrap(), 4);
        let more = tokio::time::timeout(Duration::from_millis(50), ours.read(&mut taken)).await;
        assert!(more.is_err(), "{more:?}");
    }
}
