//! `box export` and `box import`.

use std::path::PathBuf;

use boxlite::{BoxExportOptions, BoxImportOptions, Runtime, TarStream};
use clap::{Args, Subcommand};

use super::cp::standard_input;
use crate::copy::write_archive;
use crate::render::print_line;
use crate::report::{CommandFailure, Exit, Topic, note};

/// `box`.
#[derive(Debug, Subcommand)]
pub(crate) enum BoxCommand {
    /// Pack a whole box, its options and its disk, into one file; a running box stands still only for a moment
    Export(ExportBoxArgs),
    /// Make a box of a file that `box export` wrote, which needs no trust
    Import(ImportBoxArgs),
}

/// `box export`.
#[derive(Debug, Args)]
pub(crate) struct ExportBoxArgs {
    /// Write to this file instead of standard output; it appears once it is whole
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave out what the box's image has: a smaller file, for hosts that have that image
    #[arg(long)]
    relative: bool,
    /// The disk as this snapshot has it
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    id: String,
}

/// `box import`.
#[derive(Debug, Args)]
pub(crate) struct ImportBoxArgs {
    /// Name of the box [default: that in the file, or a made-up one where it is taken]
    #[arg(long)]
    name: Option<String>,
    /// Forward a port of the host to the box; those of the exported box are not taken over
    #[arg(short, long = "publish", value_name = "[IP:]HOST[:BOX][/tcp|udp]")]
    ports: Vec<String>,
    /// Mount a named volume, or share a directory or file of the host; those of the exported box are not taken over
    #[arg(short, long = "volume", value_name = "NAME|HOST:BOX[:OPTIONS]", value_parser = crate::args::volume)]
    volumes: Vec<String>,
    /// The file, or `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn box_file(runtime: &Runtime, command: BoxCommand) -> Result<Exit, CommandFailure> {
    match command {
        BoxCommand::Export(args) => export(runtime, args).await,
        BoxCommand::Import(args) => import(runtime, args).await,
    }
}

async fn export(runtime: &Runtime, args: ExportBoxArgs) -> Result<Exit, CommandFailure> {
    let options = BoxExportOptions { relative: args.relative, snapshot: args.snapshot };
    let archive = async {
        let archive = runtime.export_box(&args.id, options).await;
        archive.map_err(|error| CommandFailure::of(&error, Topic::Box))
    };
    write_archive(archive, args.output.as_deref()).await.map(|_| Exit::OK)
}

async fn import(runtime: &Runtime, args: ImportBoxArgs) -> Result<Exit, CommandFailure> {
    let archive: TarStream = match &args.file {
        path if path.as_os_str() == "-" => standard_input()?,
        path => Box::new(tokio::fs::File::open(path).await.map_err(|error| {
            CommandFailure::local(format!("{} cannot be opened: {error}", path.display()))
        })?),
    };
    let options = BoxImportOptions { name: args.name, ports: args.ports, volumes: args.volumes };
    let imported = runtime.import_box(archive, options).await;
    let imported = imported.map_err(|error| CommandFailure::of(&error, Topic::Archive))?;
    for notice in &imported.notices {
        note(&format!("boxlite: note: {notice}"));
    }
    print_line(&imported.info.id).map(|()| Exit::OK)
}
