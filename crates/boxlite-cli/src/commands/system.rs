//! `system df`.

use boxlite::Runtime;
use jiff::Timestamp;

use crate::args::{DfArgs, Format};
use crate::render::{json, print, usage_text};
use crate::report::{Exit, Failure, Topic};

pub(super) async fn df(runtime: &Runtime, args: DfArgs) -> Result<Exit, Failure> {
    let usage = runtime.disk_usage().await.map_err(|error| Failure::of(&error, Topic::Host))?;
    let text = match args.format.format {
        Format::Table => usage_text(&usage, args.verbose, Timestamp::now()),
        Format::Json => json(&usage)?,
    };
    print(&text)?;
    Ok(if usage.unreadable.is_empty() { Exit::OK } else { Exit::INCOMPLETE })
}
