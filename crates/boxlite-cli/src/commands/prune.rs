//! `prune` and `system prune`.

use boxlite::settings::Bytes;
use boxlite::{BoxInfo, BoxState, ErrorKind, GcOptions, ListOptions, RemoveOptions, Runtime};
use clap::Args;

use super::agreement;
use crate::render::print;
use crate::report::{CommandFailure, Exit, Topic, visible};

/// `prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Drop images that no box uses as well, tagged or not
    #[arg(short, long)]
    all: bool,
    /// With --all, drop those that were loaded, committed, imported or tagged here as well: no registry can give them back
    #[arg(long, requires = "all")]
    local: bool,
    /// Accepted because Docker has it: there are no volumes without a name, and `volume prune` removes named ones
    #[arg(long, hide = true)]
    volumes: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(super) async fn prune(runtime: &Runtime, args: PruneArgs) -> Result<Exit, CommandFailure> {
    let collect = |dry_run| GcOptions { dry_run, all: args.all, local: args.local, ..GcOptions::default() };
    let failed = |error: boxlite::Error| CommandFailure::of(&error, Topic::Collection);
    // Answers before anything is removed where the home is another host's.
    runtime.collect_garbage(collect(true)).await.map_err(failed)?;
    let listed = runtime.list(ListOptions { all: true, ..ListOptions::default() }).await;
    let boxes: Vec<BoxInfo> =
        listed.map_err(|error| CommandFailure::of(&error, Topic::Host))?.into_iter().filter(rests).collect();
    if !args.force {
        agreement::ask(&announcement(&boxes, &args))?;
    }
    let mut exit = Exit::OK;
    let mut freed = 0;
    for info in &boxes {
        // It may have been started since, and about to be restarted by now.
        match runtime.inspect(&info.id).await {
            Ok(now) if !rests(&now) => continue,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            // The removal names what is wrong with it.
            _ => {}
        }
        match runtime.remove(&info.id, RemoveOptions { force: false }).await {
            Ok(()) => {
                freed += info.disk_allocated.unwrap_or(0);
                print(&format!("removed box {}\n", visible(&info.name)))?;
            }
            // It was removed, or started, meanwhile.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
            Err(error) => {
                let failure = CommandFailure::of(&error, Topic::Removal);
                failure.print();
                exit = failure.exit();
            }
        }
    }
    let report = runtime.collect_garbage(collect(false)).await.map_err(failed)?;
    let freed = Bytes(freed.saturating_add(report.reclaimed));
    print(&format!("{freed} freed\n"))?;
    Ok(if report.failed() { Exit::INCOMPLETE } else { exit })
}

/// Whether a box neither runs nor is about to be restarted.
fn rests(info: &BoxInfo) -> bool {
    !info.state.is_up() && info.state != BoxState::Restarting
}

/// Says what will be removed.
fn announcement(boxes: &[BoxInfo], args: &PruneArgs) -> String {
    let names: Vec<String> = boxes.iter().map(|info| visible(&info.name)).collect();
    let boxes = match names.as_slice() {
        [] => "no box".to_owned(),
        names => format!("the boxes that do not run, with their files: {}", names.join(", ")),
    };
    let images = match (args.all, args.local) {
        (true, true) => "images, also those that no registry can give back, disk images",
        (true, false) => "images that a registry can give back, disk images",
        (false, _) => "disk images",
    };
    format!("This removes\n  - {boxes}\n  - {images} and leftovers that no box needs")
}
