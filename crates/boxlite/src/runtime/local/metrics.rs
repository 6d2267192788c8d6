//! Counts what this runtime does.

use std::sync::atomic::{AtomicU64, Ordering};

use boxlite_types::{Activity, ErrorKind, GcActivity, Result};

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
}

impl RuntimeMetrics {
    pub(super) fn box_created(&self) {
        increment(&self.created);
    }

    pub(super) fn box_stopped(&self) {
        increment(&self.stopped);
    }

    /// Counts a start by its outcome, one that was refused for want of space apart from one that failed.
    pub(super) fn start_ended<T>(&self, outcome: &Result<T>) {
        increment(match outcome {
            Ok(_) => &self.started,
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => &self.refused,
            Err(_) => &self.failed,
        });
    }

    /// Counts a command by whether it was handed to its box.
    pub(super) fn command_begun<T>(&self, outcome: &Result<T>) {
        increment(if outcome.is_ok() { &self.commands } else { &self.commands_failed });
    }

    /// The figures so far, with those of gc.
    pub(super) fn read(&self, gc: GcActivity) -> Activity {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Activity {
            boxes_created: read(&self.created),
            boxes_started: read(&self.started),
            boxes_stopped: read(&self.stopped),
            starts_refused: read(&self.refused),
            starts_failed: read(&self.failed),
            commands: read(&self.commands),
            commands_failed: read(&self.commands_failed),
            gc,
        }
    }
}

fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
