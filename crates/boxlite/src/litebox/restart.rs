//! Whether and when a box is restarted: a pure decision, and the lock that shows that a process is there to do it.
//!
//! # Locking
//! `restart.lock` in the box's directory is held exclusively by the process that may restart the box, from while it runs until
//! it runs again or will not. So a box that does not run is *restarting* exactly while the lock is held, its policy may want a
//! restart and its user has not stopped it; a waiter that is killed leaves a box that has stopped.

use std::time::Duration;

use boxlite_home::BoxPaths;
use boxlite_home::durable::Lock;
use boxlite_types::{BoxRecord, Error, Phase, RestartPolicy, Restarts, Result, RunOutcome};
use jiff::Timestamp;

/// The first pause; each further one is twice as long.
const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(60);

/// A box that was up for this long begins with the first pause again.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The decision about a box whose run has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It stays as it is.
    Stay,
    /// It is started again after `delay_ms` of these restarts.
    Restart(Restarts),
}

/// Decides about the box of `record`, which is in `phase` after its run.
pub(crate) fn decide(record: &BoxRecord, phase: &Phase) -> Decision {
    let (started_at, outcome) = match phase {
        Phase::Created | Phase::Started { .. } => return Decision::Stay,
        Phase::Ended { started_at, outcome } => (*started_at, outcome.clone()),
        Phase::Failed { started_at, at, exit_code, reason } => {
            (*started_at, RunOutcome { at: *at, exit_code: *exit_code, reason: Some(reason.clone()) })
        }
    };
    let restarts = &record.restarts;
    if !may_restart(record, phase) || is_spent(record.options.restart, restarts) {
        return Decision::Stay;
    }
    // The end of a run that was killed is not known; it is found soon after it.
    let ended = outcome.at.unwrap_or_else(Timestamp::now);
    let stable = started_at.is_some_and(|at| ended.duration_since(at).unsigned_abs() >= STABLE_AFTER);
    Decision::Restart(Restarts {
        run: restarts.run.clone(),
        kept: restarts.kept,
        count: restarts.count.saturating_add(1),
        delay_ms: delay(if stable { 0 } else { restarts.delay_ms }),
        halted: false,
        last: Some(outcome),
        refused: None,
    })
}

fn has_failed(phase: &Phase) -> bool {
    match phase {
        Phase::Created | Phase::Started { .. } => false,
        Phase::Ended { outcome, .. } => outcome.exit_code.is_some_and(|code| code != 0),
        Phase::Failed { .. } => true,
    }
}

/// Whether a restart policy could start the box again from `phase`.
fn may_restart(record: &BoxRecord, phase: &Phase) -> bool {
    !record.restarts.halted
        && *phase != Phase::Created
        && match record.options.restart {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure { .. } => has_failed(phase),
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        }
}

/// Whether the policy allows no further restart.
fn is_spent(policy: RestartPolicy, restarts: &Restarts) -> bool {
    matches!(policy, RestartPolicy::OnFailure { max: Some(max) } if restarts.count >= max)
}

/// The pause that follows one of `last` milliseconds; `last` is 0 for a box that was not restarted recently.
fn delay(last: u64) -> u64 {
    let (min, max) = (MIN_DELAY.as_millis() as u64, MAX_DELAY.as_millis() as u64);
    if last == 0 { min } else { last.saturating_mul(2).clamp(min, max) }
}

/// The next restart of a box whose restart was refused for this reason; `None` when that was the last one.
pub(crate) fn after_refusal(policy: RestartPolicy, restarts: &Restarts, error: &Error) -> Option<Restarts> {
    if is_spent(policy, restarts) {
        return None;
    }
    Some(Restarts {
        count: restarts.count.saturating_add(1),
        delay_ms: delay(restarts.delay_ms),
        refused: Some(error.chain().to_string()),
        ..restarts.clone()
    })
}

/// Shows that this process is there to restart a box; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct PendingRestart {
    _lock: Lock,
}

impl PendingRestart {
    /// Shows that the box at `paths` may be restarted, once an earlier waiter has gone. Blocks.
    pub(crate) fn begin(paths: &BoxPaths) -> Result<Self> {
        Ok(Self { _lock: Lock::exclusive(&paths.restart_lock())? })
    }

    /// Whether a process is there to restart the box of `record`, which rests in `phase`.
    pub(crate) fn is_shown(paths: &BoxPaths, record: &BoxRecord, phase: &Phase) -> Result<bool> {
        if !may_restart(record, phase) {
            return Ok(false);
        }
        let path = paths.restart_lock();
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("opening", path, error)),
        };
        Ok(Lock::try_shared_on(file, &path)?.is_none())
    }
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
