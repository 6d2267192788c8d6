//! `commit` and `import`.

use std::path::PathBuf;

use boxlite::{ArchiveInput, CommitOptions, Image, Runtime};
use clap::Args;

use super::cp::standard_input;
use crate::render::{familiar, print_line};
use crate::report::{CommandFailure, Exit, Topic};

/// Descriptive fields of the new image.
#[derive(Debug, Args)]
pub(crate) struct NewImageArgs {
    /// A line for the image's history
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Change the image's configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR, as in a
    /// Dockerfile
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Print the digest only
    #[arg(short, long)]
    quiet: bool,
}

/// `commit`.
#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    #[command(flatten)]
    image: NewImageArgs,
    /// The author
    #[arg(short, long, default_value = "", hide_default_value = true)]
    author: String,
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    id: String,
    /// A name for the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

/// `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    image: NewImageArgs,
    /// A tar archive of files, compressed or not, or `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A name for the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

pub(super) async fn commit(runtime: &Runtime, args: CommitArgs) -> Result<Exit, CommandFailure> {
    let NewImageArgs { message, changes, quiet } = args.image;
    let options = CommitOptions { name: args.name, message, author: args.author, changes };
    let made = runtime.commit(&args.id, options).await;
    report(&made.map_err(|error| CommandFailure::of(&error, Topic::Box))?, quiet)
}

pub(super) async fn import(runtime: &Runtime, args: ImportArgs) -> Result<Exit, CommandFailure> {
    let NewImageArgs { message, changes, quiet } = args.image;
    let options = CommitOptions { name: args.name, message, author: String::new(), changes };
    let archive = match args.file {
        path if path.as_os_str() == "-" => ArchiveInput::Stream(standard_input()?),
        path => ArchiveInput::File(path),
    };
    let made = runtime.import(archive, options).await;
    report(&made.map_err(|error| CommandFailure::of(&error, Topic::Archive))?, quiet)
}

fn report(image: &Image, quiet: bool) -> Result<Exit, CommandFailure> {
    let line = match image.references.first() {
        Some(name) if !quiet => format!("{}  {}", familiar(name), image.digest),
        _ => image.digest.to_string(),
    };
    print_line(&line).map(|()| Exit::OK)
}
