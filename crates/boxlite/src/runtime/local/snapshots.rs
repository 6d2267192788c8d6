//! Snapshots of a box, running or at rest.

use std::path::PathBuf;
use std::time::Duration;

use boxlite_home::EventLog;
use boxlite_home::durable::fault;
use boxlite_types::{
    BoxInfo, Doing, Error, ErrorKind, EventAction, HomeEvent, RestoreOptions, Result, Snapshot,
    SnapshotOptions, StopOptions,
};

use super::Local;
use crate::litebox::{self, BoxGuard};
use crate::runtime::operations::{BoxLifecycle, BoxSnapshots};

/// After this a guest thaws by itself: its host has gone, or is far too busy.
const MAX_FREEZE: Duration = Duration::from_secs(5);

impl BoxSnapshots for Local {
    async fn create_snapshot(&self, id: &str, options: SnapshotOptions) -> Result<Snapshot> {
        let guard = self.acquire(id).await?;
        let is_running = self.is_running(&guard.record).await?;
        let admitted = self.in_context(move |context| {
            let mut guard = guard;
            guard.settle(context)?;
            let name = litebox::snapshot::admit(context, &guard, options.name.as_deref())?;
            Ok((guard, name))
        });
        let (mut guard, name) = admitted.await?;
        let (box_id, box_name) = (guard.record.id.clone(), guard.record.name.clone());
        let snapshot = if is_running {
            self.refuse_paused(&guard.record, true).await?;
            let (mut guard, base, frozen) = self.switch_disk(guard).await?;
            let frozen_us = Some(frozen.as_micros() as u64);
            self.in_context(move |context| {
                litebox::snapshot::record(context, &mut guard, name, Some(&base), frozen_us)
            })
            .await?
        } else {
            let taken =
                self.in_context(move |context| litebox::snapshot::take_at_rest(context, &mut guard, name));
            taken.await?
        };
        let event = HomeEvent::of_box(EventAction::Snapshot, &box_id, Some(&box_name));
        let event = event.with("snapshot", &snapshot.name);
        let paused = snapshot.frozen_us.map(|us| format!("{:.1}", us as f64 / 1000.0));
        EventLog::of(&self.context.home).note(&match paused {
            Some(paused) => event.with("paused_ms", &paused),
            None => event,
        });
        Ok(snapshot)
    }

    async fn snapshots(&self, id: &str) -> Result<Vec<Snapshot>> {
        let record = self.find(id).await?;
        self.in_context(move |context| Ok(litebox::snapshot::list(context, &record))).await
    }

    async fn restore_snapshot(&self, id: &str, name: &str, options: RestoreOptions) -> Result<BoxInfo> {
        let record = self.find(id).await?;
        litebox::snapshot::check_exists(&record, name)?;
        if options.force && self.is_running(&record).await? {
            // The outcome of the run does not matter: what it wrote is given up.
            self.stop(&record.id, StopOptions::default())
                .await
                .map(drop)
                .or_else(|error| if error.kind() == ErrorKind::Io { Ok(()) } else { Err(error) })?;
        }
        let guard = self.acquire(&record.id).await?;
        if self.is_running(&guard.record).await? {
            let message = format!(
                "box {} is running; stop it before it goes back to a snapshot, or have it stopped with force",
                record.name
            );
            return Err(Error::conflict(message));
        }
        let name = name.to_owned();
        let restored = self.in_context(move |context| {
            let mut guard = guard;
            guard.settle(context)?;
            litebox::snapshot::restore(context, &guard, &name)?;
            litebox::describe(&context.home, &guard.record)
        });
        let info = restored.await?;
        self.note(EventAction::Restore, &info.id, &info.name);
        Ok(info)
    }

    async fn remove_snapshot(&self, id: &str, name: &str) -> Result<()> {
        let mut guard = self.acquire(id).await?;
        let (box_id, box_name) = (guard.record.id.clone(), guard.record.name.clone());
        let name = name.to_owned();
        self.in_context(move |context| litebox::snapshot::remove(context, &mut guard, &name)).await?;
        self.note(EventAction::RemoveSnapshot, &box_id, &box_name);
        Ok(())
    }
}

impl Local {
    /// Puts the running box on a new overlay while its guest stands still; returns the base that it leaves behind, and for
    /// how long the guest stood still.
    ///
    /// The new overlay is durable under the box's name before the guest is asked for anything: see
    /// [`litebox::snapshot`].
    pub(super) async fn switch_disk(&self, guard: BoxGuard) -> Result<(BoxGuard, PathBuf, Duration)> {
        let client = self.client(&guard.record);
        let name = guard.record.name.clone();
        let ended = || Error::conflict(format!("box {name} ended while a snapshot of it was taken"));
        let status = client.status().await?.ok_or_else(ended)?;
        let active = status.disk.ok_or_else(|| {
            Error::unsupported(format!(
                "box {name} was started by a boxlite without snapshots of running boxes; stop it first, or start it again"
            ))
        })?;
        // All that can be done before the guest stands still is done by then.
        let prepared = self.in_context(move |context| {
            let base = litebox::snapshot::prepare_running(context, &guard, active)?;
            Ok((guard, base))
        });
        let (guard, base) = prepared.await?;
        let switched = async {
            let switch = client.prepare_switch().await?;
            fault::point("snapshot.prepared").doing("taking a snapshot of", &name)?;
            switch.switch(MAX_FREEZE).await
        };
        let thaw = match switched.await {
            // This says more than the failure of the exchange.
            Err(_) if !self.is_running(&guard.record).await? => return Err(ended()),
            switched => switched?,
        };
        if thaw.expired {
            let message = format!(
                "box {name} did not stand still until its disk was switched ({:.1} s); try again when its host is less busy",
                thaw.frozen.as_secs_f64()
            );
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        self.metrics.guest_stood_still(thaw.frozen);
        Ok((guard, base, thaw.frozen))
    }
}
