//! `inspect`.

use boxlite::{BoxInfo, ErrorKind, Image, Runtime};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::each::each;
use crate::args::Layout;
use crate::render::{docker, json, print, template_lines};
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
    /// Look only among boxes, or only among images
    #[arg(long = "type", value_name = "box|image")]
    kind: Option<InspectedKind>,
    /// Accepted because Docker has it: the sizes are always there
    #[arg(short, long, hide = true)]
    size: bool,
}

/// `inspect --type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InspectedKind {
    #[value(alias = "container")]
    Box,
    Image,
}

pub(super) async fn inspect(runtime: &Runtime, args: InspectArgs) -> Result<Exit, CommandFailure> {
    let mut found = Vec::new();
    let exit = each(&args.names, Topic::Box, async |name: &str| {
        found.push(find(runtime, name, args.kind).await?);
        Ok(None)
    })
    .await?;
    let text = match args.format {
        Layout::Template(template) => template_lines(&template, found.iter().map(|one| (one, one.docker())))?,
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

impl Inspected {
    fn docker(&self) -> serde_json::Value {
        match self {
            Self::Box(info) => docker::inspected_box(info),
            Self::Image(image) => docker::inspected_image(image),
        }
    }
}

/// Finds the box of that name, or else the image.
async fn find(runtime: &Runtime, name: &str, kind: Option<InspectedKind>) -> boxlite::Result<Inspected> {
    match kind {
        None => {}
        Some(InspectedKind::Box) => {
            return runtime.inspect(name).await.map(|info| Inspected::Box(Box::new(info)));
        }
        Some(InspectedKind::Image) => {
            return runtime.image(name).await.map(|image| Inspected::Image(Box::new(image)));
        }
    }
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
