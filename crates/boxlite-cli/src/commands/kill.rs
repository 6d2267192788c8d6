//! `kill`.

use boxlite::Runtime;

use super::each::each;
use crate::args::KillArgs;
use crate::report::{Exit, Failure, Topic};

pub(super) async fn kill(runtime: &Runtime, args: KillArgs) -> Result<Exit, Failure> {
    each(&args.boxes, Topic::RunningBox, async |id: &str| {
        runtime.kill(id, args.signal).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}
