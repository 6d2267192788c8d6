//! `volume`.

use boxlite::settings::Bytes;
use boxlite::{ErrorKind, Runtime, VolumeInfo, VolumeOptions};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::agreement;
use super::each::each;
use crate::args::{Layout, ListFormatArgs, TemplateArgs, label};
use crate::render::{TextTable, ago, docker, json, laid_out, print, print_line, template_lines};
use crate::report::{CommandFailure, Exit, Topic, visible};

/// `volume`.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make a volume, which takes up no more of the disk than what is written to it
    Create(CreateVolumeArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(ListVolumesArgs),
    /// Show everything about volumes as JSON
    Inspect(InspectVolumesArgs),
    /// Remove volumes and all that they hold, unless a box mounts them
    #[command(visible_alias = "remove")]
    Rm(RemoveVolumesArgs),
    /// Remove all volumes that no box mounts; asks first
    Prune(PruneVolumesArgs),
}

/// `volume create`.
#[derive(Debug, Args)]
pub(crate) struct CreateVolumeArgs {
    /// The most that it holds, from 32 MiB to 16 TiB [default: the settings']
    #[arg(short, long, value_name = "SIZE")]
    size: Option<Bytes>,
    /// Accepted because Docker's volumes have drivers; there is one
    #[arg(short, long, hide = true, value_name = "DRIVER", value_parser = ["local"])]
    driver: Option<String>,
    /// Add a label
    #[arg(short, long = "label", value_name = "NAME[=VALUE]", value_parser = label)]
    labels: Vec<(String, String)>,
    /// A letter or digit, then letters, digits, `_`, `.` and `-`
    #[arg(value_name = "NAME")]
    name: String,
}

/// `volume ls`.
#[derive(Debug, Args)]
pub(crate) struct ListVolumesArgs {
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    format: ListFormatArgs,
}

/// `volume inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectVolumesArgs {
    /// Names of volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
    #[command(flatten)]
    format: TemplateArgs,
}

/// `volume rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveVolumesArgs {
    /// Say nothing of volumes that are not there; what a box mounts stays all the same
    #[arg(short, long)]
    force: bool,
    /// Names of volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

/// `volume prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneVolumesArgs {
    /// Accepted because Docker has it: named volumes are removed in any case
    #[arg(short, long, hide = true)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(super) async fn volume(runtime: &Runtime, command: VolumeCommand) -> Result<Exit, CommandFailure> {
    match command {
        VolumeCommand::Create(args) => create(runtime, args).await,
        VolumeCommand::Ls(args) => ls(runtime, args).await,
        VolumeCommand::Inspect(args) => inspect(runtime, args).await,
        VolumeCommand::Rm(args) => rm(runtime, args).await,
        VolumeCommand::Prune(args) => prune(runtime, args).await,
    }
}

async fn create(runtime: &Runtime, args: CreateVolumeArgs) -> Result<Exit, CommandFailure> {
    let labels = args.labels.into_iter().collect();
    let options = VolumeOptions { name: args.name, size: args.size.map(|Bytes(size)| size), labels };
    let made =
        runtime.create_volume(options).await.map_err(|error| CommandFailure::of(&error, Topic::Volume))?;
    print_line(&made.name).map(|()| Exit::OK)
}

async fn ls(runtime: &Runtime, args: ListVolumesArgs) -> Result<Exit, CommandFailure> {
    let volumes = runtime.volumes().await.map_err(|error| CommandFailure::of(&error, Topic::Host))?;
    let text = match &args.format.format {
        _ if args.quiet => volumes.iter().map(|volume| visible(&volume.name) + "\n").collect(),
        layout => laid_out(layout, &volumes, |volumes| table(volumes, Timestamp::now()), docker::volume)?,
    };
    print(&text).map(|()| Exit::OK)
}

fn table(volumes: &[VolumeInfo], now: Timestamp) -> String {
    let mut table = TextTable::new(&["NAME", "SIZE", "ALLOCATED", "CREATED", "IN USE", "BOXES"]);
    for volume in volumes {
        table.row([
            volume.name.clone(),
            Bytes(volume.size).to_string(),
            Bytes(volume.allocated).to_string(),
            ago(volume.created_at, now),
            if volume.in_use { "yes" } else { "no" }.to_owned(),
            volume.boxes.join(", "),
        ]);
    }
    table.text()
}

async fn inspect(runtime: &Runtime, args: InspectVolumesArgs) -> Result<Exit, CommandFailure> {
    let mut found = Vec::new();
    let exit = each(&args.names, Topic::Volume, async |name: &str| {
        found.push(runtime.volume(name).await?);
        Ok(None)
    })
    .await?;
    // A table of everything would be no table.
    let text = match args.format.format {
        Some(Layout::Template(template)) => {
            template_lines(&template, found.iter().map(|one| (one, docker::volume(one))))?
        }
        _ => json(&found)?,
    };
    print(&text).map(|()| exit)
}

async fn rm(runtime: &Runtime, args: RemoveVolumesArgs) -> Result<Exit, CommandFailure> {
    each(&args.names, Topic::Volume, async |name: &str| match runtime.remove_volume(name).await {
        Ok(_) => Ok(Some(name.to_owned())),
        Err(error) if args.force && error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    })
    .await
}

async fn prune(runtime: &Runtime, args: PruneVolumesArgs) -> Result<Exit, CommandFailure> {
    let failed = |error: boxlite::Error| CommandFailure::of(&error, Topic::Volume);
    if !args.force {
        let volumes = runtime.volumes().await.map_err(failed)?;
        let unused = volumes.iter().filter(|volume| volume.boxes.is_empty());
        let names: Vec<String> = unused.map(|volume| visible(&volume.name)).collect();
        let names = if names.is_empty() { "no volume".to_owned() } else { names.join(", ") };
        agreement::ask(&format!("This removes the volumes that no box mounts, with their files: {names}"))?;
    }
    let pruned = runtime.prune_volumes().await.map_err(failed)?;
    for name in &pruned.removed {
        print_line(&format!("removed volume {}", visible(name)))?;
    }
    for failure in &pruned.failures {
        print_line(&format!("not removed: {}", visible(failure)))?;
    }
    print_line(&format!("{} freed", Bytes(pruned.reclaimed)))?;
    Ok(if pruned.failures.is_empty() { Exit::OK } else { Exit::INCOMPLETE })
}
