//! `version`.

use serde::Serialize;

use crate::args::{Layout, OutputFormat, TemplateArgs};
use crate::render::{docker, laid_out_one, print};
use crate::report::{CommandFailure, Exit};

#[derive(Serialize)]
struct VersionReport {
    version: &'static str,
}

pub(super) fn version(args: TemplateArgs) -> Result<Exit, CommandFailure> {
    let version = env!("CARGO_PKG_VERSION");
    let table = |report: &VersionReport| format!("boxlite {}\n", report.version);
    let layout = args.format.unwrap_or(Layout::Whole(OutputFormat::Table));
    print(&laid_out_one(&layout, &VersionReport { version }, table, docker::version(version))?)
        .map(|()| Exit::OK)
}
