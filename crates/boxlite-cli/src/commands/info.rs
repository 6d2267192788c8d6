//! `info`.

use boxlite::Runtime;

use crate::args::FormatArgs;
use crate::render::{formatted, info_text, is_complete, print};
use crate::report::{CommandFailure, Exit, Topic};

pub(super) async fn info(runtime: &Runtime, args: FormatArgs) -> Result<Exit, CommandFailure> {
    let info = runtime.info().await.map_err(|error| CommandFailure::of(&error, Topic::Host))?;
    print(&formatted(args.format, &info, info_text)?)?;
    Ok(if is_complete(&info) { Exit::OK } else { Exit::INCOMPLETE })
}
