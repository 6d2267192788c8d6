//! Starting, stopping, waiting for and removing one box.
//!
//! # Protocol
//! A box runs in a process of its own, the shim. The record says which run was begun last; the shim's lock says
//! whether that run still goes on, and its outcome file how it ended. Operations therefore observe a box before they
//! act, and look again afterwards: another process may end, start or remove it at any moment.
//!
//! # Locking
//! Every change of a box holds its [`BoxGuard`]. A start gives the guard back before it waits for the guest, so a
//! guest that comes up slowly never keeps a `stop` out. A stop ends the guest *before* it waits for the guard: the
//! guard's holder may be a copy that ends only with its guest, and a second, more urgent stop must not queue behind the
//! first.

use std::sync::Arc;
use std::time::Duration;

use boxlite_types::{
    BoxInfo, BoxRecord, BoxState, Consumption, Error, ErrorKind, EventAction, ExitStatus, PastProbe,
    PauseCause, Phase, ProgressSink, RemoveOptions, RestartPolicy, Restarts, Result, StartStage, StopOptions,
    UpdateOptions,
};
use boxlite_vm::shim::{
    DiskQuota, LOST_WRITES, Outcome, OutcomeCause, UserKernel, read_pause, wait_until_gone,
};
use jiff::Timestamp;

use super::stop::StopSequence;
use super::{Local, LocalContext, exit, launches};
use crate::litebox::{self, Attendance, BoxGuard, Observed, StartWatch, StartedBox};
use crate::runtime::operations::BoxLifecycle;

/// How often a start boots a guest that another boot may help.
const MAX_BOOTS: u32 = 3;

/// How long a shim may take to say how its box fares.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a guest may take to report what it consumes.
const METRICS_TIMEOUT: Duration = Duration::from_secs(3);

impl BoxLifecycle for Local {
    async fn inspect(&self, id: &str) -> Result<BoxInfo> {
        let mut info = self.describe(id).await?;
        if info.state == BoxState::Running {
            let record = self.find(&info.id).await?;
            let status = async { self.client(&record).status().await };
            let status = tokio::time::timeout(STATUS_TIMEOUT, status).await;
            if let Some(status) = status.ok().and_then(Result::ok).flatten() {
                info.network_usage = status.network;
                info.guest_start = status.guest_start;
                if let Some(health) = &mut info.health {
                    health.log = status.probes.into_iter().map(PastProbe::from).collect();
                }
            }
        }
        Ok(info)
    }

    async fn consumption(&self, id: &str) -> Result<Consumption> {
        let record = self.find(id).await?;
        let info = self.describe(&record.id).await?;
        let client = self.client(&record);
        let guest = async {
            let report = tokio::time::timeout(METRICS_TIMEOUT, client.metrics());
            if info.state == BoxState::Running { report.await.ok().and_then(Result::ok) } else { None }
        };
        let network = async {
            let status = tokio::time::timeout(STATUS_TIMEOUT, client.status());
            let status = if info.state.is_up() { status.await.ok()?.ok()? } else { None };
            status.and_then(|status| status.network)
        };
        let (guest, network) = tokio::join!(guest, network);
        Ok(Consumption {
            id: info.id,
            name: info.name,
            state: info.state,
            memory_limit: info.options.memory,
            network,
            disk_allocated: info.disk_allocated,
            guest,
            start: self.metrics.last_start(&record.id),
        })
    }

    async fn start(&self, id: &str, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        let record = self.find(id).await?;
        let _attending = self.attend(&record).await?;
        // The box itself is wanted, whatever its time.
        self.expire(Some(&record.id)).await?;
        let watch = Arc::new(StartWatch::start());
        let started = self.start_until_settled(id, progress, &watch).await;
        self.metrics.start_ended(&record.id, &started, &watch);
        if let Some(traces) = &self.traces {
            traces.start_ended(&watch, (&record.id, &record.name), started.as_ref().err());
        }
        if let Ok(info) = &started {
            self.note(EventAction::Start, &info.id, &info.name);
        }
        started
    }

    async fn wait(&self, id: &str) -> Result<ExitStatus> {
        let record = self.find(id).await?;
        let _attending = self.attend(&record).await?;
        if self.is_running(&record).await?
            && let Some(exit) = self.client(&record).wait().await?
        {
            return Ok(exit.into());
        }
        self.recorded_exit(&record.id).await
    }

    async fn stop(&self, id: &str, options: StopOptions) -> Result<BoxInfo> {
        let record = self.find(id).await?;
        let _attending = self.attend(&record).await?;
        let was_running = self.is_running(&record).await?;
        let seconds = options.timeout.unwrap_or(record.options.stop_timeout);
        let sequence = StopSequence::graceful(seconds);
        let mut guard = self.acquire_ending(&record.id, sequence).await?;
        if self.is_running(&guard.record).await? {
            sequence.run(&self.client(&guard.record)).await?;
        }
        let stopped = self.in_context(move |context| {
            guard.settle(context)?;
            if was_running {
                record_killed(&mut guard, context)?;
            }
            litebox::halt(context, &mut guard)?;
            litebox::describe(&context.home, &guard.record)
        });
        let info = stopped.await?;
        self.metrics.box_stopped();
        if was_running {
            self.note(EventAction::Stop, &info.id, &info.name);
        }
        match &info.reason {
            Some(reason) if was_running && info.state == BoxState::Failed => {
                let message = format!("box {} has ended, but not in order: {reason}", info.name);
                Err(Error::new(ErrorKind::Io, message))
            }
            _ => Ok(info),
        }
    }

    async fn update(&self, id: &str, options: UpdateOptions) -> Result<BoxInfo> {
        let (renamed, quota) = (options.name.is_some(), options.disk_quota.map(|quota| quota.map(DiskQuota)));
        let mut guard = self.acquire(id).await?;
        let recorded = self.in_context(move |context| {
            let running = litebox::update(context, &mut guard, &options)?;
            Ok((guard, running))
        });
        // Still guarded, so that the shim hears of two changes in the order in which they were recorded.
        let (guard, running) = recorded.await?;
        if let (true, Some(quota)) = (running, quota) {
            match self.client(&guard.record).set_disk_quota(quota).await {
                // It has ended meanwhile, and its next run begins with the new quota.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                told => told?,
            }
        }
        let BoxRecord { id, name, .. } = &guard.record;
        self.note(if renamed { EventAction::Rename } else { EventAction::Update }, id, name);
        self.describe(id).await
    }

    async fn pause(&self, id: &str) -> Result<BoxInfo> {
        self.set_paused(id, true).await
    }

    async fn unpause(&self, id: &str) -> Result<BoxInfo> {
        self.set_paused(id, false).await
    }

    async fn kill(&self, id: &str, signal: i32) -> Result<()> {
        let record = self.find_running(id).await?;
        self.signal_main(&record, signal).await
    }

    async fn remove(&self, id: &str, options: RemoveOptions) -> Result<()> {
        // The shim of a box that removes itself waits, instead of taking the box away from here. A damaged box has none.
        let _attending = match self.find(id).await {
            Ok(record) => self.attend(&record).await.ok(),
            Err(_) => None,
        };
        let guard = match self.acquire_for_removal(id, options.force).await {
            Err(error) if options.force && error.kind() == ErrorKind::Corrupt => {
                return self.remove_damaged(id).await;
            }
            acquired => acquired?,
        };
        if self.is_running(&guard.record).await? {
            if !options.force {
                let name = &guard.record.name;
                let message = format!("box {name} is running; stop it first, or remove it with force");
                return Err(Error::conflict(message));
            }
            StopSequence::KILL.run(&self.client(&guard.record)).await?;
        }
        self.in_context(move |context| litebox::remove(context, &guard)).await
    }

    async fn remove_ended(&self, id: &str) -> Result<()> {
        let record = self.find(id).await?;
        self.in_context(move |context| Attendance::wait_for_end(&context.home.of_box(&record.id))).await?;
        let guard = self.acquire(id).await?;
        self.in_context(move |context| {
            if litebox::ended(context, &guard)? { litebox::remove(context, &guard) } else { Ok(()) }
        })
        .await
    }

    async fn restart_after(&self, id: &str, run: &str) -> Result<()> {
        self.restart_ended(id, run).await
    }

    async fn expire_after(&self, id: &str, run: &str) -> Result<()> {
        self.remove_in_time(id, run).await
    }
}

/// Completes the record of a box that was stopped and whose shim could not say how: it was killed, with its guest.
fn record_killed(guard: &mut BoxGuard, context: &LocalContext) -> Result<()> {
    let Phase::Failed { started_at, at: None, exit_code: None, reason } = guard.record.phase.clone() else {
        return Ok(());
    };
    let reason = format!("{reason}; {LOST_WRITES}");
    let (at, exit_code) = (Some(Timestamp::now()), Some(exit::KILLED));
    guard.enter(context, Phase::Failed { started_at, at, exit_code, reason })
}

/// The steps of a start.
impl Local {
    /// Starts the box and waits for its guest, again where the box was found running but was only shutting down.
    async fn start_until_settled(
        &self,
        id: &str,
        progress: Arc<dyn ProgressSink>,
        watch: &Arc<StartWatch>,
    ) -> Result<BoxInfo> {
        let mut boots = 0;
        loop {
            let mut guard = self.acquire(id).await?;
            if self.is_running(&guard.record).await? {
                // A guest that stands still for its user would answer when that lets it go on.
                self.refuse_paused(&guard.record, false).await?;
            } else {
                // The user's start begins a new series of restarts, and is recorded with the run.
                guard.record.restarts = Restarts::default();
            }
            let (record, launched) = self.launch(guard, Arc::clone(&progress), watch).await?;
            let up = watch.time_waiting(StartStage::Guest, self.client(&record).wait_up()).await?;
            if !up {
                wait_until_gone(&self.context.home.of_box(&record.id)).await?;
                boots += 1;
                if boots < MAX_BOOTS && self.may_boot_again(&record.id).await? {
                    tracing::warn!(name = record.name, "the guest did not come up, and is booted again");
                    continue;
                }
            }
            if up || launched.is_some() {
                let described = self.describe_started(&record.id).await;
                return match launched.and_then(|started| started.trial) {
                    Some(kernel) => self.conclude_trial(kernel, &record, up, described).await,
                    None => described,
                };
            }
        }
    }

    /// Whether another boot of the box, whose last one failed, may well succeed.
    async fn may_boot_again(&self, id: &str) -> Result<bool> {
        let record = self.find(id).await?;
        let Phase::Started { run, .. } = record.phase else { return Ok(false) };
        let outcome =
            self.in_context(move |context| Outcome::read(&context.home.of_box(&record.id), &run)).await?;
        Ok(matches!(outcome, Some(Outcome { end: OutcomeCause::BootFailed { may_retry: true, .. }, .. })))
    }

    /// Keeps what came of a kernel's trial, and names the kernel where that failed.
    async fn conclude_trial(
        &self,
        kernel: UserKernel,
        record: &BoxRecord,
        up: bool,
        described: Result<BoxInfo>,
    ) -> Result<BoxInfo> {
        let id = record.id.clone();
        self.in_context(move |context| match described {
            Err(error) if !up => Err(litebox::reject_kernel(&kernel, &context.home.of_box(&id), &error)),
            described => {
                if up {
                    litebox::accept_kernel(&kernel);
                }
                described
            }
        })
        .await
    }

    /// Spawns the box's shim, and gives the guard back; `None` when the box was running already.
    pub(super) async fn launch(
        &self,
        guard: BoxGuard,
        progress: Arc<dyn ProgressSink>,
        watch: &Arc<StartWatch>,
    ) -> Result<(BoxRecord, Option<StartedBox>)> {
        let (context, images) = (Arc::clone(&self.context), self.images.clone());
        let watch = Arc::clone(watch);
        launches::launch(move || {
            let record = guard.record.clone();
            let launched = litebox::start(&context, &images, guard, progress.as_ref(), &watch)?;
            Ok((record, launched))
        })
        .await
    }

    /// Describes a box after its start. A guest that did not come up has left an outcome that says why.
    async fn describe_started(&self, id: &str) -> Result<BoxInfo> {
        let info = self.describe(id).await?;
        match (&info.reason, info.exit_code) {
            // One that did not come up may be about to be restarted already.
            (Some(reason), None) if matches!(info.state, BoxState::Failed | BoxState::Restarting) => {
                let message = format!("box {} did not come up: {reason}", info.name);
                Err(Error::new(ErrorKind::Io, message))
            }
            _ => Ok(info),
        }
    }
}

impl Local {
    /// Pauses the running box for its user, or lets it go on as far as the user is concerned.
    async fn set_paused(&self, id: &str, paused: bool) -> Result<BoxInfo> {
        let record = self.find_running(id).await?;
        let info = self.describe(&record.id).await?;
        let by_user = info.pause.as_ref().is_some_and(|pause| pause.cause == PauseCause::User);
        if by_user == paused {
            let name = &info.name;
            return Err(Error::conflict(match &info.reason {
                _ if paused => format!("box {name} is paused already"),
                Some(reason) if info.state == BoxState::Paused => {
                    format!("box {name} is not paused by its user, but: {reason}")
                }
                _ => format!("box {name} is not paused"),
            }));
        }
        self.client(&record).set_paused(paused).await?;
        self.describe(&record.id).await
    }

    /// Refuses what a box cannot do that its user has paused.
    ///
    /// # Errors
    /// `Conflict` where that is so; with `whatever_pauses`, also as [`BoxInfo::refuse_while_paused`].
    pub(super) async fn refuse_paused(&self, record: &BoxRecord, whatever_pauses: bool) -> Result<()> {
        let Phase::Started { run, .. } = &record.phase else { return Ok(()) };
        let (paths, run) = (self.context.home.of_box(&record.id), run.clone());
        let pause = self.in_context(move |_| Ok(read_pause(&paths, &run).unwrap_or(None))).await?;
        let Some(pause) = pause else { return Ok(()) };
        if whatever_pauses || pause.cause == PauseCause::User {
            self.describe(&record.id).await?.refuse_while_paused()?;
        }
        Ok(())
    }
}

impl Local {
    /// Sends a signal to the main process of the running box, for its user: one that ends it ends its restarts as well.
    pub(super) async fn signal_main(&self, record: &BoxRecord, signal: i32) -> Result<()> {
        let stop_signal = boxlite_types::stop_signal(&record.options, &record.image_config)?;
        if record.options.restart != RestartPolicy::No && (signal == libc::SIGKILL || signal == stop_signal) {
            // Recorded first: the run may be over before this call is.
            let mut guard = self.acquire(&record.id).await?;
            self.in_context(move |context| litebox::halt(context, &mut guard)).await?;
        }
        let client = self.client(record);
        match client.kill(signal).await {
            // A shim of another version takes no request; its guest can still be killed with it.
            Err(error) if signal == libc::SIGKILL && error.kind() == ErrorKind::Unsupported => {
                client.kill_shim().await
            }
            sent => sent,
        }
    }
}

/// The steps of a wait.
impl Local {
    /// Returns how the last run of the box `id` ended, by its record and outcome.
    async fn recorded_exit(&self, id: &str) -> Result<ExitStatus> {
        let observed = match self.find(id).await {
            Ok(record) => self.observe(&record).await,
            Err(error) => Err(error),
        };
        // A removal takes the outcome away before the record can be read: only a record that is still there *after* the
        // observation vouches for it.
        match self.find(id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(exit::of_removed_box()),
            Err(error) => Err(error),
            Ok(record) => match observed? {
                Observed::Running { .. } => {
                    Err(Error::conflict(format!("box {} was started again", record.name)))
                }
                Observed::Resting(phase) => exit::of_phase(&record, phase),
            },
        }
    }
}

/// The steps of a removal.
impl Local {
    /// Acquires the box that `wanted` names; with `force`, anything of it that runs is ended first.
    async fn acquire_for_removal(&self, wanted: &str, force: bool) -> Result<BoxGuard> {
        if !force {
            return self.acquire(wanted).await;
        }
        let wanted = wanted.to_owned();
        let id = self.in_context(move |context| context.store.find_box_id(&wanted)).await?;
        self.acquire_ending(&id, StopSequence::KILL).await
    }

    /// Removes a box whose record cannot be read or whose directory is missing.
    async fn remove_damaged(&self, wanted: &str) -> Result<()> {
        let wanted = wanted.to_owned();
        self.in_context(move |context| litebox::remove_damaged(context, &context.store.find_box_id(&wanted)?))
            .await
    }
}
