//! `images`.

use boxlite::Runtime;
use jiff::Timestamp;

use crate::args::{Format, ImagesArgs};
use crate::render::{image_table, json, print};
use crate::report::{Exit, Failure, Topic};

pub(super) async fn images(runtime: &Runtime, args: ImagesArgs) -> Result<Exit, Failure> {
    let images = runtime.images().await.map_err(|error| Failure::of(&error, Topic::Host))?;
    let text = match args.format.format {
        _ if args.quiet => images
            .iter()
            .map(|image| if args.no_trunc { image.digest.to_string() } else { image.short_id() } + "\n")
            .collect(),
        Format::Json => json(&images)?,
        Format::Table => image_table(&images, args.no_trunc, Timestamp::now()),
    };
    print(&text).map(|()| Exit::OK)
}
