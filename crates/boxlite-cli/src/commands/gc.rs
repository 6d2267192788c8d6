//! `gc`.

use std::time::Duration;

use boxlite::settings::{Bytes, parse_duration};
use boxlite::{GcOptions, Runtime};
use clap::Args;
use jiff::Timestamp;

use crate::args::{FormatArgs, moment};
use crate::render::{explanation_text, formatted, gc_text, print};
use crate::report::{CommandFailure, Exit, Topic};

/// `gc`.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Delete nothing, and report what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Drop images that no box uses as well, tagged or not
    #[arg(short, long)]
    all: bool,
    /// With --all, drop those that were loaded, committed, imported or tagged here as well: no registry can give them back
    #[arg(long, requires = "all")]
    local: bool,
    /// Stop, least recently used first, once images, disk images and bases take no more than this
    #[arg(long, value_name = "SIZE")]
    keep_storage: Option<Bytes>,
    /// until=TIME: spare what was used since then; a time, or a duration before now such as 24h
    #[arg(long, value_name = "until=TIME", value_parser = until)]
    filter: Option<Duration>,
    /// Stop once so much has been freed: garbage first, then disk images, least recently used first
    #[arg(long, value_name = "SIZE")]
    free: Option<Bytes>,
    /// Derive every chain again with qemu-img, and remove nothing unless the two agree
    #[arg(long)]
    verify: bool,
    /// Delete nothing; say who pins an image's disk image, a box's files or a base, by which source and until when
    #[arg(long, value_name = "IMAGE|BOX|BASE", conflicts_with_all = ["dry_run", "all", "keep_storage", "filter", "free", "verify", "adopt", "purge", "adopt_home"])]
    explain: Option<String>,
    /// Give a box that the database does not know its record back: the name of its directory, or a beginning of it
    #[arg(long, value_name = "ID", conflicts_with_all = ["dry_run", "all", "keep_storage", "filter", "free", "verify"])]
    adopt: Option<String>,
    /// Remove for good what nothing explains: a box directory or a base, by its whole name
    #[arg(long, value_name = "ID", conflicts_with_all = ["dry_run", "all", "keep_storage", "filter", "free", "verify", "adopt"])]
    purge: Option<String>,
    /// Declare that home and database belong together although their ids differ
    #[arg(long, conflicts_with_all = ["dry_run", "all", "keep_storage", "filter", "free", "verify", "adopt", "purge"])]
    adopt_home: bool,
    #[command(flatten)]
    format: FormatArgs,
}

impl GcArgs {
    /// Returns the library's options for these arguments.
    pub(super) fn options(&self) -> GcOptions {
        GcOptions {
            dry_run: self.dry_run,
            all: self.all,
            local: self.local,
            keep_storage: self.keep_storage.map(|bytes| bytes.0),
            until: self.filter,
            free: self.free.map(|bytes| bytes.0),
            verify: self.verify,
        }
    }
}

pub(super) fn until(text: &str) -> Result<Duration, String> {
    let Some(("until", value)) = text.split_once('=') else {
        return Err(format!("`{text}` is not a filter; the only one is until=TIME"));
    };
    if let Ok(duration) = parse_duration(value) {
        return Ok(duration);
    }
    let ago = Timestamp::now().duration_since(moment(value)?);
    Duration::try_from(ago).map_err(|_| format!("`{value}` is in the future"))
}

pub(super) async fn gc(runtime: &Runtime, args: GcArgs) -> Result<Exit, CommandFailure> {
    let failed = |error: boxlite::Error| CommandFailure::of(&error, Topic::Collection);
    if let Some(name) = &args.explain {
        let explanation = runtime.explain_garbage(name).await.map_err(failed)?;
        let now = Timestamp::now();
        print(&formatted(args.format.format, &explanation, |found| explanation_text(found, now))?)?;
        return Ok(if explanation.unreadable.is_empty() { Exit::OK } else { Exit::INCOMPLETE });
    }
    if let Some(id) = &args.adopt {
        let adopted = runtime.adopt(id).await.map_err(failed)?;
        for notice in &adopted.notices {
            eprintln!("boxlite: {notice}");
        }
        return print(&format!("{}\n", adopted.info.name)).map(|()| Exit::OK);
    }
    if let Some(id) = &args.purge {
        let purged = runtime.purge(id).await.map_err(failed)?;
        return print(&format!("{} removed, {} freed\n", purged.name, Bytes(purged.reclaimed)))
            .map(|()| Exit::OK);
    }
    if args.adopt_home {
        return runtime.adopt_home().await.map(|()| Exit::OK).map_err(failed);
    }
    let report = runtime
        .collect_garbage(args.options())
        .await
        .map_err(|error| CommandFailure::of(&error, Topic::Collection))?;
    print(&formatted(args.format.format, &report, gc_text)?)?;
    Ok(if report.failed() { Exit::INCOMPLETE } else { Exit::OK })
}
