//! The HTTP server of boxlite: a [`Runtime`] for programs on this and on other hosts.
//!
//! The server is thin over [`Runtime`]. It decides only who is answered, which paths of its host a request may name,
//! how much may run at once, and how an answer is written. It knows no terminal and no command line; `boxlite serve`
//! passes it plain [`ServerOptions`].
//!
//! ```no_run
//! use boxlite::{Runtime, RuntimeOptions};
//! use boxlite_server::{Server, ServerOptions};
//!
//! # async fn example() -> boxlite::Result<()> {
//! let server = Server::new(&ServerOptions::default())?;
//! let server = server.bind(Runtime::local(RuntimeOptions::new("/srv/boxlite"))?).await?;
//! println!("serving on {}", server.url());
//! server.serve(std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Dialects
//!
//! | module | routes |
//! | --- | --- |
//! | `routes::public` | `/v1/boxes`, `/v1/images`, …: the public API, for its published clients |
//! | `routes::native` | `/v1/runtime/…`: one route per method of [`Runtime`], for boxlite's own remote backend |
//! | `routes::executions` | `/v1/boxes/{id}/executions/…`: commands and their streams, shared by both dialects |
//! | `routes::observe` | `/metrics`, `/healthz`, `/readyz` |
//! | `page` | `/`: a page for people, whose scripts use the native dialect |
//!
//! `openapi.yaml`, which the server itself serves, describes every one of them.
//!
//! # Who is answered
//!
//! With an API key, or a file of named keys (`keys`), every request must bring one, and a named key finds its own boxes
//! alone (`caller`, `allowances`). Without one, the server listens on loopback addresses only and answers
//! only requests that name this host and come from no other site's page (`auth`). A request may name paths of the host
//! only below directories that the operator allowed (`allowed`). Connections that have not brought the key are few, and
//! live apart from those that have (`connections`); a client that does not read loses its connection (`socket`).
//! Which registries clients may use is the runtime's affair: `boxlite::RuntimeOptions::registries`, where a program that
//! serves others names the private ones.
//!
//! # Life
//!
//! Boxes belong to the home and outlive the server. Executions belong to the server: their output waits in bounded
//! buffers until a client attaches, and a reaper ends or releases those that no client comes back to. When told to
//! stop, the server lets running answers and attached clients finish for a few seconds, then closes them (`drain`).

mod allowances;
mod allowed;
mod app;
mod auth;
mod body;
mod caller;
mod connections;
mod drain;
mod executions;
mod failure;
mod history;
mod idempotency;
mod keys;
mod listener;
mod observations;
mod page;
mod progress;
mod request_id;
mod routes;
mod socket;
mod tls;
mod tunnels;
mod upkeep;
mod watched;
mod websocket;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use boxlite::{Error, ErrorKind, Result, Runtime};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use allowed::AllowedPaths;
use app::App;
use auth::{ApiKey, AuthGate};
use connections::ConnectionLimits;
use keys::KeysFile;
pub use keys::key_entry;
use listener::ListeningSocket;
use tls::Certificate;
pub use tls::TlsFiles;
pub use upkeep::Refresh;

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen; port 0 chooses a free one.
    pub address: SocketAddr,
    /// File with the key that requests must bring; without it only programs of this host are answered.
    pub api_key_file: Option<PathBuf>,
    /// File with several keys, by name and hash, and what their boxes may take; read again when it changes.
    pub keys_file: Option<PathBuf>,
    /// The certificate to show, read again when its files change; without it, the server speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Directories below which requests may name paths of this host.
    pub allowed_paths: Vec<PathBuf>,
    /// TCP ports of this host's loopback that requests may let boxes reach.
    pub allowed_host_ports: Vec<u16>,
    /// How often to collect garbage, if at all; the first time when the server begins.
    pub gc_interval: Option<Duration>,
    /// Whether `/metrics` has series of each running box, of at most 256.
    pub box_metrics: bool,
    /// Most connections of one address, or of one /64 network of IPv6. Behind a proxy, all clients share its address.
    pub max_peer_connections: usize,
}

impl Default for ServerOptions {
    /// Port 8100 of this host's loopback, without a key, with a collection now and each hour.
    fn default() -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8100),
            api_key_file: None,
            keys_file: None,
            tls: None,
            allowed_paths: Vec::new(),
            allowed_host_ports: Vec::new(),
            gc_interval: Some(Duration::from_secs(3600)),
            box_metrics: false,
            max_peer_connections: ConnectionLimits::default().max_per_peer,
        }
    }
}

/// A server whose options were checked, before it has touched a home or a port.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    gate: AuthGate,
    certificate: Option<Certificate>,
    allowed: AllowedPaths,
    gc_interval: Option<Duration>,
    box_metrics: bool,
    limits: ConnectionLimits,
}

impl Server {
    /// Checks `options`, reads the API key and resolves the allowed directories; may block.
    ///
    /// # Errors
    /// `InvalidInput` without a path when the address needs a key and there is none; otherwise what is wrong with the
    /// key's file or an allowed directory, with its path.
    pub fn new(options: &ServerOptions) -> Result<Self> {
        let key = options.api_key_file.as_deref().map(ApiKey::read).transpose()?;
        let named = options.keys_file.as_deref().map(KeysFile::read).transpose()?;
        let gate = AuthGate::new(key, named);
        refuse_without_key(&gate, options.address)?;
        let allowed = AllowedPaths::new(&options.allowed_paths)?.with_host_ports(&options.allowed_host_ports);
        Ok(Self {
            address: options.address,
            gate,
            certificate: options.tls.clone().map(Certificate::read).transpose()?,
            allowed,
            gc_interval: options.gc_interval,
            box_metrics: options.box_metrics,
            limits: ConnectionLimits {
                max_per_peer: options.max_peer_connections,
                ..ConnectionLimits::default()
            },
        })
    }

    /// Listens, on behalf of `runtime`; connections wait until [`BoundServer::serve`].
    ///
    /// # Errors
    /// `Io` when the address cannot be listened on.
    pub async fn bind(self, runtime: Runtime) -> Result<BoundServer> {
        let bound = TcpListener::bind(self.address).await;
        let listener = bound.map_err(|error| listening_failed(self.address, error))?;
        self.with(listener, false, runtime)
    }

    /// Serves on a socket that listens already, and that whoever handed it over keeps open for the next server: clients
    /// that connect while one ends and the next begins wait, and none is refused. The address of the options is not used.
    ///
    /// # Errors
    /// `InvalidInput` when its address needs a key and there is none; `Io` when the socket cannot be used.
    pub fn adopt(self, listener: std::net::TcpListener, runtime: Runtime) -> Result<BoundServer> {
        let adopted = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let listener = adopted.map_err(|error| {
            Error::new(ErrorKind::Io, "a handed-over socket cannot be used").because(error)
        })?;
        self.with(listener, true, runtime)
    }

    fn with(self, listener: TcpListener, inherited: bool, runtime: Runtime) -> Result<BoundServer> {
        let address = listener.local_addr().map_err(|error| listening_failed(self.address, error))?;
        refuse_without_key(&self.gate, address)?;
        let mut app = App::new(runtime, self.gate, self.allowed, self.limits, self.certificate.is_some());
        app.has_box_metrics = self.box_metrics;
        let (app, certificate) = (Arc::new(app), self.certificate.map(Arc::new));
        let (socket, refresh) = (ListeningSocket { listener, inherited, certificate }, Refresh::default());
        Ok(BoundServer { address, socket, app, gc_interval: self.gc_interval, refresh })
    }
}

fn listening_failed(address: SocketAddr, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("listening on {address} failed")).because(error)
}

/// Refuses to serve everybody who reaches the address.
fn refuse_without_key(gate: &AuthGate, address: SocketAddr) -> Result<()> {
    if gate.needs_key() || address.ip().is_loopback() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "serving on {} without an API key would let everybody run boxes here",
        address.ip()
    )))
}

/// A server that listens and does not answer yet.
pub struct BoundServer {
    address: SocketAddr,
    socket: ListeningSocket,
    app: Arc<App>,
    gc_interval: Option<Duration>,
    refresh: Refresh,
}

impl std::fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl BoundServer {
    /// The address that it listens on, with the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that it answers at.
    pub fn url(&self) -> String {
        let scheme = if self.socket.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Returns what makes the running server look at its files of keys and certificate at once.
    pub fn refresh(&self) -> Refresh {
        self.refresh.clone()
    }

    /// Answers requests until `stop` resolves; then lets running answers finish, for a limited time, and sends attached
    /// clients away.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) {
        let Self { socket, app, gc_interval, refresh, .. } = self;
        let mut chores = JoinSet::new();
        let token = app.drain.stopping.clone();
        chores.spawn(async move {
            stop.await;
            token.cancel();
        });
        chores.spawn(upkeep::reap(Arc::clone(&app.executions)));
        chores.spawn(upkeep::report_pauses(app.runtime.clone()));
        chores.spawn(upkeep::forget(app.runtime.clone(), Arc::clone(&app.executions)));
        chores.spawn(upkeep::record(Arc::clone(&app)));
        let runtime = app.runtime.clone();
        chores.spawn(async move { runtime.keep_pool().await });
        chores.spawn(upkeep::refresh(Arc::clone(&app.gate), socket.certificate.clone(), refresh));
        if let Some(interval) = gc_interval {
            chores.spawn(upkeep::collect(app.runtime.clone(), interval));
        }
        listener::listen(&app, socket).await;
    }
}

#[cfg(test)]
mod tests {
    use boxlite::RemoteOptions;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;

    fn options(host: [u8; 4]) -> ServerOptions {
        ServerOptions { address: SocketAddr::from((host, 0)), ..ServerOptions::default() }
    }

    /// Mutation tried: without the check of the address, anybody may run boxes here.
    #[test]
    fn a_server_without_a_key_is_for_loopback_addresses_only() {
        assert!(Server::new(&options([127, 0, 0, 1])).is_ok());
        let refused = Server::new(&options([0, 0, 0, 0])).unwrap_err();
        assert_eq!((refused.kind(), refused.path()), (ErrorKind::InvalidInput, None));
        let missing = ServerOptions { api_key_file: Some("/no/such/key".into()), ..options([0, 0, 0, 0]) };
        assert!(Server::new(&missing).unwrap_err().path().is_some(), "a bad key file is named");
    }

    #[tokio::test]
    async fn a_server_answers_until_it_is_told_to_stop() {
        let runtime = Runtime::remote(&RemoteOptions { url: "http://127.0.0.1:1".into(), api_key: None });
        let runtime = runtime.unwrap();
        let server = Server::new(&options([127, 0, 0, 1])).unwrap().bind(runtime.clone()).await.unwrap();
        let address = server.address();
        assert_ne!(address.port(), 0);
        let second = Server::new(&ServerOptions { address, ..ServerOptions::default() }).unwrap();
        let taken = second.bind(runtime).await.unwrap_err().chain().to_string();
        assert!(taken.starts_with(&format!("listening on {address} failed: ")), "{taken}");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async move { drop(stopped.await) }));
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"ok\""), "{answer}");
        stop.send(()).unwrap();
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "it listens no more");
    }
}
