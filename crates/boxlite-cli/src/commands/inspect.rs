//! `inspect`.

use boxlite::{BoxInfo, ErrorKind, Image, Runtime};
use clap::Args;
use serde::Serialize;

use super::each::each;
use crate::args::Layout;
use crate::render::{json, print};
use crate::report::{CommandFailure, Exit, Topic};

/// `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX|IMAGE")]
    names: Vec<String>,
    /// Print a line for each by a template such as '{{.state}} {{json .ports}}' in place of JSON
    #[arg(short, long, value_name = "TEMPLATE", default_value = "json", hide_default_value = true)]
    format: Layout,
}

pub(super) async fn inspect(runtime: &Runtime, args: InspectArgs) -> Result<Exit, CommandFailure> {
    let mut found = Vec::new();
    let exit = each(&args.names, Topic::Box, async |name: &str| {
        found.push(find(runtime, name).await?);
        Ok(None)
    })
    .await?;
    let text = match args.format {
        Layout::Template(template) => {
            found.iter().map(|one| template.line(one)).collect::<Result<String, CommandFailure>>()?
        }
        // A table of everything would be no table.
        Layout::Whole(_) => json(&found)?,
    };
    print(&text).map(|()| exit)
}

#[derive(Serialize)]
#[serde(untagged)]
enum Inspected {
    Box(Box<BoxInfo>),
    Image(Box<Image>),
}

/// Finds the box of that name, or else the image.
async fn find(runtime: &Runtime, name: &str) -> boxlite::Result<Inspected> {
    match runtime.inspect(name).await {
        Ok(info) => Ok(Inspected::Box(Box::new(info))),
        Err(no_box) if no_box.kind() == ErrorKind::NotFound => match runtime.image(name).await {
            Ok(image) => Ok(Inspected::Image(Box::new(image))),
            // A name that is not a valid reference is reported as a missing box.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                Err(no_box)
            }
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}
