//! `ls`.

use std::fmt::Write as _;

use boxlite::{BoxFilter, BoxInfo, BoxState, HealthStatus, ListOptions, Runtime};
use clap::Args;
use jiff::Timestamp;

use crate::args::{Layout, ListFormatArgs, OutputFormat};
use crate::render::{BoxColumns, box_table, docker, json, print, template_lines};
use crate::report::{CommandFailure, Exit, Topic};
use crate::terminal::output_width;

/// `ls`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Show those that are not running as well
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show the bytes allocated to each box's disk
    #[arg(short, long)]
    size: bool,
    /// Only boxes for which this holds: name, id, status, health, image (ancestor) or label
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = box_filter)]
    filters: Vec<BoxFilter>,
    /// Only the N boxes that were created last, whether or not they run
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Only the box that was created last, whether or not it runs
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
    #[command(flatten)]
    format: ListFormatArgs,
}

pub(super) async fn ls(runtime: &Runtime, args: ListArgs) -> Result<Exit, CommandFailure> {
    // A filter on the state covers boxes in every state, as in Docker.
    let by_state = args.filters.iter().any(|filter| matches!(filter, BoxFilter::State(_)));
    let last = if args.latest { Some(1) } else { args.last };
    let options = ListOptions { all: args.all || by_state || last.is_some(), filters: args.filters };
    let mut boxes = runtime.list(options).await.map_err(|error| CommandFailure::of(&error, Topic::Host))?;
    if let Some(last) = last {
        boxes.drain(..boxes.len().saturating_sub(last));
    }
    let text = match args.format.format {
        _ if args.quiet => ids(&boxes, args.no_trunc),
        Layout::Whole(OutputFormat::Json) => json(&boxes)?,
        Layout::Template(template) => {
            let now = Timestamp::now();
            template_lines(&template, boxes.iter().rev().map(|info| (info, docker::listed_box(info, now))))?
        }
        Layout::Whole(OutputFormat::Table) => {
            let width = output_width().filter(|_| !args.no_trunc);
            let columns = BoxColumns { whole: args.no_trunc, size: args.size, width };
            // Newest first: people look for what they just made.
            let newest: Vec<BoxInfo> = boxes.into_iter().rev().collect();
            box_table(&newest, columns, Timestamp::now())
        }
    };
    print(&text).map(|()| Exit::OK)
}

fn health(text: &str) -> Result<HealthStatus, String> {
    let wrong = || {
        let names = HealthStatus::ALL.map(HealthStatus::name).join(", ");
        format!("`{text}` is not a state of health; there are {names}")
    };
    HealthStatus::ALL.into_iter().find(|status| status.name() == text).ok_or_else(wrong)
}

/// Reads a condition on boxes.
pub(super) fn box_filter(text: &str) -> Result<BoxFilter, String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not of the form KEY=VALUE"))?;
    if value.is_empty() {
        return Err(format!("`{text}` names no value"));
    }
    match key {
        "name" => Ok(BoxFilter::Name(value.to_owned())),
        "id" => Ok(BoxFilter::Id(value.to_ascii_lowercase())),
        "status" | "state" => state(value).map(BoxFilter::State),
        "health" => health(value).map(BoxFilter::Health),
        "image" | "ancestor" => Ok(BoxFilter::Image(value.to_owned())),
        "label" => Ok(match value.split_once('=') {
            Some((label, value)) => BoxFilter::Label(label.to_owned(), Some(value.to_owned())),
            None => BoxFilter::Label(value.to_owned(), None),
        }),
        _ => Err(format!(
            "`{key}` is not a filter; there are name, id, status, health, image (or ancestor) and label"
        )),
    }
}

fn state(text: &str) -> Result<BoxState, String> {
    match text {
        "created" => Ok(BoxState::Created),
        "running" => Ok(BoxState::Running),
        "paused" => Ok(BoxState::Paused),
        "restarting" => Ok(BoxState::Restarting),
        "stopped" | "exited" => Ok(BoxState::Stopped),
        "failed" | "dead" => Ok(BoxState::Failed),
        _ => Err(format!(
            "`{text}` is not a status; there are created, running, paused, restarting, stopped and failed"
        )),
    }
}

fn ids(boxes: &[BoxInfo], whole: bool) -> String {
    boxes.iter().rev().fold(String::new(), |mut text, info| {
        let id = if whole { info.id.as_str() } else { info.short_id() };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{id}");
        text
    })
}
