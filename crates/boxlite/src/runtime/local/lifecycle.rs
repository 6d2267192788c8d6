//! Starting, stopping, waiting for and removing boxes.

use std::sync::Arc;

use super::{Local, not_running};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ProgressSink, blocking};
use crate::litebox::{self, BoxInfo, BoxRecord, Held, Observed, Phase};
use crate::runtime::{ExecStatus, RemoveOptions, StopOptions};
use crate::shim::{ShimClient, wait_until_gone};

impl Local {
    pub(super) async fn start_box(&self, id: &str, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        let (id, images) = (id.to_owned(), self.images.clone());
        let started = self
            .on_site(move |site| {
                let held = Held::take(site, &id)?;
                let record = held.record.clone();
                litebox::start(site, &images, held, progress.as_ref())?;
                Ok(record)
            })
            .await?;
        // A guest that does not come up has an outcome that says why.
        if !self.client(&started).wait_up().await? {
            wait_until_gone(&self.site.home.of_box(&started.id)).await?;
        }
        let info = self.inspect_record(&started.id).await?;
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
        if let Observed::Running { .. } = self.observe(&record).await? {
            self.client(&record).wait().await?;
        }
        match self.observe(&self.find(&record.id).await?).await? {
            Observed::Running { .. } => {
                Err(Error::conflict(format!("box {} was started again", record.name)))
            }
            Observed::Resting(phase) => ended(&record, phase),
        }
    }

    pub(super) async fn stop_box(&self, id: &str, options: StopOptions) -> Result<BoxInfo> {
        let mut held = self.hold(id).await?;
        let (site, observed) = (Arc::clone(&self.site), held.settle(&self.site)?);
        if let Observed::Running { .. } = observed {
            let seconds = options.timeout.unwrap_or(held.record.options.stop_timeout);
            self.client(&held.record).stop(None, u64::from(seconds) * 1000).await?;
        }
        blocking(move || {
            held.settle(&site)?;
            litebox::describe(&site.home, &held.record)
        })
        .await
    }

    pub(super) async fn kill_main(&self, id: &str, signal: i32) -> Result<()> {
        let record = self.running(id).await?;
        self.client(&record).kill(signal).await
    }

    pub(super) async fn remove_box(&self, id: &str, options: RemoveOptions) -> Result<()> {
        let held = match self.hold(id).await {
            Ok(held) => held,
            Err(error) if error.kind() == ErrorKind::Corrupt && options.force => {
                let record = self.find(id).await?;
                return self.on_site(move |site| site.store.delete_box(&record.id)).await;
            }
            Err(error) => return Err(error),
        };
        if let Observed::Running { .. } = self.observe(&held.record).await? {
            if !options.force {
                let message =
                    format!("box {} is running; stop it first, or remove it with force", held.record.name);
                return Err(Error::conflict(message));
            }
            self.client(&held.record).stop(Some(libc::SIGKILL), 0).await?;
        }
        self.on_site(move |site| litebox::remove(site, &held)).await
    }

    async fn hold(&self, id: &str) -> Result<Held> {
        let id = id.to_owned();
        self.on_site(move |site| Held::take(site, &id)).await
    }

    async fn inspect_record(&self, id: &str) -> Result<BoxInfo> {
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

/// How a run ended, as an exit status.
pub(super) fn ended(record: &BoxRecord, phase: Phase) -> Result<ExecStatus> {
    match phase {
        Phase::Created => Err(Error::conflict(format!("box {} was never started", record.name))),
        Phase::Started { .. } => Err(Error::bug("a resting box is recorded as started")),
        Phase::Ended { ending, .. } => Ok(ExecStatus { code: ending.exit_code.unwrap_or(0), reason: None }),
        Phase::Failed { exit_code, reason, .. } => {
            Ok(ExecStatus { code: exit_code.unwrap_or(BOXLITE_FAILED), reason: Some(reason) })
        }
    }
}

/// Docker's exit status for a run that the runtime itself, and not the command, broke.
const BOXLITE_FAILED: i32 = 125;
