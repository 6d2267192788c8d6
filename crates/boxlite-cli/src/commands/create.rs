//! `create`.

use boxlite::Runtime;

use crate::args::BoxArgs;
use crate::environment::Environment;
use crate::render::{print_line, progress};
use crate::report::{CommandFailure, Exit, Topic};

pub(super) async fn create(
    runtime: &Runtime,
    environment: &Environment,
    args: BoxArgs,
) -> Result<Exit, CommandFailure> {
    let options = args.options(|name| environment.text(name))?;
    let info = runtime
        .create(options, progress(false))
        .await
        .map_err(|error| CommandFailure::of(&error, Topic::NewBox))?;
    print_line(&info.id).map(|()| Exit::OK)
}
