//! `boxlite serve`: a runtime over HTTP, in the public API's dialect and in the library's own.
//!
//! Thin over [`Runtime`]: what is decided here is who may ask, what a request may name, how much may be going on at
//! once, and how an answer is written.

mod access;
mod auth;
mod body;
mod executions;
mod failure;
mod listener;
mod native;
mod observe;
mod progress;
mod public;
mod request_id;
mod router;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use boxlite::{BoxInfo, ProgressSink, Result, Runtime};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use access::Access;
pub(crate) use auth::Key;

use executions::Executions;

/// How to serve.
pub(crate) struct Options {
    /// What requests must bring; without it only programs of this host are answered.
    pub(crate) key: Option<Key>,
    /// Which paths requests may name.
    pub(crate) access: Access,
    /// How often to collect garbage, if at all.
    pub(crate) gc_interval: Option<Duration>,
}

/// What every request has at hand.
struct App {
    runtime: Runtime,
    key: Option<Key>,
    access: Access,
    executions: Arc<Executions>,
    observations: observe::Observations,
    /// Attached clients.
    sessions: TaskTracker,
    /// Set when attached clients must go.
    closing: CancellationToken,
}

impl App {
    /// Runs `work`, which may block, on what requests may name.
    async fn with_access<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Access) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let app = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&app.access))
            .await
            .map_err(|error| boxlite::Error::bug("checking a path was interrupted").because(error))?
    }

    /// Starts the box, unless a volume that was allowed has been led elsewhere since.
    async fn start(self: &Arc<Self>, info: BoxInfo, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        let options = info.options;
        self.with_access(move |access| access.still_leads_there(&options)).await?;
        self.runtime.start(&info.id, progress).await
    }
}

/// Serves `runtime` on `listener` until `stop` is set; then lets what is being answered end, but not for long.
pub(crate) async fn serve(
    runtime: Runtime,
    listener: TcpListener,
    options: Options,
    stop: CancellationToken,
) {
    let app = Arc::new(App {
        runtime,
        key: options.key,
        access: options.access,
        executions: Arc::default(),
        observations: observe::Observations::default(),
        sessions: TaskTracker::new(),
        closing: CancellationToken::new(),
    });
    let mut chores = JoinSet::new();
    chores.spawn(executions::reap(Arc::clone(&app.executions)));
    chores.spawn(upkeep::forget(app.runtime.clone(), Arc::clone(&app.executions)));
    if let Some(interval) = options.gc_interval {
        chores.spawn(upkeep::collect(app.runtime.clone(), interval));
    }
    listener::listen(&app, listener, stop).await;
}
