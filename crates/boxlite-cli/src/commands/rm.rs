//! `rm`.

use boxlite::{RemoveOptions, Runtime};
use clap::Args;

use super::each::each;
use crate::report::{CommandFailure, Exit, Topic};

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Kill a running box first
    #[arg(short, long)]
    force: bool,
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

pub(super) async fn rm(runtime: &Runtime, args: RemoveArgs) -> Result<Exit, CommandFailure> {
    each(&args.boxes, Topic::Removal, async |id: &str| {
        runtime.remove(id, RemoveOptions { force: args.force }).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}
