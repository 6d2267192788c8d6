//! `serve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use boxlite::settings::parse_duration;
use boxlite_server::{Server, ServerOptions, TlsFiles};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::open;
use crate::args::GlobalArgs;
use crate::environment::Environment;
use crate::render::print;
use crate::report::{CommandFailure, Exit, Topic, note};
use crate::service;

/// `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; any but a loopback address needs --api-key-file or --keys-file
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDRESS", value_parser = address)]
    host: IpAddr,
    /// Port to listen on; 0 chooses a free one
    #[arg(long, default_value_t = 8100)]
    port: u16,
    /// File with several keys, by name and hash, and limits for the boxes of each; `serve-key` makes its entries
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// Certificate to show, with those between it and its authority's, in PEM; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Directory below which requests may name paths of this host, as images or volumes; may be repeated
    #[arg(long, value_name = "DIR")]
    allow_path: Vec<PathBuf>,
    /// TCP port of this host's loopback that requests may let boxes reach; may be repeated
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    allow_host: Vec<u16>,
    /// Registry that clients may use although its address is private, and insecurely if they ask; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    allow_registry: Vec<String>,
    /// Most connections of one address; behind a proxy, all clients share its address
    #[arg(long, default_value_t = ServerOptions::default().max_peer_connections, value_name = "NUMBER")]
    max_peer_connections: usize,
    /// How many restored guests wait for the next boxes, with the hardware of the last one [default: the setting pool]
    #[arg(long, value_name = "NUMBER")]
    pool: Option<u64>,
    /// Show series of each running box in /metrics, of at most 256
    #[arg(long)]
    box_metrics: bool,
    /// OpenTelemetry collector that gets a trace of each start, as OTLP/JSON, such as `http://localhost:4318/v1/traces`
    #[arg(long, value_name = "URL")]
    otlp_traces: Option<String>,
    /// How often to collect garbage, such as 1h or 30m, or `off`
    #[arg(long, default_value = "1h", value_name = "INTERVAL", value_parser = interval)]
    gc_interval: GcInterval,
}

/// `--gc-interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GcInterval(Option<Duration>);

fn address(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().map_err(|_| format!("`{text}` is not an IP address"))
}

fn interval(text: &str) -> Result<GcInterval, String> {
    if text == "off" {
        return Ok(GcInterval(None));
    }
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err("an interval must be longer than 0; `off` switches it off".to_owned()),
        Ok(interval) => Ok(GcInterval(Some(interval))),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) async fn serve(
    global: &GlobalArgs,
    environment: &Environment,
    args: ServeArgs,
) -> Result<Exit, CommandFailure> {
    if global.url.is_some() {
        return Err(CommandFailure::local(
            "a server serves a home of its own host, and --url names another server",
        ));
    }
    let failed = |error: boxlite::Error| CommandFailure::of(&error, Topic::Serving);
    let tls = args.tls_cert.zip(args.tls_key).map(|(certificate, key)| TlsFiles { certificate, key });
    if tls.is_none() && !args.host.is_loopback() {
        note(&format!(
            "boxlite: warning: serving plain HTTP on {}: whoever is on the way reads keys and data; --tls-cert and \
             --tls-key encrypt, and a TLS proxy on this host needs 127.0.0.1 only",
            args.host
        ));
    }
    let server = Server::new(&ServerOptions {
        address: SocketAddr::new(args.host, args.port),
        api_key_file: global.api_key_file.clone(),
        keys_file: args.keys_file,
        tls,
        allowed_paths: args.allow_path,
        allowed_host_ports: args.allow_host,
        gc_interval: args.gc_interval.0,
        box_metrics: args.box_metrics,
        max_peer_connections: args.max_peer_connections,
    })
    .map_err(failed)?;
    let runtime = open::served(global, environment, args.allow_registry, args.pool, args.otlp_traces)?;
    let watching = |error| CommandFailure::local(format!("watching for signals failed: {error}"));
    let stop = stop_on_signal().map_err(watching)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(watching)?;
    let server = match service::inherited_socket(environment)? {
        Some(socket) => server.adopt(socket, runtime).map_err(failed)?,
        None => server.bind(runtime).await.map_err(failed)?,
    };
    let refresh = server.refresh();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            refresh.ask();
        }
    });
    raise_open_files();
    print(&format!("boxlite: serving on {}\n", server.url()))?;
    let notifier = service::Notifier::new(environment);
    notifier.ready();
    server
        .serve(async move {
            stop.await;
            notifier.stopping();
        })
        .await;
    Ok(Exit::OK)
}

/// Resolves at the first INT or TERM, which end nothing from the moment this returns.
fn stop_on_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Raises the soft limit of open files to the hard one: each attached client takes a file, and each command another.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
