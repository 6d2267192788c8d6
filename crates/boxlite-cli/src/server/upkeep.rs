//! Garbage collection by the clock.

use std::time::Duration;

use boxlite::{GcOptions, Runtime};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Collects garbage every `interval` for ever; starts under pressure do so by themselves.
///
/// Other processes may collect at the same time: each takes what it can lock and leaves the rest.
pub(super) async fn collect(runtime: Runtime, interval: Duration) {
    let mut ticks = interval_at(Instant::now() + interval, interval);
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
            Err(error) => tracing::error!(%error, "gc failed"),
        }
    }
}
