//! The commands on the space that a home takes.

use std::time::Duration;

use boxlite::GcOptions;
use boxlite::settings::{Bytes, parse_duration};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{FormatArgs, since};

/// `gc`.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Delete nothing, and report what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Drop images that no box uses as well, tagged or not
    #[arg(short, long)]
    all: bool,
    /// Stop, least recently used first, once images, disk images and bases take no more than this
    #[arg(long, value_name = "SIZE")]
    keep_storage: Option<Bytes>,
    /// until=TIME: spare what was used since then; a time, or a duration before now such as 24h
    #[arg(long, value_name = "until=TIME", value_parser = until)]
    filter: Option<Duration>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

impl GcArgs {
    /// The library's options for these arguments.
    pub(crate) fn options(&self) -> GcOptions {
        GcOptions {
            dry_run: self.dry_run,
            all: self.all,
            keep_storage: self.keep_storage.map(|bytes| bytes.0),
            until: self.filter,
        }
    }
}

pub(super) fn until(text: &str) -> Result<Duration, String> {
    let Some(("until", value)) = text.split_once('=') else {
        return Err(format!("`{text}` is no filter; the only one is until=TIME"));
    };
    if let Ok(duration) = parse_duration(value) {
        return Ok(duration);
    }
    let ago = Timestamp::now().duration_since(since::moment(value)?);
    Duration::try_from(ago).map_err(|_| format!("`{value}` is in the future"))
}

/// `system`.
#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Show how much disk space images and boxes take
    Df(DfArgs),
    /// Show what this host offers boxes, and what it lacks
    Info(FormatArgs),
}

/// `system df`.
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Show each disk image and each box
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}
