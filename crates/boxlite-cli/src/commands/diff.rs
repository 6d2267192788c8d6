//! `diff`.

use boxlite::{ChangeKind, FileChange, Runtime};
use clap::Args;

use crate::args::FormatArgs;
use crate::render::{formatted, print};
use crate::report::{CommandFailure, Exit, Topic, visible};

/// `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    id: String,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) async fn diff(runtime: &Runtime, args: DiffArgs) -> Result<Exit, CommandFailure> {
    let changes = runtime.diff(&args.id).await.map_err(|error| CommandFailure::of(&error, Topic::Box))?;
    let line = |change: &FileChange| {
        let kind = match change.kind {
            ChangeKind::Changed => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        };
        format!("{kind} {}\n", visible(&change.path))
    };
    let text =
        formatted(args.format.format, changes.as_slice(), |changes| changes.iter().map(line).collect())?;
    print(&text).map(|()| Exit::OK)
}
