//! `rmi`.

use boxlite::{Removal, Runtime};

use super::each::each;
use crate::args::RemoveImageArgs;
use crate::report::{Exit, Failure, Topic};

pub(super) async fn rmi(runtime: &Runtime, args: RemoveImageArgs) -> Result<Exit, Failure> {
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
