//! `images`.

use boxlite::Runtime;
use clap::Args;
use jiff::Timestamp;

use crate::args::FormatArgs;
use crate::render::{formatted, image_table, print};
use crate::report::{CommandFailure, Exit, Topic};
use crate::terminal::output_width;

/// `images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) async fn images(runtime: &Runtime, args: ImagesArgs) -> Result<Exit, CommandFailure> {
    let images = runtime.images().await.map_err(|error| CommandFailure::of(&error, Topic::Host))?;
    let text = match args.format.format {
        _ if args.quiet => images
            .iter()
            .map(|image| if args.no_trunc { image.digest.to_string() } else { image.short_id() } + "\n")
            .collect(),
        format => formatted(format, images.as_slice(), |images| {
            let width = output_width().filter(|_| !args.no_trunc);
            image_table(images, args.no_trunc, Timestamp::now(), width)
        })?,
    };
    print(&text).map(|()| Exit::OK)
}
