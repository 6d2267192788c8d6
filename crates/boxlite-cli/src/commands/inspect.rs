//! `inspect`.

use boxlite::{BoxInfo, ErrorKind, Image, Runtime};
use serde::Serialize;

use super::each::each;
use crate::args::InspectArgs;
use crate::render::{json, print};
use crate::report::{Exit, Failure, Topic};

#[derive(Serialize)]
#[serde(untagged)]
enum Found {
    Box(Box<BoxInfo>),
    Image(Box<Image>),
}

pub(super) async fn inspect(runtime: &Runtime, args: InspectArgs) -> Result<Exit, Failure> {
    let mut found = Vec::new();
    let exit = each(&args.names, Topic::Box, async |name: &str| {
        found.push(find(runtime, name).await?);
        Ok(None)
    })
    .await?;
    print(&json(&found)?).map(|()| exit)
}

/// The box of that name, or else the image.
async fn find(runtime: &Runtime, name: &str) -> boxlite::Result<Found> {
    match runtime.inspect(name).await {
        Ok(info) => Ok(Found::Box(Box::new(info))),
        Err(no_box) if no_box.kind() == ErrorKind::NotFound => match runtime.image(name).await {
            Ok(image) => Ok(Found::Image(Box::new(image))),
            // A name that is no reference either is still the name of a box that is not there.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                Err(no_box)
            }
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}
