//! `rm`.

use boxlite::{RemoveOptions, Runtime};

use super::each::each;
use crate::args::RemoveArgs;
use crate::report::{Exit, Failure, Topic};

pub(super) async fn rm(runtime: &Runtime, args: RemoveArgs) -> Result<Exit, Failure> {
    each(&args.boxes, Topic::Removal, async |id: &str| {
        runtime.remove(id, RemoveOptions { force: args.force }).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}
