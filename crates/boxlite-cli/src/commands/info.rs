//! `info`.

use boxlite::Runtime;

use crate::args::{Format, FormatArgs};
use crate::render::{info_text, is_complete, json, print};
use crate::report::{Exit, Failure, Topic};

pub(super) async fn info(runtime: &Runtime, args: FormatArgs) -> Result<Exit, Failure> {
    let info = runtime.info().await.map_err(|error| Failure::of(&error, Topic::Host))?;
    let text = match args.format {
        Format::Table => info_text(&info),
        Format::Json => json(&info)?,
    };
    print(&text)?;
    Ok(if is_complete(&info) { Exit::OK } else { Exit::INCOMPLETE })
}
