//! The actions of the process beside a shim once the run has ended.

use std::time::Duration;

use boxlite_home::settings::SettingsVariables;
use boxlite_types::{Error, ErrorKind, Result};
use boxlite_vm::shim::Keeper;

use crate::litebox::{PendingRestart, Starter};
use crate::options::{MissingHome, RuntimeOptions};
use crate::runtime::Runtime;

/// The pause after an error that may pass grows from one to the other.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How often something is tried that fails with errors that may pass: for about an hour.
const ATTEMPTS: u32 = 64;

/// Waits for the end of the run that `keeper` keeps, calls `ended`, and looks after the box under the settings of the user who
/// started it. Blocks, until the box runs again or stays as it is.
///
/// # Errors
/// `NotFound` when the box was removed meanwhile; those of a start, except that it was refused.
pub fn keep(keeper: &Keeper, variables: SettingsVariables, ended: impl FnOnce()) -> Result<()> {
    // While the box still runs, so that nobody takes it for one that stays at rest before its restart is decided.
    let early = PendingRestart::begin(&keeper.paths());
    keeper.wait();
    ended();
    let pending = early.or_else(|_| PendingRestart::begin(&keeper.paths()))?;
    let starter: Starter = serde_json::from_value(keeper.starter().clone())
        .map_err(|error| Error::bug("what a keeper was told cannot be understood").because(error))?;
    let options = RuntimeOptions {
        missing_home: MissingHome::Refuse,
        assets: starter.assets,
        accel: starter.accel,
        variables,
        ..RuntimeOptions::new(keeper.home())
    };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let tokio = tokio.map_err(|error| Error::io("starting the runtime for", keeper.home(), error))?;
    tokio.block_on(async {
        let runtime = patiently(async || Runtime::local(options.clone())).await?;
        // Decided anew each time, so that a restart that was begun is not begun again.
        patiently(async || runtime.restart_after(keeper.id(), keeper.run()).await).await?;
        drop(pending);
        patiently(async || runtime.expire_after(keeper.id(), keeper.run()).await).await
    })
}

/// Carries `work` out, and does so again after errors that may pass: nobody else would restart the box.
async fn patiently<T>(work: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut pause = MIN_PAUSE;
    for _ in 1..ATTEMPTS {
        match work().await {
            Err(error) if may_pass(error.kind()) => {
                tracing::warn!(error = %error.chain(), "the box is looked after again in {} s", pause.as_secs());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            outcome => return outcome,
        }
    }
    work().await
}

/// Whether an error of this kind may be gone some time later, such as a full disk.
fn may_pass(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Io | ErrorKind::Busy | ErrorKind::ResourceExhausted | ErrorKind::Unavailable)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_error_that_passes_costs_time_and_no_restart() {
        let tries = Cell::new(0);
        let fail_until = |last: u32, kind: ErrorKind| {
            tries.set(0);
            let tries = &tries;
            patiently(async move || {
                tries.set(tries.get() + 1);
                if tries.get() <= last { Err(Error::new(kind, "the disk is full")) } else { Ok(tries.get()) }
            })
        };
        assert_eq!(fail_until(5, ErrorKind::Io).await.unwrap(), 6);
        assert_eq!(fail_until(5, ErrorKind::NotFound).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(tries.get(), 1, "a box that is gone is not waited for");
        assert!(fail_until(u32::MAX, ErrorKind::Busy).await.is_err());
        assert_eq!(tries.get(), ATTEMPTS);
    }
}
