//! `create`.

use boxlite::Runtime;

use super::host_env;
use crate::args::CreateArgs;
use crate::render::{print_line, progress};
use crate::report::{Exit, Failure, Topic};

pub(super) async fn create(runtime: &Runtime, args: CreateArgs) -> Result<Exit, Failure> {
    let options = args.options(host_env)?;
    let info =
        runtime.create(options, progress(false)).await.map_err(|error| Failure::of(&error, Topic::NewBox))?;
    print_line(&info.id).map(|()| Exit::OK)
}
