//! `history`.

use boxlite::{HistoryEntry, Runtime};
use clap::Args;
use jiff::Timestamp;

use crate::args::ListFormatArgs;
use crate::render::{docker, history_table, laid_out, print};
use crate::report::{CommandFailure, Exit, Topic};
use crate::terminal::output_width;

/// `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    format: ListFormatArgs,
    /// Reference, id or unique beginning of an id
    #[arg(value_name = "IMAGE")]
    image: String,
}

pub(super) async fn history(runtime: &Runtime, args: HistoryArgs) -> Result<Exit, CommandFailure> {
    let steps = runtime.history(&args.image).await;
    let steps = steps.map_err(|error| CommandFailure::of(&error, Topic::ImageRemoval))?;
    let text = match args.format.format {
        _ if args.quiet => {
            let ids = steps.iter().map(|step| match step.digest {
                Some(digest) if args.no_trunc => format!("{digest}\n"),
                Some(digest) => format!("{}\n", &digest.hex()[..12]),
                None => "<missing>\n".to_owned(),
            });
            ids.collect()
        }
        layout => {
            let now = Timestamp::now();
            let table = |steps: &[HistoryEntry]| {
                let width = output_width().filter(|_| !args.no_trunc);
                history_table(steps, args.no_trunc, now, width)
            };
            laid_out(&layout, &steps, table, |step| docker::listed_step(step, now))?
        }
    };
    print(&text).map(|()| Exit::OK)
}
