//! `load`.

use std::path::PathBuf;

use boxlite::{ArchiveInput, Runtime};
use clap::Args;

use super::cp::standard_input;
use crate::render::{familiar, print_line, progress};
use crate::report::{CommandFailure, Exit, Topic};

/// `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Read this file, or the directory of an OCI layout, instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Print names only, and no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn load(runtime: &Runtime, args: LoadArgs) -> Result<Exit, CommandFailure> {
    let archive = match args.input {
        Some(path) if path.as_os_str() != "-" => ArchiveInput::File(path),
        _ if rustix::termios::isatty(rustix::stdio::stdin()) => {
            return Err(CommandFailure::local("standard input is a terminal, and no archive")
                .hint("name a file with -i, or redirect one: boxlite load < FILE"));
        }
        _ => ArchiveInput::Stream(standard_input()?),
    };
    let loaded = runtime.load(archive, progress(args.quiet)).await;
    for image in loaded.map_err(|error| CommandFailure::of(&error, Topic::Archive))? {
        for name in &image.references {
            let name = familiar(name);
            print_line(&if args.quiet { name } else { format!("Loaded image: {name}") })?;
        }
        if image.references.is_empty() {
            let digest = image.digest;
            print_line(&if args.quiet { digest.to_string() } else { format!("Loaded image ID: {digest}") })?;
        }
    }
    Ok(Exit::OK)
}
