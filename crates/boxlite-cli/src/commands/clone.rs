//! `clone`.

use boxlite::{CloneOptions, Runtime};

use crate::args::CloneArgs;
use crate::render::print_line;
use crate::report::{Exit, Failure, Topic};

pub(super) async fn clone(runtime: &Runtime, args: CloneArgs) -> Result<Exit, Failure> {
    let cloned = runtime.clone_box(&args.source, CloneOptions { name: args.name }).await;
    let info = cloned.map_err(|error| Failure::of(&error, Topic::Box))?;
    print_line(&info.id).map(|()| Exit::OK)
}
