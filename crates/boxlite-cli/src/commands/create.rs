//! `create`.

use boxlite::Runtime;

use super::id_file::IdFile;
use crate::args::BoxArgs;
use crate::environment::Environment;
use crate::render::{print_line, progress};
use crate::report::{CommandFailure, Exit, Topic, note};

pub(super) async fn create(
    runtime: &Runtime,
    environment: &Environment,
    mut args: BoxArgs,
) -> Result<Exit, CommandFailure> {
    for text in args.container.notes().chain(args.guest.note()) {
        note(&text);
    }
    let id_file = IdFile::make(args.cidfile.take())?;
    let options = args.options(runtime, environment).await?;
    let info = runtime
        .create(options, progress(false))
        .await
        .map_err(|error| CommandFailure::of(&error, Topic::NewBox))?;
    if let Some(mut file) = id_file {
        file.write(&info.id)?;
    }
    print_line(&info.id).map(|()| Exit::OK)
}
