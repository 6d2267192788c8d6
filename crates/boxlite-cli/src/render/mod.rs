//! How results look: tables for people, JSON for programs.

mod boxes;
mod gc;
mod images;
mod info;
mod json;
mod logs;
mod progress;
mod table;
mod time;
mod usage;

pub(crate) use boxes::{BoxColumns, box_table};
pub(crate) use gc::gc_text;
pub(crate) use images::{familiar, image_table};
pub(crate) use info::{info_text, is_complete};
pub(crate) use json::json;
pub(crate) use logs::LogWriter;
pub(crate) use progress::progress;
pub(crate) use table::Table;
pub(crate) use time::{ago, span};
pub(crate) use usage::usage_text;

use std::io::{self, Write};

use crate::report::Failure;

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// Writes one line to standard output.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    print(&format!("{line}\n"))
}

#[cfg(test)]
mod tests;
