//! `pause` and `unpause`.

use boxlite::Runtime;
use clap::Args;

use super::each::each;
use crate::report::{CommandFailure, Exit, Topic};

/// `pause` and `unpause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

pub(super) async fn pause(runtime: &Runtime, args: PauseArgs) -> Result<Exit, CommandFailure> {
    each(&args.boxes, Topic::Box, async |id: &str| {
        runtime.pause(id).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}

pub(super) async fn unpause(runtime: &Runtime, args: PauseArgs) -> Result<Exit, CommandFailure> {
    each(&args.boxes, Topic::Box, async |id: &str| {
        runtime.unpause(id).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}
