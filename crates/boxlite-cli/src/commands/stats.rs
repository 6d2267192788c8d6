//! `stats`.

use std::collections::HashMap;
use std::time::Duration;

use boxlite::{Consumption, ErrorKind, ListOptions, Runtime};
use clap::Args;
use futures::future::join_all;

use crate::args::{Layout, OutputFormat};
use crate::render::{BoxFigures, docker, json, print, stats_table, template_lines};
use crate::report::{CommandFailure, Exit, Topic};
use crate::terminal::{Interruptions, output_width};

/// How often figures are taken.
const INTERVAL: Duration = Duration::from_secs(1);

/// Clears a terminal and puts the cursor at its beginning.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// `stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Show those that do not run as well
    #[arg(short, long)]
    all: bool,
    /// Print one set of figures, over a second, and end
    #[arg(long)]
    no_stream: bool,
    /// Lay the output out as a table, as JSON (one line per set of figures), or by a template such as '{{.name}} {{.state}}'
    #[arg(long, value_name = "table|json|TEMPLATE", default_value = "table")]
    format: Layout,
    /// Accepted because Docker has it: nothing is shortened but ids
    #[arg(long, hide = true)]
    no_trunc: bool,
    /// Names, ids or unique beginnings of ids [default: all that run]
    #[arg(value_name = "BOX")]
    boxes: Vec<String>,
}

pub(super) async fn stats(runtime: &Runtime, args: StatsArgs) -> Result<Exit, CommandFailure> {
    let mut interruptions = Interruptions::watch()?;
    let mut samples = Samples::default();
    // The first set is only compared with.
    measure(runtime, &args, &mut samples).await?;
    loop {
        if interruptions.before(tokio::time::sleep(INTERVAL)).await.is_break() {
            return Ok(Exit::OK);
        }
        let figures = measure(runtime, &args, &mut samples).await?;
        print(&text(&args, &figures)?)?;
        if args.no_stream {
            return Ok(Exit::OK);
        }
    }
}

/// The last measurement of each box, and its disk at the first.
#[derive(Default)]
struct Samples {
    last: HashMap<String, Consumption>,
    disk_at_first: HashMap<String, u64>,
}

async fn measure(
    runtime: &Runtime,
    args: &StatsArgs,
    samples: &mut Samples,
) -> Result<Vec<BoxFigures>, CommandFailure> {
    let ids = if args.boxes.is_empty() {
        let options = ListOptions { all: args.all, ..ListOptions::default() };
        let listed = runtime.list(options).await;
        let listed = listed.map_err(|error| CommandFailure::of(&error, Topic::Host))?;
        listed.into_iter().map(|info| info.id).collect()
    } else {
        args.boxes.clone()
    };
    let mut figures = Vec::new();
    for measured in join_all(ids.iter().map(|id| runtime.consumption(id))).await {
        match measured {
            Ok(now) => {
                let first = now.disk_allocated.unwrap_or(0);
                let first = *samples.disk_at_first.entry(now.id.clone()).or_insert(first);
                figures.push(BoxFigures::of(&now, samples.last.get(&now.id), first));
                samples.last.insert(now.id.clone(), now);
            }
            // It was removed since it was listed.
            Err(error) if args.boxes.is_empty() && error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(CommandFailure::of(&error, Topic::Box)),
        }
    }
    Ok(figures)
}

fn text(args: &StatsArgs, figures: &[BoxFigures]) -> Result<String, CommandFailure> {
    match &args.format {
        Layout::Whole(OutputFormat::Json) if args.no_stream => json(figures),
        Layout::Whole(OutputFormat::Json) => {
            serde_json::to_string(figures).map(|line| line + "\n").map_err(|error| {
                CommandFailure::local(format!("the figures cannot be written as JSON: {error}"))
            })
        }
        Layout::Template(template) => {
            template_lines(template, figures.iter().map(|figures| (figures, docker::listed_figures(figures))))
        }
        Layout::Whole(OutputFormat::Table) => {
            let clear = !args.no_stream && std::io::IsTerminal::is_terminal(&std::io::stdout());
            Ok(format!("{}{}", if clear { CLEAR } else { "" }, stats_table(figures, output_width())))
        }
    }
}
