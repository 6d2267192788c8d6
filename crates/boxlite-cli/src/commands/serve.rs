//! `serve`.

use std::net::SocketAddr;

use boxlite_server::{Server, ServerOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::open;
use crate::args::{GlobalArgs, ServeArgs};
use crate::render::print;
use crate::report::{Exit, Failure, Topic};

pub(super) async fn serve(global: &GlobalArgs, args: ServeArgs) -> Result<Exit, Failure> {
    if global.url.is_some() {
        return Err(Failure::local("a server serves a home of its own host, and --url names another server"));
    }
    let failed = |error: boxlite::Error| Failure::of(&error, Topic::Serving);
    let server = Server::new(&ServerOptions {
        address: SocketAddr::new(args.host, args.port),
        api_key_file: global.api_key_file.clone(),
        allowed_paths: args.allow_path,
        gc_interval: args.gc_interval.0,
    })
    .map_err(failed)?;
    let runtime = open::local(global)?;
    let stop =
        stop_on_signal().map_err(|error| Failure::local(format!("watching for signals failed: {error}")))?;
    let server = server.bind(runtime).await.map_err(failed)?;
    raise_open_files();
    print(&format!("boxlite: serving on http://{}\n", server.address()))?;
    server.serve(stop).await;
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

/// Lifts the soft limit of open files to the hard one: each attached client takes one, and each command another.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
