//! `info`.

use boxlite::Runtime;

use crate::args::{Layout, OutputFormat, TemplateArgs};
use crate::render::{docker, info_text, is_complete, laid_out_one, print};
use crate::report::{CommandFailure, Exit, Topic};

pub(super) async fn info(runtime: &Runtime, args: TemplateArgs) -> Result<Exit, CommandFailure> {
    let info = runtime.info().await.map_err(|error| CommandFailure::of(&error, Topic::Host))?;
    let layout = args.format.unwrap_or(Layout::Whole(OutputFormat::Table));
    print(&laid_out_one(&layout, &info, info_text, docker::host(&info))?)?;
    Ok(if is_complete(&info) { Exit::OK } else { Exit::INCOMPLETE })
}
