//! `rmi`.

use boxlite::{Removal, Runtime};
use clap::Args;

use super::each::each;
use crate::report::{CommandFailure, Exit, Topic};

/// `rmi`.
#[derive(Debug, Args)]
pub(crate) struct RemoveImageArgs {
    /// Remove it although a box uses it or it has several names
    #[arg(short, long)]
    force: bool,
    /// Accepted because Docker has it: an image has no untagged parents
    #[arg(long, hide = true)]
    no_prune: bool,
    /// References, ids or unique beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) async fn rmi(runtime: &Runtime, args: RemoveImageArgs) -> Result<Exit, CommandFailure> {
    each(&args.images, Topic::ImageRemoval, async |wanted: &str| {
        let removals = runtime.remove_image(wanted, args.force).await?;
        let lines: Vec<String> = removals
            .iter()
            .map(|removal| match removal {
                Removal::Untagged(name) => format!("Untagged: {name}"),
                Removal::Deleted(digest) => format!("Deleted: {digest}"),
            })
            .collect();
        Ok((!lines.is_empty()).then(|| lines.join("\n")))
    })
    .await
}
