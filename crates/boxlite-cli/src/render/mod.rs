//! Results on standard output: tables for people, JSON for programs.

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

use crate::args::OutputFormat;
use crate::report::CommandFailure;

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

#[cfg(test)]
mod tests;
