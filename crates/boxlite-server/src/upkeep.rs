//! What is done by the clock: garbage collection, and forgetting boxes that others removed.

use std::sync::Arc;
use std::time::Duration;

use boxlite::{ErrorKind, GcOptions, Runtime};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::executions::Executions;

/// How often to look for boxes that others removed.
const FORGETTING: Duration = Duration::from_secs(60);

/// Collects garbage every `interval` for ever; starts under pressure do so by themselves.
///
/// Other processes may collect at the same time: each takes what it can lock and leaves the rest.
pub(super) async fn collect(runtime: Runtime, interval: Duration) {
    let mut ticks = every(interval);
    loop {
        ticks.tick().await;
        match runtime.collect_garbage(GcOptions::default()).await {
            Ok(report) if report.failed() => {
                let (unreadable, failures) = (report.unreadable.len(), report.failures.len());
                let first =
                    report.unreadable.first().map(|unreadable| (&unreadable.path, &unreadable.reason));
                let first =
                    first.or_else(|| report.failures.first().map(|failure| (&failure.path, &failure.reason)));
                if let Some((path, reason)) = first {
                    let path = path.display();
                    tracing::warn!(unreadable, failures, %path, reason, "gc could not do everything");
                }
            }
            Ok(report) => tracing::info!(reclaimed = report.reclaimed, "gc ran"),
            Err(error) => tracing::error!(error = %error.chain(), "gc failed"),
        }
    }
}

/// Forgets for ever what was counted of boxes that others removed, or that removed themselves; a removal through this
/// server does so itself.
pub(super) async fn forget(runtime: Runtime, executions: Arc<Executions>) {
    let mut ticks = every(FORGETTING);
    loop {
        ticks.tick().await;
        forget_removed(&runtime, &executions).await;
    }
}

async fn forget_removed(runtime: &Runtime, executions: &Executions) {
    for id in executions.counted_boxes() {
        // Unknown means keep.
        if runtime.inspect(&id).await.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            executions.forget_box(&id);
        }
    }
}

fn every(interval: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Path;
    use axum::response::{IntoResponse, Response};
    use axum::routing::get;
    use boxlite::{Error, RemoteOptions};
    use tokio::net::TcpListener;

    use super::*;
    use crate::executions::a_box;
    use crate::failure::Failure;

    async fn inspect(Path(id): Path<String>) -> Response {
        match id.as_str() {
            "kept" => axum::Json(a_box("kept")).into_response(),
            "unreadable" => Failure::from(Error::corrupt("its record")).into_response(),
            _ => Failure::from(Error::not_found("no such box")).into_response(),
        }
    }

    /// Mutation tried: without the question for its box, what was counted of one that others removed stays for ever;
    /// without the comparison of the error's kind, that of one which cannot be read goes as well.
    #[tokio::test]
    async fn what_was_counted_of_boxes_that_others_removed_is_forgotten() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let boxes = Router::new().route("/v1/runtime/boxes/{id}", get(inspect));
        tokio::spawn(async move { axum::serve(listener, boxes).await });
        let runtime = Runtime::remote(&RemoteOptions { url, api_key: None }).unwrap();
        let executions = Executions::default();
        for id in ["kept", "removed", "unreadable", "removed as well"] {
            executions.traffic(id);
        }
        forget_removed(&runtime, &executions).await;
        let mut counted = executions.counted_boxes();
        counted.sort();
        assert_eq!(counted, ["kept", "unreadable"]);
    }
}
