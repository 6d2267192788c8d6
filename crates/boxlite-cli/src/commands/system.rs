//! `system`.

use boxlite::gc::DiskTree;
use boxlite::{Runtime, Usage};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::prune::PruneArgs;
use crate::args::{FormatArgs, TemplateArgs};
use crate::render::{formatted, print, tree_text, usage_text};
use crate::report::{CommandFailure, Exit, Topic};

/// `system`.
#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Show how much disk space images and boxes take
    Df(DfArgs),
    /// Show what this host offers boxes, and what it lacks
    Info(TemplateArgs),
    /// Remove all boxes that do not run, and then what no box needs; asks first
    Prune(PruneArgs),
}

/// `system df`.
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Show each image and what it shares, each disk image, and each box
    #[arg(short, long)]
    verbose: bool,
    /// Show what the home consists of as a tree, each part with why it is there
    #[arg(long)]
    tree: bool,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) async fn df(runtime: &Runtime, args: DfArgs) -> Result<Exit, CommandFailure> {
    if args.tree {
        let tree = runtime.disk_tree().await.map_err(|error| CommandFailure::of(&error, Topic::Host))?;
        print(&formatted(args.format.format, &tree, |tree: &DiskTree| tree_text(tree, args.verbose))?)?;
        return Ok(if tree.unreadable.is_empty() { Exit::OK } else { Exit::INCOMPLETE });
    }
    let usage = runtime.disk_usage().await.map_err(|error| CommandFailure::of(&error, Topic::Host))?;
    let table = |usage: &Usage| usage_text(usage, args.verbose, Timestamp::now());
    print(&formatted(args.format.format, &usage, table)?)?;
    Ok(if usage.unreadable.is_empty() { Exit::OK } else { Exit::INCOMPLETE })
}
