//! Starting, stopping, waiting for and removing boxes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use boxlite_types::{
    BoxInfo, BoxRecord, Error, ErrorKind, ExecStatus, MainProcess, Phase, ProgressSink, RemoveOptions,
    Result, StopOptions,
};
use boxlite_vm::shim::{ShimClient, wait_until_gone};

use super::{Local, not_running};
use crate::litebox::{self, Held, Observed};
use crate::site::Site;

impl Local {
    pub(super) async fn start_box(&self, id: &str, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        loop {
            let (images, progress) = (self.images.clone(), Arc::clone(&progress));
            let held = self.hold(id).await?;
            let (record, launched) = self
                .on_site(move |site| {
                    let record = held.record.clone();
                    litebox::start(site, &images, held, progress.as_ref()).map(|launched| (record, launched))
                })
                .await?;
            let up = self.client(&record).wait_up().await?;
            if !up {
                wait_until_gone(&self.site.home.of_box(&record.id)).await?;
            }
            // A box that was found running and was only on its way out is started after all.
            if up || launched {
                return self.started(&record.id).await;
            }
        }
    }

    /// A box after its start. A guest that did not come up has an outcome that says why.
    async fn started(&self, id: &str) -> Result<BoxInfo> {
        let info = self.inspect_record(id).await?;
        match (&info.reason, info.exit_code) {
            (Some(reason), None) => {
                let message = format!("box {} did not come up: {reason}", info.name);
                Err(Error::new(ErrorKind::Io, message))
            }
            _ => Ok(info),
        }
    }

    /// Waits for the end of the present run, if there is one, and says how the last one ended.
    pub(super) async fn wait_for(&self, id: &str) -> Result<ExecStatus> {
        let record = self.find(id).await?;
        if let Observed::Running { .. } = self.observe(&record).await?
            && let Some(status) = self.client(&record).wait().await?
        {
            return Ok(ExecStatus { code: status.shell_code(), reason: None });
        }
        let observed = match self.find(&record.id).await {
            Ok(record) => self.observe(&record).await,
            Err(error) => Err(error),
        };
        // Somebody who removes the box meanwhile takes its outcome away with it: looked at last, the record tells.
        match self.find(&record.id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Ok(ExecStatus { code: KILLED, reason: Some("the box was removed".into()) })
            }
            Err(error) => Err(error),
            Ok(record) => match observed? {
                Observed::Running { .. } => {
                    Err(Error::conflict(format!("box {} was started again", record.name)))
                }
                Observed::Resting(phase) => ended(&record, phase),
            },
        }
    }

    pub(super) async fn stop_box(&self, id: &str, options: StopOptions) -> Result<BoxInfo> {
        let record = self.find(id).await?;
        let seconds = options.timeout.unwrap_or(record.options.stop_timeout);
        let client = self.client(&record);
        // At first without the box's hold, so that a second, more urgent stop need not wait for this one.
        let mut held = self.hold_ending(&record.id, Order::stop(seconds)).await?;
        if let Observed::Running { .. } = self.observe(&held.record).await? {
            stop(&client, seconds).await?;
        }
        self.on_site(move |site| {
            held.settle(site)?;
            litebox::describe(&site.home, &held.record)
        })
        .await
    }

    pub(super) async fn kill_main(&self, id: &str, signal: i32) -> Result<()> {
        let record = self.running(id).await?;
        self.client(&record).kill(signal).await
    }

    pub(super) async fn remove_box(&self, id: &str, options: RemoveOptions) -> Result<()> {
        let held = if options.force {
            let wanted = id.to_owned();
            let id = self.on_site(move |site| site.store.find_box_id(&wanted)).await?;
            self.hold_ending(&id, Order::KILL).await
        } else {
            self.hold(id).await
        };
        let held = match held {
            Ok(held) => held,
            Err(error) if error.kind() == ErrorKind::Corrupt && options.force => {
                let wanted = id.to_owned();
                let removed =
                    move |site: &Arc<Site>| litebox::remove_damaged(site, &site.store.find_box_id(&wanted)?);
                return self.on_site(removed).await;
            }
            Err(error) => return Err(error),
        };
        if let Observed::Running { .. } = self.observe(&held.record).await? {
            if !options.force {
                let message =
                    format!("box {} is running; stop it first, or remove it with force", held.record.name);
                return Err(Error::conflict(message));
            }
            Order::KILL.carry_out(&self.client(&held.record)).await?;
        }
        self.on_site(move |site| litebox::remove(site, &held)).await
    }

    /// Holds the box that `wanted` names, waiting while others change its state. Who waits takes up no thread, else
    /// many who want one box would keep those from all others; and who no longer waits is not in the way.
    pub(super) async fn hold(&self, wanted: &str) -> Result<Held> {
        let began = Instant::now();
        loop {
            if let Some(held) = self.try_hold(wanted).await? {
                self.end_forsaken(&held).await?;
                return Ok(held);
            }
            pause(began).await;
        }
    }

    /// Holds the box `id`, ending until then whatever of it runs: a copy's guest, whose holder may wait for something
    /// else, too.
    async fn hold_ending(&self, id: &str, order: Order) -> Result<Held> {
        let client = ShimClient::new(self.site.home.of_box(id));
        let began = Instant::now();
        loop {
            if client.listens().await? {
                order.carry_out(&client).await?;
            }
            if let Some(held) = self.try_hold(id).await? {
                return Ok(held);
            }
            pause(began).await;
        }
    }

    async fn try_hold(&self, wanted: &str) -> Result<Option<Held>> {
        let wanted = wanted.to_owned();
        self.on_site(move |site| Held::try_take(site, &site.store.find_box(&wanted)?.id)).await
    }

    /// Ends what a copy that was killed has left running of a box that rests.
    async fn end_forsaken(&self, held: &Held) -> Result<()> {
        if let Observed::Running { .. } = self.observe(&held.record).await? {
            return Ok(());
        }
        let client = self.client(&held.record);
        if client.listens().await? { stop(&client, 0).await } else { Ok(()) }
    }

    pub(super) async fn inspect_record(&self, id: &str) -> Result<BoxInfo> {
        let id = id.to_owned();
        self.on_site(move |site| litebox::describe(&site.home, &site.store.find_box(&id)?)).await
    }

    pub(super) async fn find(&self, id: &str) -> Result<BoxRecord> {
        let id = id.to_owned();
        self.on_site(move |site| site.store.find_box(&id)).await
    }

    pub(super) async fn observe(&self, record: &BoxRecord) -> Result<Observed> {
        let record = record.clone();
        self.on_site(move |site| Observed::of(&site.home, &record)).await
    }

    /// The record of a box that runs.
    ///
    /// # Errors
    /// `Conflict` when it does not.
    pub(super) async fn running(&self, id: &str) -> Result<BoxRecord> {
        let record = self.find(id).await?;
        match self.observe(&record).await? {
            Observed::Running { .. } => Ok(record),
            Observed::Resting(_) => Err(not_running(&self.inspect_record(&record.id).await?)),
        }
    }

    pub(super) fn client(&self, record: &BoxRecord) -> ShimClient {
        ShimClient::new(self.site.home.of_box(&record.id))
    }
}

/// Between two tries of somebody who has waited since `began`.
async fn pause(began: Instant) {
    let pause = began.elapsed() / 8;
    tokio::time::sleep(pause.clamp(Duration::from_millis(1), Duration::from_millis(50))).await;
}

/// Stops a box in order; one whose shim does not answer long after its time is ended by force.
pub(super) async fn stop(client: &ShimClient, seconds: u32) -> Result<()> {
    Order::stop(seconds).carry_out(client).await
}

/// How a box is to end.
#[derive(Debug, Clone, Copy)]
struct Order {
    signal: Option<i32>,
    timeout_ms: u64,
    /// After that much without an answer its shim is killed.
    patience: Duration,
}

impl Order {
    /// For a box whose disk is going to be removed: at once.
    const KILL: Self = Self { signal: Some(libc::SIGKILL), timeout_ms: 0, patience: UNANSWERED };

    fn stop(seconds: u32) -> Self {
        let patience = Duration::from_secs(seconds.into()) + FLUSHING;
        Self { signal: None, timeout_ms: u64::from(seconds) * 1000, patience }
    }

    async fn carry_out(self, client: &ShimClient) -> Result<()> {
        match tokio::time::timeout(self.patience, client.stop(self.signal, self.timeout_ms)).await {
            Ok(stopped) => stopped,
            Err(_) => client.kill_shim().await,
        }
    }
}

/// How a run ended, as an exit status.
pub(super) fn ended(record: &BoxRecord, phase: Phase) -> Result<ExecStatus> {
    match phase {
        Phase::Created => Err(Error::conflict(format!("box {} was never started", record.name))),
        Phase::Started { .. } => Err(Error::bug("a resting box is recorded as started")),
        Phase::Ended { ending, .. } => {
            let unknown = if record.options.main == MainProcess::Idle { 0 } else { KILLED };
            Ok(ExecStatus { code: ending.exit_code.unwrap_or(unknown), reason: None })
        }
        Phase::Failed { exit_code, reason, .. } => {
            Ok(ExecStatus { code: exit_code.unwrap_or(BOXLITE_FAILED), reason: Some(reason) })
        }
    }
}

/// The exit status of a main process whose end nobody saw, because its machine was taken away from under it.
const KILLED: i32 = 137;

/// How long, after the stop's own timeout, a guest and its QEMU may take to flush; the shim itself ends them earlier.
const FLUSHING: Duration = Duration::from_secs(90);

/// How long a forced removal waits for the shim's answer.
const UNANSWERED: Duration = Duration::from_secs(10);

/// Docker's exit status for a run that the runtime itself, and not the command, broke.
const BOXLITE_FAILED: i32 = 125;
