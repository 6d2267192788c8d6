//! `save`.

use std::path::PathBuf;

use boxlite::{ArchiveFormat, Runtime};
use clap::{Args, ValueEnum};

use crate::copy::write_archive;
use crate::report::{CommandFailure, Exit, Topic};

/// `save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Write to this file instead of standard output; it appears once it is whole
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The archive's form
    #[arg(long, value_enum, default_value_t)]
    format: SaveFormat,
    /// References, ids or unique beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// `--format` of `save`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum SaveFormat {
    /// As `docker save`, which is an OCI layout as well
    #[default]
    DockerArchive,
    /// An OCI layout alone
    OciArchive,
}

pub(super) async fn save(runtime: &Runtime, args: SaveArgs) -> Result<Exit, CommandFailure> {
    let format = match args.format {
        SaveFormat::DockerArchive => ArchiveFormat::DockerArchive,
        SaveFormat::OciArchive => ArchiveFormat::OciArchive,
    };
    let archive = async {
        let saved = runtime.save(&args.images, format).await;
        saved.map_err(|error| CommandFailure::of(&error, Topic::ImageRemoval))
    };
    write_archive(archive, args.output.as_deref()).await.map(|_| Exit::OK)
}
