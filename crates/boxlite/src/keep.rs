//! What the process beside a shim does once the run has ended.

use boxlite_home::settings::SettingsVariables;
use boxlite_types::{Error, Result};
use boxlite_vm::shim::Keeper;

use crate::litebox::Starter;
use crate::options::{MissingHome, RuntimeOptions};
use crate::runtime::Runtime;

/// Looks after the box of `keeper`, whose run has ended, under the settings of the user who started it. Blocks, until the box
/// runs again or stays as it is.
///
/// # Errors
/// `NotFound` when the box was removed meanwhile; those of a start, except that it was refused.
pub fn keep(keeper: &Keeper, variables: SettingsVariables) -> Result<()> {
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
    tokio.block_on(runtime.after_run(keeper.id(), keeper.run()))
}
