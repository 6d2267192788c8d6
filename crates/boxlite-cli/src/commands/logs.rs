//! `logs`.

use std::io;

use boxlite::{LogOptions, Runtime};
use clap::Args;
use futures::StreamExt;
use jiff::Timestamp;

use crate::args::moment;
use crate::render::LogWriter;
use crate::report::{CommandFailure, Exit, Topic};

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on until the box stops
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines, or all
    #[arg(short = 'n', long, value_name = "N", default_value = "all", value_parser = tail)]
    tail: Tail,
    /// Only what was written from then on: a time, or a duration before now such as 10m
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only what was written before then: a time, or a duration before now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Only the run of that number: 1 is the box's first, -1 its last [default: all runs]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = run_number)]
    run: Option<i64>,
    /// Put the time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Show the guest's console instead
    #[arg(long)]
    console: bool,
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    id: String,
}

/// `--tail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tail(Option<usize>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        _ => {
            text.parse().map(|lines| Tail(Some(lines))).map_err(|_| "write a number of lines, or all".into())
        }
    }
}

/// Reads the number of a run, counted from the first or, negative, from the last.
fn run_number(text: &str) -> Result<i64, String> {
    let number = text.parse().ok().filter(|&number: &i64| number != 0);
    number.ok_or_else(|| "write 1 for the first run, -1 for the last".into())
}

pub(super) async fn logs(runtime: &Runtime, args: LogsArgs) -> Result<Exit, CommandFailure> {
    let options = LogOptions {
        follow: args.follow,
        tail: args.tail.0,
        since: args.since,
        until: args.until,
        run: args.run,
        console: args.console,
    };
    let failed = |error: boxlite::Error| CommandFailure::of(&error, Topic::Box);
    let mut lines = runtime.logs(&args.id, options).await.map_err(failed)?;
    let mut writer = LogWriter::new(io::stdout(), io::stderr(), args.timestamps);
    while let Some(line) = lines.next().await {
        let line = line.map_err(failed)?;
        tokio::task::block_in_place(|| writer.write(&line))
            .map_err(|error| CommandFailure::output(&error))?;
    }
    Ok(Exit::OK)
}
