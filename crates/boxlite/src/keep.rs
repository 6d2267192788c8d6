//! What the process beside a shim does once the run has ended.

use boxlite_home::settings::SettingsVariables;
use boxlite_types::{Error, Result};
use boxlite_vm::shim::Keeper;

use crate::litebox::{PendingRestart, Starter};
use crate::options::{MissingHome, RuntimeOptions};
use crate::runtime::Runtime;

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
    let runtime = Runtime::local(RuntimeOptions {
        missing_home: MissingHome::Refuse,
        assets: starter.assets,
        accel: starter.accel,
        variables,
        ..RuntimeOptions::new(keeper.home())
    })?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let tokio = tokio.map_err(|error| Error::io("starting the runtime for", keeper.home(), error))?;
    tokio.block_on(async {
        runtime.restart_after(keeper.id(), keeper.run()).await?;
        drop(pending);
        runtime.expire_after(keeper.id(), keeper.run()).await
    })
}
