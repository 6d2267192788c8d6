//! `wait`.

use boxlite::Runtime;
use clap::Args;

use super::each::each;
use crate::report::{CommandFailure, Exit, Topic};

/// `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

pub(super) async fn wait(runtime: &Runtime, args: WaitArgs) -> Result<Exit, CommandFailure> {
    each(&args.boxes, Topic::Box, async |id: &str| Ok(Some(runtime.wait(id).await?.code.to_string()))).await
}
