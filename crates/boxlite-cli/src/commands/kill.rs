//! `kill`.

use boxlite::Runtime;
use clap::Args;

use super::each::each;
use crate::args::signal;
use crate::report::{CommandFailure, Exit, Topic};

/// `kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL", value_parser = signal)]
    signal: i32,
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

pub(super) async fn kill(runtime: &Runtime, args: KillArgs) -> Result<Exit, CommandFailure> {
    each(&args.boxes, Topic::RunningBox, async |id: &str| {
        runtime.kill(id, args.signal).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}
