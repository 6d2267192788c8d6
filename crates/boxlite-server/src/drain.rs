//! How a server stops: no new work, an end for what runs, and a next server for everybody else.
//!
//! # Order
//!
//! 1. `/readyz` answers 503 at once, and kept-alive connections end with their present answer. A connection that was accepted
//!    an instant ago still has its first request answered: its client knows nothing of the stop.
//! 2. A server that listens by itself goes on accepting until it ends, and answers what comes then with 503, so that a load
//!    balancer sees why. One whose socket was handed to it stops accepting: the socket stays open where it came from, and
//!    clients wait in its queue for the next server. None is refused.
//! 3. Running requests have [`DRAIN_TIMEOUT`]. Attached clients are then closed with 1001 ("going away"), to come back to the
//!    next server. Where that takes over the socket, clients of commands that a box holds are sent to it at once.
//! 4. [`CLOSE_TIMEOUT`] later the server ends, whatever its clients do.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::HttpFailure;

/// How long running answers and attached clients may continue after the server was told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
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
        if successor {
            self.leaving.cancel();
        }
        let finished = async { tokio::join!(requests.wait(), self.sessions.wait()) };
        if tokio::time::timeout(DRAIN_TIMEOUT, finished).await.is_err() {
            self.leaving.cancel();
            self.closing.cancel();
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.sessions.wait()).await;
        }
    }
}

/// Answers 503 to what a late connection asks, but for the routes that tell of the server itself.
pub(crate) async fn refused_when_late(request: Request, next: Next) -> Response {
    let observes = matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
    if request.extensions().get::<LateConnection>().is_some() && !observes {
        return HttpFailure::overloaded("this server is stopping; try again").into_response();
    }
    next.run(request).await
}
