//! Connections: how they are accepted, and how long they may take.

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
use crate::drain::LateConnection;
use crate::routes::{self, RouterService};
use crate::socket::ClientSocket;
use crate::tls::Certificate;

/// How long the head of a request may take, and how long a kept-alive connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a running answer may continue on a connection that has to make room.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client that was accepted just before the server was told to stop may take to begin its first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait after a failed accept, for example for want of file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// A listening socket.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    pub(crate) listener: TcpListener,
    /// It was handed over by a process that keeps it open for the next server.
    pub(crate) inherited: bool,
    pub(crate) certificate: Option<Arc<Certificate>>,
}

/// Answers connections until the app is told to stop, then ends as [`crate::drain`] says.
pub(crate) async fn listen(app: &Arc<App>, socket: ListeningSocket) {
    let ListeningSocket { listener, inherited, certificate } = socket;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(64);
    let answerer = Answerer { app: Arc::clone(app), http, service: routes::service(app), certificate };
    let answerer = Arc::new(answerer);
    let requests = TaskTracker::new();
    let stopping = &app.drain.stopping;
    tokio::select! {
        () = accept(&answerer, &listener, &requests, false) => {}
        () = stopping.cancelled() => {}
    }
    if inherited {
        drop(listener);
        app.drain.finish(&requests, true).await;
    } else {
        let late = TaskTracker::new();
        tokio::select! {
            () = accept(&answerer, &listener, &late, true) => {}
            () = app.drain.finish(&requests, false) => {}
        }
    }
}

/// Accepts connections, and has each answered by a task of its own in `tasks`; never returns. They are late if the server
/// stops.
async fn accept(answerer: &Arc<Answerer>, listener: &TcpListener, tasks: &TaskTracker, is_late: bool) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(permit) = admit(&answerer.app.connections, peer) {
                    let socket = ClientSocket::new(stream, Arc::clone(&permit));
                    tasks.spawn(Arc::clone(answerer).begin(socket, permit, is_late));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
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

/// The tasks that answer connections.
struct Answerer {
    app: Arc<App>,
    http: http1::Builder,
    service: RouterService,
    certificate: Option<Arc<Certificate>>,
}

impl Answerer {
    /// Answers a connection, after its TLS has begun if the server has a certificate.
    async fn begin(self: Arc<Self>, socket: ClientSocket, permit: Arc<ConnectionPermit>, is_late: bool) {
        match &self.certificate {
            None => self.answer(socket, permit, is_late).await,
            Some(certificate) => {
                if let Some(socket) = encrypted(&certificate.acceptor(), socket, &permit).await {
                    self.answer(socket, permit, is_late).await;
                }
            }
        }
    }

    /// Answers the requests of one connection, which each carry its permit.
    async fn answer(
        &self,
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        permit: Arc<ConnectionPermit>,
        is_late: bool,
    ) {
        let of_requests = Arc::clone(&permit);
        let begun = CancellationToken::new();
        let begins = begun.clone();
        let service =
            self.service.clone().map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
                begins.cancel();
                request.extensions_mut().insert(Arc::clone(&of_requests));
                if is_late {
                    request.extensions_mut().insert(LateConnection);
                }
                request
            });
        // An attached client takes the socket over, and with it the permit.
        let connection = self
            .http
            .serve_connection(TokioIo::new(socket), TowerToHyperService::new(service))
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let stopped = async {
            self.app.drain.stopping.cancelled().await;
            // One that has asked nothing yet was accepted an instant ago, and knows nothing of the stop.
            let _ = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, begun.cancelled()).await;
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped => {
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
        tokio::spawn(async move {
            listen(&app, ListeningSocket { listener, inherited: false, certificate: None }).await;
        });
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

    /// Before, any token in a `CONNECT` made a connection one that has brought the key, with a place among those.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_token_that_nobody_issued_is_no_key() {
        let server = serve(ConnectionLimits { max_proven: 0, ..limits() }).await;
        let mut client = connect(server, "127.0.0.1").await;
        client.write_all(b"CONNECT 00@localhost HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
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
