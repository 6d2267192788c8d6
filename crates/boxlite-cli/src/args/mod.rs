//! What can be said on the command line.

mod boxes;
mod create;
mod env;
mod filter;
mod images;
mod process;
mod serve;
mod signal;
mod since;
mod storage;

pub(crate) use boxes::{
    AttachArgs, CloneArgs, CopyArgs, ExecArgs, InspectArgs, KillArgs, ListArgs, LogsArgs, RemoveArgs,
    StartArgs, StopArgs, WaitArgs,
};
pub(crate) use create::{CreateArgs, RunArgs};
pub(crate) use images::{ImagesArgs, PullArgs, RemoveImageArgs};
pub(crate) use serve::ServeArgs;
pub(crate) use storage::{DfArgs, GcArgs, SystemCommand};

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Run OCI images as small virtual machines that never fill the host.
#[derive(Debug, Parser)]
#[command(name = "boxlite", version, propagate_version = false, disable_help_subcommand = true)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit status: that of the command in the box (128 + n when signal n ended it; 127 when it was not found, \
126 when it could not be run); 125 when boxlite itself failed; 1 when gc or info finished but found trouble.";

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct GlobalArgs {
    /// Directory that holds images and boxes [default: `$BOXLITE_HOME`, or ~/.boxlite]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// What runs the guests' code [default: auto]
    #[arg(long, global = true, value_enum, value_name = "HOW")]
    pub(crate) accel: Option<Acceleration>,
    /// Work on the home of a server, `boxlite serve`, and not on one of this host [default: `$BOXLITE_REST_URL`]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// File that holds the API key of that server [default: the variable `BOXLITE_API_KEY`]; of `serve`: the key to
    /// ask for
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Say on standard error what is being done (the variable `BOXLITE_LOG` takes a finer filter)
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

/// `--accel`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Acceleration {
    /// Hardware virtualisation where it works, else emulation
    #[default]
    Auto,
    /// Hardware virtualisation or an error
    Kvm,
    /// Emulation
    Tcg,
}

/// How output is laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people; may change.
    #[default]
    Table,
    /// For programs; stable.
    Json,
}

/// `--format`, for the commands that print data.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FormatArgs {
    /// Lay the output out as a table, or as JSON that programs can rely on
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch images
    Pull(PullArgs),
    /// List images
    Images(ImagesArgs),
    /// Remove images
    Rmi(RemoveImageArgs),
    /// Create a box from an image and run a command in it
    #[command(override_usage = "boxlite run [OPTIONS] IMAGE [COMMAND] [ARG]...")]
    Run(RunArgs),
    /// Create a box without starting it
    #[command(override_usage = "boxlite create [OPTIONS] IMAGE [COMMAND] [ARG]...")]
    Create(CreateArgs),
    /// Make a box like another that does not run, its files included
    Clone(CloneArgs),
    /// Start boxes
    Start(StartArgs),
    /// Run a command in a running box
    #[command(override_usage = "boxlite exec [OPTIONS] BOX COMMAND [ARG]...")]
    Exec(ExecArgs),
    /// Connect to the main process of a running box
    Attach(AttachArgs),
    /// Stop boxes
    Stop(StopArgs),
    /// Send a signal to the main process of boxes
    Kill(KillArgs),
    /// Stop and start boxes
    Restart(StopArgs),
    /// Remove boxes
    Rm(RemoveArgs),
    /// List boxes
    #[command(visible_alias = "ps")]
    Ls(ListArgs),
    /// Show everything about boxes or images as JSON
    Inspect(InspectArgs),
    /// Show what a box's main process wrote
    Logs(LogsArgs),
    /// Wait until boxes stop and print their exit statuses
    Wait(WaitArgs),
    /// Copy files between a box and the host
    #[command(after_help = CopyArgs::RULES)]
    Cp(CopyArgs),
    /// Show what this host offers boxes, and what it lacks
    #[command(visible_alias = "doctor")]
    Info(FormatArgs),
    /// Remove disk images and leftovers that no box needs
    Gc(GcArgs),
    /// Serve the home over HTTP
    Serve(ServeArgs),
    /// Look at the home and the host as a whole
    #[command(subcommand)]
    System(SystemCommand),
    /// Print a shell's completion script
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version(FormatArgs),
}

#[cfg(test)]
mod tests;
