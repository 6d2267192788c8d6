//! `version`.

use serde::Serialize;

use crate::args::{Format, FormatArgs};
use crate::render::{json, print, print_line};
use crate::report::{Exit, Failure};

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

pub(super) fn version(args: FormatArgs) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match args.format {
        Format::Table => print_line(&format!("boxlite {version}"))?,
        Format::Json => print(&json(&Version { version })?)?,
    }
    Ok(Exit::OK)
}
