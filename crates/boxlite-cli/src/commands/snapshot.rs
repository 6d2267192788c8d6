//! `snapshot`.

use boxlite::settings::Bytes;
use boxlite::{RestoreOptions, Runtime, Snapshot, SnapshotOptions};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::args::FormatArgs;
use crate::render::{TextTable, ago, formatted, print, print_line};
use crate::report::{CommandFailure, Exit, Topic};

/// `snapshot`.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Take a snapshot of a box's disk, whether or not the box runs
    #[command(
        after_help = "A guest that runs writes out its disk and stands still for a moment. Its memory is not kept."
    )]
    Create(SnapshotCreateArgs),
    /// List the snapshots of a box, oldest first
    #[command(visible_alias = "list")]
    Ls(SnapshotListArgs),
    /// Put a box that does not run back to a snapshot: what it wrote since is gone
    Restore(SnapshotRestoreArgs),
    /// Remove snapshots; gc frees what nothing stands on any more
    Rm(SnapshotRemoveArgs),
}

/// `snapshot create`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotCreateArgs {
    /// The box: name, id or unique beginning of its id
    #[arg(value_name = "BOX")]
    id: String,
    /// Name of the snapshot [default: made of the time]
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// `snapshot ls`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotListArgs {
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    format: FormatArgs,
    /// The box: name, id or unique beginning of its id
    #[arg(value_name = "BOX")]
    id: String,
}

/// `snapshot restore`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotRestoreArgs {
    /// Stop the box first, if it runs
    #[arg(short, long)]
    force: bool,
    /// The box: name, id or unique beginning of its id
    #[arg(value_name = "BOX")]
    id: String,
    /// The snapshot
    #[arg(value_name = "NAME")]
    name: String,
}

/// `snapshot rm`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotRemoveArgs {
    /// The box: name, id or unique beginning of its id
    #[arg(value_name = "BOX")]
    id: String,
    /// The snapshots
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

pub(super) async fn snapshot(runtime: &Runtime, command: SnapshotCommand) -> Result<Exit, CommandFailure> {
    let failure = |error| CommandFailure::of(&error, Topic::Box);
    match command {
        SnapshotCommand::Create(SnapshotCreateArgs { id, name }) => {
            let taken = runtime.create_snapshot(&id, SnapshotOptions { name }).await.map_err(failure)?;
            print_line(&taken.name)?;
        }
        SnapshotCommand::Ls(SnapshotListArgs { quiet, format, id }) => {
            let snapshots = runtime.snapshots(&id).await.map_err(failure)?;
            let text = match format.format {
                _ if quiet => snapshots.iter().map(|snapshot| snapshot.name.clone() + "\n").collect(),
                format => formatted(format, snapshots.as_slice(), |all| table(all, Timestamp::now()))?,
            };
            print(&text)?;
        }
        SnapshotCommand::Restore(SnapshotRestoreArgs { force, id, name }) => {
            runtime.restore_snapshot(&id, &name, RestoreOptions { force }).await.map_err(failure)?;
            print_line(&name)?;
        }
        SnapshotCommand::Rm(SnapshotRemoveArgs { id, names }) => {
            for name in names {
                runtime.remove_snapshot(&id, &name).await.map_err(failure)?;
                print_line(&name)?;
            }
        }
    }
    Ok(Exit::OK)
}

fn table(snapshots: &[Snapshot], now: Timestamp) -> String {
    let mut table = TextTable::new(&["NAME", "CREATED", "SIZE", "PAUSED"]);
    for snapshot in snapshots {
        table.row([
            snapshot.name.clone(),
            ago(snapshot.created_at, now),
            snapshot.bytes.map_or_else(|| "?".into(), |bytes| Bytes(bytes).to_string()),
            snapshot.frozen_us.map_or_else(|| "-".into(), |us| format!("{:.1} ms", us as f64 / 1000.0)),
        ]);
    }
    table.text()
}
