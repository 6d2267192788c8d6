//! `restart`.

use boxlite::{Runtime, StopOptions};

use super::each::each;
use super::stop::StopArgs;
use crate::render::progress;
use crate::report::{CommandFailure, Exit, Topic};

pub(super) async fn restart(runtime: &Runtime, args: StopArgs) -> Result<Exit, CommandFailure> {
    each(&args.boxes, Topic::Start, async |id: &str| {
        let stopped = runtime.stop(id, StopOptions { timeout: args.timeout }).await?;
        runtime.start(&stopped.id, progress(false)).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}
