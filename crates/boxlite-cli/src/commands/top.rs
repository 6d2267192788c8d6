//! `top`.

use boxlite::Runtime;
use clap::Args;

use crate::args::OutputFormat;
use crate::render::{ProcessColumns, json, print};
use crate::report::{CommandFailure, Exit, Topic};
use crate::terminal::output_width;

/// `top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Lay the list out as a table, or as JSON that programs can rely on
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
    /// The box (name, id or unique beginning of an id), then options of `ps`: -ef, aux, or -o with columns
    ///
    /// The columns are those of `ps`, such as -o pid,user,rss,args. The image needs no `ps` of its own.
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true, value_names = ["BOX", "OPTION"])]
    box_and_options: Vec<String>,
}

pub(super) async fn top(runtime: &Runtime, args: TopArgs) -> Result<Exit, CommandFailure> {
    let mut words = args.box_and_options.into_iter();
    let id = words.next().unwrap_or_default();
    let options: Vec<String> = words.collect();
    let columns = ProcessColumns::read(&options).map_err(|why| {
        CommandFailure::local(why).hint("`boxlite exec BOX ps` runs the image's own ps, where it has one")
    })?;
    let list = runtime.processes(&id).await.map_err(|error| CommandFailure::of(&error, Topic::RunningBox))?;
    let text = match args.format {
        OutputFormat::Json => json(&list)?,
        OutputFormat::Table => columns.table(&list, output_width()),
    };
    print(&text).map(|()| Exit::OK)
}
