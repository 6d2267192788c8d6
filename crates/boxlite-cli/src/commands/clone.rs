//! `clone`.

use boxlite::{CloneOptions, Runtime};
use clap::Args;

use crate::render::print_line;
use crate::report::{CommandFailure, Exit, Topic};

/// `clone`.
#[derive(Debug, Args)]
pub(crate) struct CloneArgs {
    /// Name of the clone [default: made up]
    #[arg(long)]
    name: Option<String>,
    /// The box: name, id or unique beginning of its id; it must not run
    #[arg(value_name = "BOX")]
    source: String,
}

pub(super) async fn clone(runtime: &Runtime, args: CloneArgs) -> Result<Exit, CommandFailure> {
    let cloned = runtime.clone_box(&args.source, CloneOptions { name: args.name }).await;
    let info = cloned.map_err(|error| CommandFailure::of(&error, Topic::Box))?;
    print_line(&info.id).map(|()| Exit::OK)
}
