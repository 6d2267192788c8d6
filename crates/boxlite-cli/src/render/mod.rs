//! Results on standard output: tables for people, JSON for programs.

pub(crate) mod docker;
mod gc;
mod info;
mod lists;
mod logs;
mod processes;
mod progress;
mod stats;
mod table;
mod tree;
mod usage;

pub(crate) use gc::{explanation_text, gc_text};
pub(crate) use info::{info_text, is_complete};
pub(crate) use lists::{BoxColumns, box_table, familiar, history_table, image_table};
pub(crate) use logs::LogWriter;
pub(crate) use processes::ProcessColumns;
pub(crate) use progress::progress;
pub(crate) use stats::{BoxFigures, stats_table};
pub(crate) use table::{TextTable, ago, span};
pub(crate) use tree::tree_text;
pub(crate) use usage::usage_text;

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use crate::args::{Layout, OutputFormat};
use crate::report::CommandFailure;
use crate::template::Template;

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> Result<(), CommandFailure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| CommandFailure::output(&error))
}

/// Writes one line to standard output.
pub(crate) fn print_line(line: &str) -> Result<(), CommandFailure> {
    print(&format!("{line}\n"))
}

/// Returns one indented JSON document, ending in a line feed.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, CommandFailure> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| CommandFailure::local(format!("writing JSON failed: {error}")))
}

/// Returns `value` in the format that the user asked for; `table` lays it out for people.
pub(crate) fn formatted<T: Serialize + ?Sized>(
    format: OutputFormat,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<String, CommandFailure> {
    match format {
        OutputFormat::Table => Ok(table(value)),
        OutputFormat::Json => json(value),
    }
}

/// Returns `items` in the layout that the user asked for; `table` lays them out for people, and `docker` has an item under the
/// names that Docker gives it.
pub(crate) fn laid_out<T: Serialize>(
    layout: &Layout,
    items: &[T],
    table: impl FnOnce(&[T]) -> String,
    docker: impl Fn(&T) -> Value,
) -> Result<String, CommandFailure> {
    match layout {
        Layout::Whole(OutputFormat::Table) => Ok(table(items)),
        Layout::Whole(OutputFormat::Json) => json(items),
        Layout::Template(template) => template_lines(template, items.iter().map(|item| (item, docker(item)))),
    }
}

/// As [`laid_out`], for the commands that show one thing.
pub(crate) fn laid_out_one<T: Serialize>(
    layout: &Layout,
    item: &T,
    table: impl FnOnce(&T) -> String,
    docker: Value,
) -> Result<String, CommandFailure> {
    match layout {
        Layout::Whole(format) => formatted(*format, item, table),
        Layout::Template(template) => template_lines(template, std::iter::once((item, docker))),
    }
}

/// Returns a template's line for each of `items`, which come with the same under Docker's names; as columns where it asks for a table.
pub(crate) fn template_lines<'a, T: Serialize + 'a>(
    template: &Template,
    items: impl Iterator<Item = (&'a T, Value)>,
) -> Result<String, CommandFailure> {
    let lines = items
        .map(|(item, docker)| template.line(item, docker))
        .collect::<Result<Vec<_>, CommandFailure>>()?;
    let Some(heading) = template.heading() else { return Ok(lines.concat()) };
    let mut table = TextTable::new(&heading.split('\t').collect::<Vec<_>>());
    for line in lines {
        table.row(line.trim_end_matches('\n').split('\t').map(ToOwned::to_owned));
    }
    Ok(table.text())
}

#[cfg(test)]
mod tests;
