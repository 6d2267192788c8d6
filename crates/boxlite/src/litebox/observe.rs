//! The present state of a box: its record read in the light of its shim's lock and outcome.
//!
//! Nothing here writes. A box recorded as started runs exactly while its shim or its QEMU holds `shim.lock`;
//! once the lock is free the outcome is final, and a run without an outcome was killed. A box that is not running may
//! have the lock held too, by a maintenance boot.

use boxlite_home::durable::{self, Lock};
use boxlite_home::{BoxPaths, Home};
use boxlite_storage::store::ListedBox;
use boxlite_types::{
    BoxInfo, BoxOptions, BoxRecord, BoxState, Doing, Error, ErrorKind, Health, HealthPlan, HealthStatus,
    Pause, Phase, PortForward, Result, RunOutcome,
};
use boxlite_vm::shim::{Outcome, read_health, read_pause};
use jiff::Timestamp;

use super::pause::sentence;
use super::restart::PendingRestart;
use crate::time;

/// The present truth about a box.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Observed {
    /// Its shim or its QEMU is alive.
    Running { run: String, since: Timestamp },
    /// It is not running, and this is the phase its record should have.
    Resting(Phase),
}

impl Observed {
    /// Looks at the box of `record`.
    pub(crate) fn of(home: &Home, record: &BoxRecord) -> Result<Self> {
        let Phase::Started { at, run, .. } = &record.phase else {
            return Ok(Self::Resting(record.phase.clone()));
        };
        let paths = home.of_box(&record.id);
        if shim_is_alive(&paths)? {
            return Ok(Self::Running { run: run.clone(), since: *at });
        }
        match Outcome::read(&paths, run) {
            Ok(outcome) => Ok(Self::Resting(after_run(*at, outcome))),
            // One damaged file must not hide every other box.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let (started_at, reason) = (Some(*at), error.chain().to_string());
                Ok(Self::Resting(Phase::Failed { started_at, at: None, exit_code: None, reason }))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a process holds the shim's lock. Observers share the lock for an instant, so they never hide each other.
pub(crate) fn shim_is_alive(paths: &BoxPaths) -> Result<bool> {
    let path = paths.shim_lock();
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io("opening the shim's lock", path, error)),
    };
    Ok(Lock::try_shared_on(file, &path)?.is_none())
}

fn after_run(started_at: Timestamp, outcome: Option<Outcome>) -> Phase {
    let started_at = Some(started_at);
    let Some(outcome) = outcome else {
        let reason = "the box's shim or virtual machine was killed".to_owned();
        return Phase::Failed { started_at, at: None, exit_code: None, reason };
    };
    let at = time::from_unix_ms(outcome.at_unix_ms);
    let (exit_code, remark) = (outcome.exit_code(), outcome.remark());
    match outcome.failure() {
        Some(failure) => {
            let reason =
                [Some(failure.to_owned()), remark].into_iter().flatten().collect::<Vec<_>>().join("; ");
            Phase::Failed { started_at, at, exit_code, reason }
        }
        None => Phase::Ended { started_at, outcome: RunOutcome { at, exit_code, reason: remark } },
    }
}

/// Describes the box of `record` for callers.
pub(crate) fn describe(home: &Home, record: &BoxRecord) -> Result<BoxInfo> {
    let observed = Observed::of(home, record)?;
    let pause = match &observed {
        Observed::Running { run, .. } => pause(&home.of_box(&record.id), run),
        Observed::Resting(_) => None,
    };
    let health = match &observed {
        Observed::Running { run, since } => health(&home.of_box(&record.id), record, run, *since),
        Observed::Resting(_) => None,
    };
    let (state, started_at, finished_at, exit_code, reason) = match &observed {
        Observed::Running { since, .. } => match &pause {
            Some(pause) => (BoxState::Paused, Some(*since), None, None, Some(sentence(pause))),
            None => (BoxState::Running, Some(*since), None, None, None),
        },
        Observed::Resting(phase) if PendingRestart::is_shown(&home.of_box(&record.id), record, phase)? => {
            let (started_at, finished_at, exit_code, reason) = last_run(phase);
            (
                BoxState::Restarting,
                started_at,
                finished_at,
                exit_code,
                record.restarts.refused.clone().or(reason),
            )
        }
        Observed::Resting(Phase::Created) => (BoxState::Created, None, None, None, None),
        Observed::Resting(phase @ (Phase::Ended { .. } | Phase::Failed { .. })) => {
            let (started_at, finished_at, exit_code, reason) = last_run(phase);
            let ended = matches!(phase, Phase::Ended { .. });
            let state = if ended { BoxState::Stopped } else { BoxState::Failed };
            (state, started_at, finished_at, exit_code, reason)
        }
        Observed::Resting(Phase::Started { .. }) => {
            return Err(Error::bug("a resting box is recorded as started"));
        }
    };
    Ok(BoxInfo {
        id: record.id.clone(),
        name: record.name.clone(),
        image: record.image_reference.clone(),
        image_digest: record.image.clone(),
        disk_digest: record.disk_digest.clone(),
        state,
        reason,
        pause,
        health,
        exit_code,
        created_at: record.created_at,
        started_at,
        finished_at,
        disk_allocated: overlays_allocated(&home.of_box(&record.id)).ok(),
        ports: published(&observed, record),
        memberships: record.memberships.clone(),
        network_usage: None,
        guest_start: None,
        restart_count: record.restarts.count,
        last_exit: record.restarts.last.clone(),
        node: None,
        options: record.options.clone(),
    })
}

/// When the run that led to `phase` began and ended, its exit code, and what else there is to say of its end.
fn last_run(phase: &Phase) -> (Option<Timestamp>, Option<Timestamp>, Option<i32>, Option<String>) {
    match phase {
        Phase::Created | Phase::Started { .. } => (None, None, None, None),
        Phase::Ended { started_at, outcome } => {
            (*started_at, outcome.at, outcome.exit_code, outcome.reason.clone())
        }
        Phase::Failed { started_at, at, exit_code, reason } => {
            (*started_at, *at, *exit_code, Some(reason.clone()))
        }
    }
}

/// Describes a box of a listing for callers; a damaged one by the database's columns and its locks alone.
pub(crate) fn describe_listed(home: &Home, listed: &ListedBox) -> Result<BoxInfo> {
    let damaged = match listed {
        ListedBox::Whole(record) => return describe(home, record),
        ListedBox::Damaged(damaged) => damaged,
    };
    let paths = home.of_box(&damaged.id);
    let state = if shim_is_alive(&paths)? { BoxState::Running } else { BoxState::Failed };
    Ok(BoxInfo {
        id: damaged.id.clone(),
        name: damaged.name.clone(),
        image: damaged.image.clone(),
        image_digest: damaged.image.clone(),
        disk_digest: damaged.disk_digest.clone(),
        state,
        reason: Some(damaged.why.clone()),
        pause: None,
        health: None,
        exit_code: None,
        created_at: damaged.created_at,
        started_at: None,
        finished_at: None,
        disk_allocated: overlays_allocated(&paths).ok(),
        ports: Vec::new(),
        memberships: Vec::new(),
        network_usage: None,
        guest_start: None,
        restart_count: 0,
        last_exit: None,
        node: None,
        options: BoxOptions::default(),
    })
}

/// The pause that the box's shim shows; a file that cannot be read must not hide the box.
fn pause(paths: &BoxPaths, run: &str) -> Option<Pause> {
    read_pause(paths, run).unwrap_or_else(|error| {
        tracing::warn!(error = %error.chain(), "it is unknown whether a box is paused");
        None
    })
}

/// The health of a box that runs, where it is checked; a file that cannot be read must not hide the box.
fn health(paths: &BoxPaths, record: &BoxRecord, run: &str, since: Timestamp) -> Option<Health> {
    HealthPlan::of(record.options.health.as_ref(), record.image_config.healthcheck.as_ref())
        .ok()
        .flatten()?;
    let shown = read_health(paths, run).unwrap_or_else(|error| {
        tracing::warn!(error = %error.chain(), "it is unknown whether a box is healthy");
        None
    });
    // Its shim is just coming up.
    let starting = Health { status: HealthStatus::Starting, failing_streak: 0, since, log: Vec::new() };
    Some(shown.unwrap_or(starting))
}

fn published(observed: &Observed, record: &BoxRecord) -> Vec<PortForward> {
    match (observed, &record.phase) {
        (Observed::Running { .. }, Phase::Started { ports, .. }) => ports.clone(),
        _ => Vec::new(),
    }
}

/// Bytes allocated to the box's overlays; 0 before the first start.
fn overlays_allocated(paths: &BoxPaths) -> Result<u64> {
    let disks = paths.disks();
    let mut total = 0;
    for entry in std::fs::read_dir(&disks).doing("listing", &disks)? {
        let entry = entry.doing("listing", &disks)?;
        total += durable::allocated(&entry.metadata().doing("examining", entry.path())?);
    }
    Ok(total)
}
