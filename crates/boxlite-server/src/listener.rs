//! Connections: how they are accepted, how long they may take, and how they end when the server stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::app::App;
use crate::connections::{ConnectionPermit, Connections};
use crate::routes::{self, RouterService};
use crate::socket::ClientSocket;
use crate::tls::Certificate;

/// How long the head of a request may take, and how long a kept-alive connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long running answers and attached clients may continue after the server was told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a running answer may continue on a connection that has to make room, and how long attached clients have
/// for their closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait after a failed accept, for example for want of file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Answers connections until `stop` is cancelled, then lets running answers finish for up to [`DRAIN_TIMEOUT`].
pub(crate) async fn listen(
    app: &Arc<App>,
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    stop: CancellationToken,
) {
    let service = routes::service(app);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(64);
    let http = Arc::new(http);
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(permit) = admit(&app.connections, peer) {
                    let acceptor = certificate.as_ref().map(|certificate| certificate.acceptor());
                    let socket = ClientSocket::new(stream, Arc::clone(&permit));
                    let (http, service, stop) = (Arc::clone(&http), service.clone(), stop.clone());
                    tasks.spawn(async move {
                        match acceptor {
                            None => answer(&http, service, socket, permit, stop).await,
                            Some(acceptor) => {
                                if let Some(socket) = encrypted(&acceptor, socket, &permit).await {
                                    answer(&http, service, socket, permit, stop).await;
                                }
                            }
                        }
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    app.sessions.close();
    let finished = async { tokio::join!(tasks.wait(), app.sessions.wait()) };
    if tokio::time::timeout(DRAIN_TIMEOUT, finished).await.is_err() {
        app.closing.cancel();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, app.sessions.wait()).await;
    }
}

fn admit(connections: &Arc<Connections>, peer: SocketAddr) -> Option<Arc<ConnectionPermit>> {
    let permit = connections.admit(peer.ip());
    if permit.is_none() {
        let most = connections.limits().max_per_peer;
        tracing::debug!(%peer, most, "closed a connection: its address has its most already");
    }
    permit
}

/// Begins TLS with a client; an unproven connection that takes too long for it makes room like any other.
async fn encrypted(
    acceptor: &TlsAcceptor,
    socket: ClientSocket,
    permit: &ConnectionPermit,
) -> Option<TlsStream<ClientSocket>> {
    let begun = tokio::select! {
        begun = acceptor.accept(socket) => begun,
        () = permit.overdue() => return None,
    };
    begun.inspect_err(|error| tracing::debug!(%error, "a client could not begin TLS")).ok()
}

/// Answers the requests of one connection, which each carry its permit.
async fn answer(
    http: &http1::Builder,
    service: RouterService,
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    permit: Arc<ConnectionPermit>,
    stop: CancellationToken,
) {
    let of_requests = Arc::clone(&permit);
    let service = service.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Arc::clone(&of_requests));
        request
    });
    // An attached client takes the socket over, and with it the permit.
    let connection =
        http.serve_connection(TokioIo::new(socket), TowerToHyperService::new(service)).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = permit.overdue() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(CLOSE_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use boxlite::{RemoteOptions, Runtime};
    use boxlite_testkit::deadline::{TEST_TIMEOUT, within_async};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpSocket, TcpStream};
    use tokio::time::timeout;

    use super::*;
    use crate::allowed::AllowedPaths;
    use crate::auth::{ApiKey, AuthGate};
    use crate::connections::ConnectionLimits;

    const KEY: &str = "Authorization: Bearer secret\r\n";

    /// Serves with the key `secret`; the runtime is never asked.
    async fn serve(limits: ConnectionLimits) -> SocketAddr {
        let key = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(key.path(), "secret").unwrap();
        key.as_file().set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
        let gate = AuthGate::new(Some(ApiKey::read(key.path()).unwrap()), None);
        let runtime = Runtime::remote(&RemoteOptions { url: "http://127.0.0.1:1".into(), api_key: None });
        let app = Arc::new(App::new(runtime.unwrap(), gate, AllowedPaths::default(), limits, false));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { listen(&app, listener, None, CancellationToken::new()).await });
        address
    }

    async fn connect(server: SocketAddr, from: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        socket.connect(server).await.unwrap()
    }

    fn request(path: &str, headers: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
    }

    /// Sends many requests over one connection and never reads an answer.
    async fn unread_pipeline(server: SocketAddr, from: &str, headers: &str) -> TcpStream {
        let mut client = connect(server, from).await;
        let requests = request("/openapi.yaml", headers).repeat(2000);
        // The server stops reading when it cannot write, and may close in the midst of it.
        let _ = timeout(Duration::from_millis(500), client.write_all(requests.as_bytes())).await;
        client
    }

    /// Returns the status of one request over a connection of its own; empty when that was closed without an answer.
    async fn status(server: SocketAddr, from: &str, headers: &str) -> String {
        let mut client = connect(server, from).await;
        let headers = format!("{headers}Connection: close\r\n");
        let sent = client.write_all(request("/openapi.yaml", &headers).as_bytes()).await;
        let mut answer = Vec::new();
        if sent.is_err() || client.read_to_end(&mut answer).await.is_err() {
            return String::new();
        }
        String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned()
    }

    fn limits() -> ConnectionLimits {
        let long = Duration::from_secs(3600);
        ConnectionLimits { prove_timeout: long, write_timeout: long, ..ConnectionLimits::default() }
    }

    /// Mutation tried: without the timeout in `ClientSocket`, the two pipelines keep the places for ever.
    #[tokio::test(flavor = "multi_thread")]
    async fn clients_with_the_key_that_do_not_read_lose_their_connections() {
        let write_timeout = Duration::from_millis(500);
        let server = serve(ConnectionLimits { max_proven: 2, write_timeout, ..limits() }).await;
        let _pipelines = [
            unread_pipeline(server, "127.0.0.1", KEY).await,
            unread_pipeline(server, "127.0.0.1", KEY).await,
        ];
        within_async(TEST_TIMEOUT, "a place for a client that reads", async || {
            (status(server, "127.0.0.1", KEY).await == "200").then_some(())
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clients_without_the_key_do_not_keep_out_one_that_has_it() {
        let server = serve(ConnectionLimits { max_proven: 2, max_unproven: 4, ..limits() }).await;
        let mut pipelines = Vec::new();
        for _ in 0..8 {
            pipelines.push(unread_pipeline(server, "127.0.0.1", "").await);
        }
        for from in ["127.0.0.2", "127.0.0.1"] {
            assert_eq!(timeout(TEST_TIMEOUT, status(server, from, KEY)).await.unwrap(), "200", "{from}");
        }
        let oldest = timeout(TEST_TIMEOUT, async { pipelines[0].read_to_end(&mut Vec::new()).await });
        assert!(oldest.await.is_ok(), "the oldest made room");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_address_does_not_take_all_places() {
        let server = serve(ConnectionLimits { max_per_peer: 2, ..limits() }).await;
        let _held = [connect(server, "127.0.0.1").await, connect(server, "127.0.0.1").await];
        assert_eq!(status(server, "127.0.0.1", KEY).await, "");
        assert_eq!(status(server, "127.0.0.2", KEY).await, "200");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_reader_that_makes_progress_gets_everything() {
        const ANSWERS: usize = 200;
        let write_timeout = Duration::from_millis(1500);
        let server = serve(ConnectionLimits { write_timeout, ..limits() }).await;
        let mut client = connect(server, "127.0.0.1").await;
        let last = request("/openapi.yaml", &format!("{KEY}Connection: close\r\n"));
        let requests = request("/openapi.yaml", KEY).repeat(ANSWERS - 1) + &last;
        let (mut reader, mut writer) = client.split();
        let read = async {
            let (mut bytes, mut buffer) = (0, vec![0; 512 << 10]);
            let mut pace = tokio::time::interval(write_timeout / 10);
            loop {
                pace.tick().await;
                match reader.read(&mut buffer).await.unwrap() {
                    0 => return bytes,
                    count => bytes += count,
                }
            }
        };
        let (sent, bytes) = tokio::join!(writer.write_all(requests.as_bytes()), read);
        sent.unwrap();
        assert!(bytes > ANSWERS * include_str!("../openapi.yaml").len(), "{bytes}");
    }
}
