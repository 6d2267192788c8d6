//! `serve`.

use std::net::SocketAddr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::open;
use crate::args::{GlobalArgs, ServeArgs};
use crate::render::print;
use crate::report::{Exit, Failure, Topic};
use crate::server::{self, Access, Key, Options};

pub(super) async fn serve(global: &GlobalArgs, args: ServeArgs) -> Result<Exit, Failure> {
    if global.url.is_some() {
        return Err(Failure::local("a server serves a home of its own host, and --url names another server"));
    }
    let of_host = |error: boxlite::Error| Failure::of(&error, Topic::Host);
    let key = global.api_key_file.as_deref().map(Key::read).transpose().map_err(of_host)?;
    if key.is_none() && !args.host.is_loopback() {
        let message =
            format!("serving on {} without an API key would let everybody run boxes here", args.host);
        return Err(Failure::local(message).hint(
            "--api-key-file FILE names a file with the key; without one, --host is a loopback address",
        ));
    }
    let access = Access::new(&args.allow_path).map_err(of_host)?;
    let runtime = open::local(global)?;
    let stop =
        stop_on_signal().map_err(|error| Failure::local(format!("watching for signals failed: {error}")))?;
    let wanted = SocketAddr::new(args.host, args.port);
    let failed = |error| Failure::local(format!("listening on {wanted} failed: {error}"));
    let listener = TcpListener::bind(wanted).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    raise_open_files();
    print(&format!("boxlite: serving on http://{address}\n"))?;
    let options = Options { key, access, gc_interval: args.gc_interval.0 };
    server::serve(runtime, listener, options, stop).await;
    Ok(Exit::OK)
}

/// Set by INT or TERM.
fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        token.cancel();
    });
    Ok(stop)
}

/// Lifts the soft limit of open files to the hard one: each attached client takes one, and each command another.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
