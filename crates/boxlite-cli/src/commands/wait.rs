//! `wait`.

use boxlite::Runtime;

use super::each::each;
use crate::args::WaitArgs;
use crate::report::{Exit, Failure, Topic};

pub(super) async fn wait(runtime: &Runtime, args: WaitArgs) -> Result<Exit, Failure> {
    each(&args.boxes, Topic::Box, async |id: &str| Ok(Some(runtime.wait(id).await?.code.to_string()))).await
}
