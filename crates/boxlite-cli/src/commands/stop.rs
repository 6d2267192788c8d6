//! `stop`.

use boxlite::{Runtime, StopOptions};
use clap::Args;

use super::each::each;
use crate::report::{CommandFailure, Exit, Topic};

/// `stop` and `restart`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds between the stop signal and KILL [default: the box's own]
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS")]
    pub(super) timeout: Option<u32>,
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    pub(super) boxes: Vec<String>,
}

pub(super) async fn stop(runtime: &Runtime, args: StopArgs) -> Result<Exit, CommandFailure> {
    each(&args.boxes, Topic::Box, async |id: &str| {
        runtime.stop(id, StopOptions { timeout: args.timeout }).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}
