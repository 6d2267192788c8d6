//! `version`.

use serde::Serialize;

use crate::args::FormatArgs;
use crate::render::{formatted, print};
use crate::report::{CommandFailure, Exit};

#[derive(Serialize)]
struct VersionReport {
    version: &'static str,
}

pub(super) fn version(args: FormatArgs) -> Result<Exit, CommandFailure> {
    let version = env!("CARGO_PKG_VERSION");
    let table = |report: &VersionReport| format!("boxlite {}\n", report.version);
    print(&formatted(args.format, &VersionReport { version }, table)?).map(|()| Exit::OK)
}
