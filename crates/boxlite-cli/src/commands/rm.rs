//! `rm`.

use boxlite::{ListOptions, RemoveOptions, Runtime};
use clap::Args;

use super::each::each;
use crate::report::{CommandFailure, Exit, Topic};

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Kill a running box first
    #[arg(short, long)]
    force: bool,
    /// Remove every box that does not run, and with --force the others as well
    #[arg(short, long, conflicts_with = "boxes")]
    all: bool,
    /// Accepted because Docker has it: a box has no volumes without a name
    #[arg(short, long, hide = true)]
    volumes: bool,
    /// Names, ids or unique beginnings of ids
    #[arg(required_unless_present = "all", value_name = "BOX")]
    boxes: Vec<String>,
}

pub(super) async fn rm(runtime: &Runtime, args: RemoveArgs) -> Result<Exit, CommandFailure> {
    let boxes = if args.all { every(runtime, args.force).await? } else { args.boxes };
    each(&boxes, Topic::Removal, async |id: &str| {
        runtime.remove(id, RemoveOptions { force: args.force }).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}

/// Returns the ids of the boxes that `--all` removes.
async fn every(runtime: &Runtime, running_too: bool) -> Result<Vec<String>, CommandFailure> {
    let options = ListOptions { all: true, ..ListOptions::default() };
    let boxes = runtime.list(options).await.map_err(|error| CommandFailure::of(&error, Topic::Host))?;
    Ok(boxes.into_iter().filter(|info| running_too || !info.state.is_up()).map(|info| info.id).collect())
}
