//! Counters of gc in this process, for observation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use boxlite_types::gc::Fate;
use boxlite_types::{GcActivity, GcReport, LatencyHistogram, LatencyRecorder};

/// Counts passes; shared by all that run one.
#[derive(Debug, Default)]
pub struct GcMetrics {
    runs: AtomicU64,
    failed_runs: AtomicU64,
    removed: AtomicU64,
    removed_bytes: AtomicU64,
    evicted: AtomicU64,
    evicted_bytes: AtomicU64,
    micros: AtomicU64,
    took: LatencyRecorder,
}

impl GcMetrics {
    /// Counts a pass that took so long.
    pub fn count(&self, report: &GcReport, took: Duration) {
        if report.dry_run {
            return;
        }
        let add = |counter: &AtomicU64, by: u64| counter.fetch_add(by, Ordering::Relaxed);
        add(&self.runs, 1);
        add(&self.failed_runs, u64::from(report.failed()));
        add(&self.removed, report.removed().count() as u64);
        add(&self.removed_bytes, report.reclaimed);
        let caches = [&report.disk_images, &report.deltas, &report.boot_files].into_iter().flatten();
        let evicted = caches.filter(|item| matches!(item.fate, Fate::Removed { .. }));
        let (count, bytes) = evicted.fold((0, 0), |(count, bytes), item| (count + 1, bytes + item.allocated));
        add(&self.evicted, count);
        add(&self.evicted_bytes, bytes);
        self.took.record(took);
        add(&self.micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts a pass that could not even begin.
    pub fn count_failure(&self) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.failed_runs.fetch_add(1, Ordering::Relaxed);
    }

    /// How long passes took.
    pub fn latencies(&self) -> LatencyHistogram {
        self.took.now()
    }

    /// The figures now.
    pub fn now(&self) -> GcActivity {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GcActivity {
            runs: read(&self.runs),
            failed_runs: read(&self.failed_runs),
            removed: read(&self.removed),
            removed_bytes: read(&self.removed_bytes),
            evicted: read(&self.evicted),
            evicted_bytes: read(&self.evicted_bytes),
            seconds: Duration::from_micros(read(&self.micros)).as_secs_f64(),
        }
    }
}
