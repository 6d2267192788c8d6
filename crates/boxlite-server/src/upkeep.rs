//! Periodic work: garbage collection, samples of the disk, reaping executions without a client, and forgetting boxes that
//! others removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use boxlite::{
    BoxInfo, BoxState, ErrorKind, EventAction, EventOptions, EventPosition, GcOptions, ListOptions, Runtime,
};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::app::App;
use crate::auth::AuthGate;
use crate::executions::Executions;
use crate::history::{SAMPLE_INTERVAL, SAMPLES_PER_DISKS, Sample};
use crate::tls::Certificate;

/// How often to look for boxes that other processes removed.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// How often to look for boxes that were paused or went on.
const PAUSE_INTERVAL: Duration = Duration::from_secs(2);
/// How often to look whether the files of keys and certificate have changed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// How often to look for executions without a client.
const REAP_INTERVAL: Duration = Duration::from_secs(5);

/// Asks a running server to look at once whether its files of keys and certificate have changed.
#[derive(Debug, Clone, Default)]
pub struct Refresh(Arc<Notify>);

impl Refresh {
    /// Asks, and does not wait for the answer. Files that cannot be used leave what was read before.
    pub fn ask(&self) {
        self.0.notify_one();
    }
}

/// Collects garbage now and every `interval`; never returns. Starts that find space short collect by themselves.
///
/// Other processes may collect at the same time: each removes what it can lock and leaves the rest.
pub(crate) async fn collect(runtime: Runtime, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
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

/// Drops the counters of boxes that other processes removed or that removed themselves; never returns. A removal through
/// this server drops them itself.
pub(crate) async fn forget(runtime: Runtime, executions: Arc<Executions>) {
    let mut ticks = every(FORGET_INTERVAL);
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

/// Logs when a box is paused for want of disk space and when it goes on; never returns.
pub(crate) async fn report_pauses(runtime: Runtime) {
    let mut ticks = every(PAUSE_INTERVAL);
    let mut paused = BTreeMap::new();
    loop {
        ticks.tick().await;
        match runtime.list(ListOptions::default()).await {
            Ok(boxes) => paused = report_changes(&paused, &boxes),
            Err(error) => tracing::warn!(error = %error.chain(), "boxes could not be looked at"),
        }
    }
}

/// Logs the difference to the `before` paused boxes, by id and name; returns those that are paused now.
fn report_changes(before: &BTreeMap<String, String>, boxes: &[BoxInfo]) -> BTreeMap<String, String> {
    let mut now = BTreeMap::new();
    for info in boxes.iter().filter(|info| info.state == BoxState::Paused) {
        if !before.contains_key(&info.id) {
            tracing::warn!(id = info.id, name = info.name, reason = info.reason, "a box is paused");
        }
        now.insert(info.id.clone(), info.name.clone());
    }
    for (id, name) in before.iter().filter(|(id, _)| !now.contains_key(*id)) {
        tracing::info!(id, name, "a box is not paused any more");
    }
    now
}

/// Takes samples of the host's disk and of the disks of boxes; never returns.
pub(crate) async fn record(app: Arc<App>) {
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut position = None;
    for count in 0_usize.. {
        ticks.tick().await;
        let at = Timestamp::now().as_second();
        let info = app.observations.host().await;
        let free = info.ok().and_then(|info| info.space.as_ref().map(|space| space.free.bytes));
        let reclaimed = reclaimed_since(&app.runtime, &mut position).await;
        app.history.note(Sample { at, free, reclaimed });
        if !count.is_multiple_of(SAMPLES_PER_DISKS) {
            continue;
        }
        match app.runtime.list(ListOptions { all: true, ..ListOptions::default() }).await {
            Ok(boxes) => {
                let disks: Vec<_> = boxes.into_iter().map(|info| (info.id, info.disk_allocated)).collect();
                app.history.note_disks(at, &disks);
            }
            Err(error) => tracing::warn!(error = %error.chain(), "the disks of boxes could not be measured"),
        }
    }
}

/// Bytes that events of gc after `position` tell of; moves it on. The first call only finds out where the events end.
async fn reclaimed_since(runtime: &Runtime, position: &mut Option<EventPosition>) -> u64 {
    let options = EventOptions { after: *position, ..EventOptions::default() };
    let Ok(page) = runtime.events(options).await else { return 0 };
    if position.replace(page.position).is_none() {
        return 0;
    }
    let passes = page.events.iter().filter(|event| event.action == EventAction::Gc);
    passes.filter_map(|event| event.details.get("reclaimed")?.parse::<u64>().ok()).sum()
}

/// Reads keys and certificate again when their files have changed, which it looks for by itself and when `asked`; never
/// returns.
pub(crate) async fn refresh(gate: Arc<AuthGate>, certificate: Option<Arc<Certificate>>, asked: Refresh) {
    let mut ticks = every(REFRESH_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = asked.0.notified() => {}
        }
        let (gate, certificate) = (Arc::clone(&gate), certificate.clone());
        let refreshed = tokio::task::spawn_blocking(move || {
            gate.refresh();
            if let Some(certificate) = certificate {
                certificate.refresh();
            }
        });
        if let Err(error) = refreshed.await {
            tracing::warn!(%error, "keys and certificate could not be looked at");
        }
    }
}

/// Ends or releases executions that their clients do not come back to; never returns.
pub(crate) async fn reap(executions: Arc<Executions>) {
    let mut last = Instant::now();
    let mut interval = tokio::time::interval(REAP_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = Instant::now();
        executions.reap(last, now);
        last = now;
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
    use crate::failure::HttpFailure;

    async fn inspect(Path(id): Path<String>) -> Response {
        match id.as_str() {
            "kept" => axum::Json(a_box("kept")).into_response(),
            "unreadable" => HttpFailure::from(Error::corrupt("its record")).into_response(),
            _ => HttpFailure::from(Error::not_found("no such box")).into_response(),
        }
    }

    /// Mutations tried: without asking for the box, the counters of a box that others removed stay for ever; without
    /// comparing the error's kind, the counters of an unreadable box are dropped as well.
    #[tokio::test]
    async fn counters_of_boxes_that_others_removed_are_dropped() {
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
