//! `export`.

use std::path::PathBuf;

use boxlite::Runtime;
use clap::Args;

use crate::copy::write_archive;
use crate::report::{CommandFailure, Exit, Topic};

/// `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Write to this file instead of standard output; it appears once it is whole
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    id: String,
}

pub(super) async fn export(runtime: &Runtime, args: ExportArgs) -> Result<Exit, CommandFailure> {
    let archive =
        async { runtime.export(&args.id).await.map_err(|error| CommandFailure::of(&error, Topic::Box)) };
    write_archive(archive, args.output.as_deref()).await.map(|_| Exit::OK)
}
