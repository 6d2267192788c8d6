//! A box's files, whether or not it runs.
//!
//! # Protocol
//! Files are reached through a guest. A running box has one. For a box that is not running, one is booted without a
//! main process, ports or a record of it: a *maintenance boot*. The box counts as stopped meanwhile: its state, its
//! logs and the outcome of its last run do not change.
//!
//! # Locking
//! The [`MaintenanceBoot`] keeps the box's guard until the guest has been stopped and flushed, so nobody starts or
//! removes the box under it. `stop` and `rm --force` end the guest without the guard. A guest that loses its client
//! ends by itself, and the next process that acquires the box ends it too.

use std::sync::Arc;

use boxlite_types::{Error, ErrorKind, Result};
use boxlite_vm::shim::{Outcome, ShimClient, wait_until_gone};

use super::stop::StopSequence;
use super::{Local, launches};
use crate::litebox::{self, MaintenanceBoot};

/// A guest with the files of a box: the running box itself, or one that was booted for maintenance.
pub(super) struct FileSession {
    pub(super) client: ShimClient,
    boot: Option<MaintenanceBoot>,
}

impl Local {
    /// Finds or boots a guest with the files of the box `id`; with `reads_only`, at any free space.
    ///
    /// # Errors
    /// As for a start; `Conflict` for a box that has exited and is being removed.
    pub(super) async fn open_files(&self, id: &str, reads_only: bool) -> Result<FileSession> {
        loop {
            // Taken even where the box runs: with it, a start that was under way has finished, and its shim answers.
            let (guard, images) = (self.acquire(id).await?, self.images.clone());
            let client = self.client(&guard.record);
            let context = Arc::clone(&self.context);
            let boot =
                launches::launch(move || litebox::boot_for_maintenance(&context, &images, guard, reads_only))
                    .await?;
            match (client.wait_up().await?, boot) {
                (true, boot) => return Ok(FileSession { client, boot }),
                (false, Some(boot)) => return Err(why_gone(&client, &boot).await),
                // The box was found running, but was only shutting down.
                (false, None) => wait_until_gone(client.paths()).await?,
            }
        }
    }
}

impl FileSession {
    /// Returns when the maintenance guest has ended, for any reason; never for a running box.
    pub(super) async fn guest_gone(&self) {
        let gone = match &self.boot {
            Some(boot) => wait_until_gone(&boot.guard.paths).await.is_ok(),
            None => false,
        };
        if !gone {
            std::future::pending::<()>().await;
        }
    }

    /// Closes the session; what was written into a box that is not running is durable then.
    pub(super) async fn close(self) -> Result<()> {
        let Some(boot) = &self.boot else { return Ok(()) };
        StopSequence::FLUSH.run(&self.client).await?;
        match outcome(boot)? {
            Some(outcome) if outcome.flushed => Ok(()),
            _ => Err(why_gone(&self.client, boot).await),
        }
    }
}

fn outcome(boot: &MaintenanceBoot) -> Result<Option<Outcome>> {
    Outcome::read(&boot.guard.paths, &boot.run)
}

/// Why the maintenance guest is gone.
async fn why_gone(client: &ShimClient, boot: &MaintenanceBoot) -> Error {
    if let Err(error) = wait_until_gone(client.paths()).await {
        return error;
    }
    let outcome = match outcome(boot) {
        Ok(outcome) => outcome,
        Err(error) => return error,
    };
    let reason =
        outcome.as_ref().and_then(Outcome::failure).unwrap_or("it was ended before everything was written");
    let name = &boot.guard.record.name;
    let message = format!("the guest that was brought up for the files of box {name} failed: {reason}");
    Error::new(ErrorKind::Io, message)
}
