//! `tag`.

use boxlite::Runtime;
use clap::Args;

use crate::report::{CommandFailure, Exit, Topic};

/// `tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Reference, id or unique beginning of an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The name to give, which may name another image until now
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

pub(super) async fn tag(runtime: &Runtime, args: TagArgs) -> Result<Exit, CommandFailure> {
    let tagged = runtime.tag(&args.image, &args.name).await;
    tagged.map(|_| Exit::OK).map_err(|error| CommandFailure::of(&error, Topic::ImageRemoval))
}
