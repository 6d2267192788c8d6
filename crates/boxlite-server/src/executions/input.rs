//! A command's standard input on its way from whoever is attached to the process.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use boxlite::wire::WINDOW;
use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How much the process was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// Bytes since the command began.
    pub(super) bytes: u64,
    /// It takes no more.
    pub(super) closed: bool,
}

/// How much the process was given, as one client is told.
#[derive(Debug)]
pub(super) struct Progress {
    first: Option<Given>,
    later: watch::Receiver<Given>,
}

impl Progress {
    /// What was given when the client began, which is where it goes on, and then each time what is given by now; `None`
    /// when there is no more to tell.
    pub(super) async fn next(&mut self) -> Option<Given> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        self.later.changed().await.ok()?;
        Some(*self.later.borrow_and_update())
    }
}

/// What was accepted from clients and not yet given to the process; it is given although its client goes away.
#[derive(Debug)]
pub(super) struct Input {
    state: Mutex<State>,
    /// Told when there is something to write.
    more: Notify,
    given: watch::Sender<Given>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    queued: usize,
    accepted: u64,
    ended: bool,
}

impl Input {
    /// Writes into `stdin` what it will be offered, until `released`, which leaves it open; without one everything is
    /// dropped.
    pub(super) fn into(
        stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
        released: &CancellationToken,
    ) -> Arc<Self> {
        let given = Given { bytes: 0, closed: stdin.is_none() };
        let input =
            Arc::new(Self { state: Mutex::default(), more: Notify::new(), given: watch::Sender::new(given) });
        if let Some(stdin) = stdin {
            let writing = Arc::clone(&input).write(stdin);
            tokio::spawn(released.clone().run_until_cancelled_owned(writing));
        }
        input
    }

    async fn write(self: Arc<Self>, mut stdin: Pin<Box<dyn AsyncWrite + Send>>) {
        while let Some(bytes) = self.next().await {
            if stdin.write_all(&bytes).await.is_err() || stdin.flush().await.is_err() {
                break;
            }
            self.state().queued -= bytes.len();
            self.given.send_modify(|given| given.bytes += bytes.len() as u64);
        }
        let _ = stdin.shutdown().await;
        self.state().queue.clear();
        self.given.send_modify(|given| given.closed = true);
    }

    /// The next bytes; `None` at the end.
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

    /// Takes bytes over, once there is room for them; what the process no longer takes is dropped.
    pub(super) async fn offer(&self, bytes: Bytes) {
        let mut given = self.given.subscribe();
        loop {
            {
                let mut state = self.state();
                if state.ended || given.borrow_and_update().closed {
                    return;
                }
                if state.queued == 0 || state.queued + bytes.len() <= 2 * WINDOW {
                    state.queued += bytes.len();
                    state.accepted += bytes.len() as u64;
                    state.queue.push_back(bytes);
                    self.more.notify_one();
                    return;
                }
            }
            if given.changed().await.is_err() {
                return;
            }
        }
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.more.notify_one();
    }

    /// A client begins that goes on after what was given, the first of its progress: how much of what it then sends was
    /// accepted before.
    pub(super) fn begin(&self) -> (Progress, u64) {
        let state = self.state();
        let mut later = self.given.subscribe();
        let first = *later.borrow_and_update();
        let again = state.accepted - first.bytes.min(state.accepted);
        (Progress { first: Some(first), later }, again)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_was_accepted_arrives_once_whoever_sent_it() {
        let (theirs, mut ours) = tokio::io::duplex(4);
        let input = Input::into(Some(Box::pin(theirs)), &CancellationToken::new());
        input.offer(Bytes::from_static(b"abcdefgh")).await;
        input.offer(Bytes::from_static(b"ijkl")).await;
        let mut taken = [0; 8];
        ours.read_exact(&mut taken).await.unwrap();
        let (mut progress, _) = input.begin();
        while progress.next().await.unwrap().bytes < 8 {}
        // The next client is told 8, sends from there on, and what was accepted of that is left out.
        let (mut progress, again) = input.begin();
        let eight = Given { bytes: 8, closed: false };
        assert_eq!((progress.next().await, again), (Some(eight), 4));
        input.end();
        let mut rest = String::new();
        ours.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "ijkl");
    }

    #[tokio::test]
    async fn a_client_goes_on_where_it_was_counted_from_although_the_process_reads_on() {
        let (theirs, mut ours) = tokio::io::duplex(4);
        let input = Input::into(Some(Box::pin(theirs)), &CancellationToken::new());
        input.offer(Bytes::from_static(b"abcdefgh")).await;
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
    async fn a_process_that_does_not_read_stops_its_client_and_one_that_is_gone_does_not() {
        let (theirs, ours) = tokio::io::duplex(4);
        let input = Input::into(Some(Box::pin(theirs)), &CancellationToken::new());
        input.offer(vec![0; 2 * WINDOW].into()).await;
        let waiting = input.offer(Bytes::from_static(b"x"));
        assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
        drop(ours);
        input.offer(Bytes::from_static(b"x")).await;
        assert!(input.begin().0.next().await.unwrap().closed);
    }
}
