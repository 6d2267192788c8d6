//! `stop`.

use boxlite::{Runtime, StopOptions};

use super::each::each;
use crate::args::StopArgs;
use crate::report::{Exit, Failure, Topic};

pub(super) async fn stop(runtime: &Runtime, args: StopArgs) -> Result<Exit, Failure> {
    each(&args.boxes, Topic::Box, async |id: &str| {
        runtime.stop(id, StopOptions { timeout: args.timeout }).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}
