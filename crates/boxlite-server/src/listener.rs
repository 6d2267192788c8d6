//! Connections: accepted, bounded in number and in patience, and let go in order.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{App, router};

/// Connections at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// How long a request's head may take, and a kept-alive connection may be idle.
const HEAD: Duration = Duration::from_secs(30);
/// How long answers and attached clients may go on after the order to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long attached clients have to take their leave after that.
const PARTING: Duration = Duration::from_secs(2);
/// Pause after a failure to accept, such as too many open files.
const RECOVERY: Duration = Duration::from_millis(200);

/// Answers connections until `stop` is set, and then what was begun for up to [`GRACE`].
pub(super) async fn listen(app: &Arc<App>, listener: TcpListener, stop: CancellationToken) {
    let service = TowerToHyperService::new(router::service(app));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_headers(64);
    let (connections, room) = (TaskTracker::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, permit) = match accepted {
            Ok(Some(accepted)) => accepted,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(RECOVERY).await;
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
    if tokio::time::timeout(GRACE, finished).await.is_err() {
        app.closing.cancel();
        let _ = tokio::time::timeout(PARTING, app.sessions.wait()).await;
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)>> {
    let Ok(permit) = Arc::clone(room).acquire_owned().await else { return Ok(None) };
    let (stream, _) = listener.accept().await?;
    Ok(Some((stream, permit)))
}
