//! How a server stops: no new work, an end for what runs, and a next server for everybody else.
//!
//! # Order
//!
//! 1. `/readyz` answers 503 at once, and kept-alive connections end with their present answer. A connection that was accepted
//!    an instant ago still has its first request answered: its client knows nothing of the stop.
//! 2. A server that listens by itself goes on accepting until it ends, and answers what comes then with 503, so that a load
//!    balancer sees why. One whose socket was handed to it stops accepting: the socket stays open where it came from, and
//!    clients wait in its queue for the next server. None is refused.
//! 3. What every server has, and a client comes back for, is given up first. A log that is followed and a wait for a box's end say
//!    at once that the server stops. A command that its box holds is closed with 1001 ("going away"), after [`LEAVE_TIMEOUT`], in
//!    which commands that end soon still say how; at once where a next server has taken over the socket.
//! 4. Running requests, tunnels and main processes have [`DRAIN_TIMEOUT`]. Streams that are still attached then are closed with 1001 too.
//! 5. [`CLOSE_TIMEOUT`] later the server ends, whatever its clients do.

use std::pin::pin;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::HttpFailure;

/// How long clients may wait for the end of what the next server has as well.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long running answers and other attached clients may continue after that.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long attached clients have for their closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Marks the requests of a connection that was accepted while the server stops.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LateConnection;

/// The progress of a server's end; all tokens are uncancelled while it serves.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    /// Cancelled when the server is told to stop.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when clients of commands that their boxes hold must leave.
    pub(crate) leaving: CancellationToken,
    /// Cancelled when every attached client must leave.
    pub(crate) closing: CancellationToken,
    /// Attached clients.
    pub(crate) sessions: TaskTracker,
}

impl Drain {
    /// Waits until `requests` and all attached clients have ended, and closes those that take too long. With a
    /// `successor`, clients that it can serve as well are sent to it at once.
    pub(crate) async fn finish(&self, requests: &TaskTracker, successor: bool) {
        requests.close();
        self.sessions.close();
        let mut finished = pin!(async { tokio::join!(requests.wait(), self.sessions.wait()) });
        let grace = if successor { Duration::ZERO } else { LEAVE_TIMEOUT };
        if tokio::time::timeout(grace, finished.as_mut()).await.is_ok() {
            return;
        }
        self.leaving.cancel();
        if tokio::time::timeout(DRAIN_TIMEOUT, finished).await.is_err() {
            self.closing.cancel();
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.sessions.wait()).await;
        }
    }

    /// Does `work`, which any server can do, until this one is told to stop.
    ///
    /// # Errors
    /// Those of `work`, and 503 when the server stops.
    pub(crate) async fn until_stopping<T>(
        &self,
        work: impl Future<Output = Result<T, HttpFailure>>,
    ) -> Result<T, HttpFailure> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.stopping.cancelled() => Err(stopping()),
        }
    }
}

/// The failure of what is asked of a server that stops.
pub(crate) fn stopping() -> HttpFailure {
    HttpFailure::overloaded("this server is stopping; try again")
}

/// Answers 503 to what a late connection asks, but for the routes that tell of the server itself.
pub(crate) async fn refused_when_late(request: Request, next: Next) -> Response {
    let observes = matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
    if request.extensions().get::<LateConnection>().is_some() && !observes {
        return stopping().into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    /// Mutation tried: with `leaving` cancelled only after the time to finish, an open stream kept the server for 10 s.
    #[tokio::test(start_paused = true)]
    async fn clients_of_what_the_next_server_has_leave_first_and_what_ends_soon_ends() {
        let (drain, requests, began) = (Drain::default(), TaskTracker::new(), Instant::now());
        let leaving = drain.leaving.clone();
        let soon = drain.sessions.spawn(async move {
            sleep(LEAVE_TIMEOUT / 2).await;
            leaving.is_cancelled()
        });
        let waits_for = |token: &CancellationToken| {
            let token = token.clone();
            drain.sessions.spawn(async move {
                token.cancelled().await;
                began.elapsed()
            })
        };
        let (held, own) = (waits_for(&drain.leaving), waits_for(&drain.closing));
        drain.finish(&requests, false).await;
        assert!(!soon.await.unwrap(), "it was not sent away");
        assert_eq!(held.await.unwrap().as_secs(), LEAVE_TIMEOUT.as_secs());
        assert_eq!(own.await.unwrap().as_secs(), (LEAVE_TIMEOUT + DRAIN_TIMEOUT).as_secs());
        assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn clients_leave_at_once_for_a_server_that_is_there() {
        let (drain, requests, began) = (Drain::default(), TaskTracker::new(), Instant::now());
        let leaving = drain.leaving.clone();
        drain.sessions.spawn(async move { leaving.cancelled().await });
        drain.finish(&requests, true).await;
        assert!(began.elapsed() < LEAVE_TIMEOUT, "{:?}", began.elapsed());
    }
}
