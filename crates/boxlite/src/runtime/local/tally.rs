//! Counts what this runtime does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use boxlite_types::{Activity, BoxState, Consumption, ErrorKind, GcActivity, Result};

use super::Local;

/// How long a guest may take to say what it consumes.
const ANSWERS: Duration = Duration::from_secs(3);

/// The counters of one runtime. Each method counts an outcome and passes it on.
#[derive(Debug, Default)]
pub(super) struct Tally {
    created: AtomicU64,
    started: AtomicU64,
    stopped: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    commands: AtomicU64,
    commands_failed: AtomicU64,
}

impl Tally {
    pub(super) fn create<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.inspect(|_| count(&self.created))
    }

    pub(super) fn start<T>(&self, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Ok(_) => count(&self.started),
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => count(&self.refused),
            Err(_) => count(&self.failed),
        }
        outcome
    }

    pub(super) fn stop<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.inspect(|_| count(&self.stopped))
    }

    pub(super) fn command<T>(&self, outcome: Result<T>) -> Result<T> {
        count(if outcome.is_ok() { &self.commands } else { &self.commands_failed });
        outcome
    }

    pub(super) fn now(&self, gc: GcActivity) -> Activity {
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

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Local {
    /// What a box consumes; a guest that does not answer in time says nothing.
    pub(super) async fn consumption_of(&self, id: &str) -> Result<Consumption> {
        let record = self.find(id).await?;
        let info = self.inspect_record(&record.id).await?;
        let guest = match info.state {
            BoxState::Running => {
                let answer = tokio::time::timeout(ANSWERS, async { self.client(&record).metrics().await });
                answer.await.ok().and_then(Result::ok)
            }
            BoxState::Created | BoxState::Stopped | BoxState::Failed => None,
        };
        Ok(Consumption { id: info.id, state: info.state, disk_allocated: info.disk_allocated, guest })
    }
}
