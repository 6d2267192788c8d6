//! `gc`.

use boxlite::Runtime;

use crate::args::{Format, GcArgs};
use crate::render::{gc_text, json, print};
use crate::report::{Exit, Failure, Topic};

pub(super) async fn gc(runtime: &Runtime, args: GcArgs) -> Result<Exit, Failure> {
    let report = runtime
        .collect_garbage(args.options())
        .await
        .map_err(|error| Failure::of(&error, Topic::Collection))?;
    let text = match args.format.format {
        Format::Table => gc_text(&report),
        Format::Json => json(&report)?,
    };
    print(&text)?;
    Ok(if report.failed() { Exit::INCOMPLETE } else { Exit::OK })
}
