//! `history`.

use boxlite::Runtime;
use clap::Args;
use jiff::Timestamp;

use crate::args::{Layout, OutputFormat};
use crate::render::{history_table, json, print};
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
    /// Lay the output out as a table, as JSON that programs can rely on, or by a template such as '{{.comment}}'
    #[arg(long, value_name = "table|json|TEMPLATE", default_value = "table")]
    format: Layout,
    /// Reference, id or unique beginning of an id
    #[arg(value_name = "IMAGE")]
    image: String,
}

pub(super) async fn history(runtime: &Runtime, args: HistoryArgs) -> Result<Exit, CommandFailure> {
    let steps = runtime.history(&args.image).await;
    let steps = steps.map_err(|error| CommandFailure::of(&error, Topic::ImageRemoval))?;
    let text = match args.format {
        _ if args.quiet => {
            let ids = steps.iter().map(|step| match step.digest {
                Some(digest) if args.no_trunc => format!("{digest}\n"),
                Some(digest) => format!("{}\n", &digest.hex()[..12]),
                None => "<missing>\n".to_owned(),
            });
            ids.collect()
        }
        Layout::Whole(OutputFormat::Json) => json(&steps)?,
        Layout::Template(template) => {
            steps.iter().map(|step| template.line(step)).collect::<Result<String, CommandFailure>>()?
        }
        Layout::Whole(OutputFormat::Table) => {
            let width = output_width().filter(|_| !args.no_trunc);
            history_table(&steps, args.no_trunc, Timestamp::now(), width)
        }
    };
    print(&text).map(|()| Exit::OK)
}
