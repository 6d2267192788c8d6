//! Connections: how many are accepted, how long they may take, and how they end when the server stops.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::routes;

/// Connections at a time; further ones wait in the listen queue.
const MAX_CONNECTIONS: usize = 4096;
/// How long the head of a request may take, and how long a kept-alive connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long running answers and attached clients may continue after the server was told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long attached clients then have for their closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait after a failed accept, for example for want of file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Answers connections until `stop` is cancelled, then lets running answers finish for up to [`DRAIN_TIMEOUT`].
pub(crate) async fn listen(app: &Arc<App>, listener: TcpListener, stop: CancellationToken) {
    let service = TowerToHyperService::new(routes::service(app));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(64);
    let (connections, permits) = (TaskTracker::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, permit) = match accepted {
            Ok(Some(accepted)) => accepted,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let connection = http.serve_connection(TokioIo::new(stream), service.clone()).with_upgrades();
        let stop = stop.clone();
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    app.sessions.close();
    let finished = async { tokio::join!(connections.wait(), app.sessions.wait()) };
    if tokio::time::timeout(DRAIN_TIMEOUT, finished).await.is_err() {
        app.closing.cancel();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, app.sessions.wait()).await;
    }
}

/// Accepts the next connection once a permit is free.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)>> {
    let Ok(permit) = Arc::clone(permits).acquire_owned().await else { return Ok(None) };
    let (stream, _) = listener.accept().await?;
    Ok(Some((stream, permit)))
}
