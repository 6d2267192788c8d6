//! `restart`.

use boxlite::{BoxInfo, Error, Runtime, StopOptions};

use super::each::each;
use super::stop::StopArgs;
use crate::render::progress;
use crate::report::{CommandFailure, Exit, Topic, note};

pub(super) async fn restart(runtime: &Runtime, args: StopArgs) -> Result<Exit, CommandFailure> {
    each(&args.boxes, Topic::Start, async |id: &str| {
        let stopped = stop(runtime, id, StopOptions { timeout: args.timeout }).await?;
        runtime.start(&stopped.id, progress(false)).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}

/// Stops the box; where that lost writes the box has stopped all the same, and a warning says so.
async fn stop(runtime: &Runtime, id: &str, options: StopOptions) -> Result<BoxInfo, Error> {
    let error = match runtime.stop(id, options).await {
        Err(error) => error,
        stopped => return stopped,
    };
    let info = runtime.inspect(id).await?;
    if info.state.is_up() {
        return Err(error);
    }
    note(&format!("boxlite: warning: {}", error.chain()));
    Ok(info)
}
