//! Starting boxes again whose run has ended, by their restart policy, and removing them once their time to live has passed.
//!
//! # Protocol
//! The keeper of a run shows by a lock that it is there ([`crate::keep`]), decides once its shim is gone, and looks again under
//! the box's guard before it starts the box: a stop, a removal, a start by the user or another policy meanwhile ends it. The
//! start is one like any other, so the admission guard is asked, and the new run has a keeper of its own. A refused start
//! counts as a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use boxlite_home::EventLog;
use boxlite_types::{BoxRecord, EventAction, HomeEvent, RestartPolicy, Restarts, Result};
use boxlite_vm::shim::{Outcome, OutcomeCause, wait_until_gone};
use jiff::Timestamp;

use super::{Local, LocalContext};
use crate::litebox::{self, BoxGuard, Decision, Observed, StartWatch};

/// How often a waiter looks whether the box is still to be restarted.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long a keeper stays to remove its box; later than that the next command does.
const MAX_STAY: Duration = Duration::from_secs(600);

impl Local {
    /// Starts the box again if its policy wants that after the run `run`.
    pub(super) async fn restart_ended(&self, id: &str, run: &str) -> Result<()> {
        // The steward still cleans up, and until it has gone the box counts as running.
        wait_until_gone(&self.context.home.of_box(id)).await?;
        if self.find(id).await?.options.restart == RestartPolicy::No {
            return Ok(());
        }
        // Guarded: a start whose shim has failed takes back what it has recorded.
        let (guard, of_run) = (self.acquire(id).await?, run.to_owned());
        let decided = self.in_context(move |context| decide(context, &guard, &of_run));
        let Decision::Restart(mut restarts) = decided.await? else { return Ok(()) };
        loop {
            if !self.stays_wanted(id, run, Duration::from_millis(restarts.delay_ms)).await? {
                return Ok(());
            }
            let mut guard = self.acquire(id).await?;
            let resting = matches!(self.observe(&guard.record).await?, Observed::Resting(_));
            if !resting || !is_wanted(&guard.record, run) {
                return Ok(());
            }
            let policy = guard.record.options.restart;
            guard.record.restarts = restarts.clone();
            tracing::info!(count = restarts.count, "the box is started again");
            // The settings may have changed since the box was started.
            match self.reopened().await?.launch(guard, Arc::new(()), &Arc::new(StartWatch::start())).await {
                Ok((record, _)) => {
                    let event = HomeEvent::of_box(EventAction::Restart, &record.id, Some(&record.name));
                    EventLog::of(&self.context.home).note(&event.with("count", &record.restarts.count));
                    // Its own keeper looks after a run that does not come up.
                    self.client(&record).wait_up().await?;
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "the box could not be started again");
                    let Some(next) = litebox::after_refusal(policy, &restarts, &error) else { return Ok(()) };
                    restarts = next;
                    self.record_refusal(id, run, &restarts).await;
                }
            }
        }
    }

    /// Waits, and says whether the box is to be restarted after that.
    async fn stays_wanted(&self, id: &str, run: &str, delay: Duration) -> Result<bool> {
        let begin = Instant::now();
        loop {
            let left = delay.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Ok(true);
            }
            tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
            if !is_wanted(&self.find(id).await?, run) {
                return Ok(false);
            }
        }
    }

    /// Records why the restart was refused, if there is room for that.
    async fn record_refusal(&self, id: &str, run: &str, restarts: &Restarts) {
        let recorded = async {
            let mut guard = self.acquire(id).await?;
            if !is_wanted(&guard.record, run) {
                return Ok(());
            }
            guard.record.restarts = restarts.clone();
            self.in_context(move |context| context.store.update_box(&guard.record)).await
        };
        if let Err(error) = recorded.await {
            tracing::warn!(error = %error.chain(), "why a restart was refused is not recorded");
        }
    }
}

/// Decides about the guarded box after its run; one that was stopped through its shim stays.
fn decide(context: &LocalContext, guard: &BoxGuard, run: &str) -> Result<Decision> {
    let record = &guard.record;
    let outcome = Outcome::read(&guard.paths, run).unwrap_or(None);
    // A stop may be recorded otherwise, for example as one whose flush was late.
    let asked = outcome.is_some_and(|outcome| outcome.asked_to_stop || outcome.end == OutcomeCause::Stopped);
    if record.restarts.run != run || asked {
        return Ok(Decision::Stay);
    }
    match Observed::of(&context.home, record)? {
        Observed::Running { .. } => Ok(Decision::Stay),
        Observed::Resting(phase) => Ok(litebox::decide(record, &phase)),
    }
}

/// Whether the box that is about to be restarted after `run` still is.
fn is_wanted(record: &BoxRecord, run: &str) -> bool {
    record.restarts.run == run && !record.restarts.halted && record.options.restart != RestartPolicy::No
}

impl Local {
    /// Removes the box once its time to live has passed after the run `run`, where that is soon.
    pub(super) async fn remove_in_time(&self, id: &str, run: &str) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < MAX_STAY {
            let record = self.find(id).await?;
            if record.restarts.run != run {
                return Ok(());
            }
            let expiry = self.in_context(move |context| litebox::remove_expired(context, &record)).await?;
            let Some(at) = expiry else { return Ok(()) };
            let left = at.duration_since(Timestamp::now()).unsigned_abs();
            if begin.elapsed() + left > MAX_STAY {
                return Ok(());
            }
            tokio::time::sleep(left.clamp(Duration::from_millis(10), LOOK_INTERVAL)).await;
        }
        Ok(())
    }
}
