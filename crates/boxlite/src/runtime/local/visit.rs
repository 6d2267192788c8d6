//! A box's files, whether or not it runs.

use boxlite_types::{Error, ErrorKind, Result};
use boxlite_vm::shim::{Outcome, ShimClient, wait_until_gone};

use super::Local;
use super::lifecycle::stop;
use crate::litebox::{self, Errand};

/// A guest that has the files of a box: the box itself, which runs, or one that was brought up for them alone.
pub(super) struct Visit {
    pub(super) client: ShimClient,
    errand: Option<Errand>,
}

impl Local {
    /// Finds or brings up a guest with the files of the box `id`. A box that does not run is held until the visit
    /// ends, so that nobody starts or removes it meanwhile, and rests all the same: its state, its logs and what is
    /// known of its last run stay as they are.
    ///
    /// # Errors
    /// As for a start; `Conflict` for a box that goes now that it has ended.
    pub(super) async fn visit(&self, id: &str) -> Result<Visit> {
        loop {
            // Held also where it runs: a start that is under way is over then, and its shim answers.
            let (held, images) = (self.hold(id).await?, self.images.clone());
            let client = self.client(&held.record);
            let errand = self.on_site(move |site| litebox::errand(site, &images, held)).await?;
            match (client.wait_up().await?, errand) {
                (true, errand) => return Ok(Visit { client, errand }),
                (false, Some(errand)) => return Err(no_guest(&client, &errand).await),
                // A box that was found running was only on its way out.
                (false, None) => wait_until_gone(client.paths()).await?,
            }
        }
    }
}

impl Visit {
    /// Returns when the guest that was brought up has gone, whoever ended it; never for a box that runs.
    pub(super) async fn guest_gone(&self) {
        let gone = match &self.errand {
            Some(errand) => wait_until_gone(&errand.held.paths).await.is_ok(),
            None => false,
        };
        if !gone {
            std::future::pending::<()>().await;
        }
    }

    /// Ends it: what was written into a box that rests is durable then.
    pub(super) async fn end(self) -> Result<()> {
        let Some(errand) = &self.errand else { return Ok(()) };
        stop(&self.client, 0).await?;
        match outcome(errand)? {
            Some(outcome) if outcome.flushed => Ok(()),
            _ => Err(no_guest(&self.client, errand).await),
        }
    }
}

fn outcome(errand: &Errand) -> Result<Option<Outcome>> {
    Outcome::read(&errand.held.paths, &errand.run)
}

/// Why there is no guest any more.
async fn no_guest(client: &ShimClient, errand: &Errand) -> Error {
    if let Err(error) = wait_until_gone(client.paths()).await {
        return error;
    }
    let outcome = match outcome(errand) {
        Ok(outcome) => outcome,
        Err(error) => return error,
    };
    let reason =
        outcome.as_ref().and_then(Outcome::failure).unwrap_or("it was ended before everything was written");
    let name = &errand.held.record.name;
    let message = format!("the guest that was brought up for the files of box {name} failed: {reason}");
    Error::new(ErrorKind::Io, message)
}
