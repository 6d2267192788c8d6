//! Counts what this runtime does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use boxlite_storage::gc::GcMetrics;
use boxlite_types::{Activity, ErrorKind, Latencies, LatencyRecorder, Result, StartStage, StartTimes};

use crate::litebox::StartWatch;

/// Boxes whose last start is remembered; the one that was started longest ago goes first.
const MAX_STARTS: usize = 1024;

/// The counters of one runtime.
#[derive(Debug, Default)]
pub(super) struct RuntimeMetrics {
    created: AtomicU64,
    started: AtomicU64,
    stopped: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    commands: AtomicU64,
    commands_failed: AtomicU64,
    starts_took: LatencyRecorder,
    stages_took: [LatencyRecorder; StartStage::ALL.len()],
    execs_took: LatencyRecorder,
    pulls_took: LatencyRecorder,
    snapshot_pauses: LatencyRecorder,
    /// By box: when its last start was asked for, and how long that took.
    last_starts: Mutex<HashMap<String, (SystemTime, StartTimes)>>,
}

impl RuntimeMetrics {
    pub(super) fn box_created(&self) {
        increment(&self.created);
    }

    pub(super) fn box_stopped(&self) {
        increment(&self.stopped);
    }

    /// Counts a start of the box `id` by its outcome, one that was refused for want of space apart from one that failed.
    pub(super) fn start_ended<T>(&self, id: &str, outcome: &Result<T>, watch: &StartWatch) {
        for stage in watch.stages() {
            self.stages_took[stage.stage as usize].record(stage.took);
        }
        if outcome.is_ok() {
            self.starts_took.record(watch.elapsed());
            self.remember(id, watch);
        }
        increment(match outcome {
            Ok(_) => &self.started,
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => &self.refused,
            Err(_) => &self.failed,
        });
    }

    fn remember(&self, id: &str, watch: &StartWatch) {
        let mut starts = self.last_starts();
        if starts.len() >= MAX_STARTS && !starts.contains_key(id) {
            let oldest = starts.iter().min_by_key(|(_, (began, _))| *began).map(|(id, _)| id.clone());
            oldest.and_then(|id| starts.remove(&id));
        }
        starts.insert(id.to_owned(), (watch.began, watch.times()));
    }

    /// How long the last start of the box `id` took, if it was here and not long ago.
    pub(super) fn last_start(&self, id: &str) -> Option<StartTimes> {
        self.last_starts().get(id).map(|(_, times)| *times)
    }

    fn last_starts(&self) -> MutexGuard<'_, HashMap<String, (SystemTime, StartTimes)>> {
        self.last_starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a pull that succeeded.
    pub(super) fn pulled(&self, took: Duration) {
        self.pulls_took.record(took);
    }

    /// Counts a guest that stood still for so long while its disk was switched.
    pub(super) fn guest_stood_still(&self, pause: Duration) {
        self.snapshot_pauses.record(pause);
    }

    /// Counts a command by whether it was handed to its box, for which it took so long.
    pub(super) fn command_begun<T>(&self, outcome: &Result<T>, took: Duration) {
        if outcome.is_ok() {
            self.execs_took.record(took);
        }
        increment(if outcome.is_ok() { &self.commands } else { &self.commands_failed });
    }

    /// The figures so far, with those of gc.
    pub(super) fn read(&self, gc: &GcMetrics) -> Activity {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Activity {
            boxes_created: read(&self.created),
            boxes_started: read(&self.started),
            boxes_stopped: read(&self.stopped),
            starts_refused: read(&self.refused),
            starts_failed: read(&self.failed),
            commands: read(&self.commands),
            commands_failed: read(&self.commands_failed),
            gc: gc.now(),
            latencies: Latencies {
                starts: self.starts_took.now(),
                start_stages: std::array::from_fn(|stage| self.stages_took[stage].now()),
                execs: self.execs_took.now(),
                pulls: self.pulls_took.now(),
                snapshot_pauses: self.snapshot_pauses.now(),
                gc: gc.latencies(),
            },
        }
    }
}

fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
