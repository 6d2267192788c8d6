//! The command line, and one module per command: its arguments, what it asks of the library, and what it prints.
//!
//! `open` opens the runtime that the options name; `each` runs one action on several names. Arguments that several commands
//! share are in [`crate::args`].

mod agreement;
mod attach;
mod box_file;
mod clone;
mod commit;
pub(crate) mod completion;
mod cp;
mod create;
mod diff;
mod each;
mod events;
mod exec;
mod export;
mod gc;
pub(crate) mod grouped;
mod history;
mod id_file;
mod image;
mod images;
mod info;
mod inspect;
mod kill;
mod load;
mod login;
mod logs;
mod ls;
mod man;
mod network;
mod node;
mod open;
mod pause;
mod port;
mod port_forward;
mod prune;
mod pull;
mod push;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod serve;
mod serve_key;
mod servers;
mod setup;
mod slurm;
mod snapshot;
mod ssh;
mod start;
mod stats;
mod stop;
mod system;
mod tag;
mod top;
mod unpause;
mod update;
mod version;
mod volume;
mod wait;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::args::{BoxArgs, GlobalArgs, TemplateArgs};
use crate::environment::Environment;
use crate::render::print;
use crate::report::{CommandFailure, Exit};

/// Run OCI images as small virtual machines that never fill the host.
#[derive(Debug, Parser)]
#[command(
    name = "boxlite",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    args_override_self = true
)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

const EXIT_CODES: &str = "Exit status: that of the command in the box (128 + n when signal n ended it; 127 when it was not found, \
126 when it could not be run); 125 when boxlite itself failed; 75 when it was refused for lack of space, inodes or memory; 1 when gc or info finished but found trouble; of node check, 1 with a warning and 2 where boxes should not be placed.";

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Fetch images
    Pull(pull::PullArgs),
    /// List images
    Images(images::ImagesArgs),
    /// Send and fetch built disk images, so that many hosts build each image once
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Remove images
    Rmi(rmi::RemoveImageArgs),
    /// Give an image one more name
    Tag(tag::TagArgs),
    /// Show the steps in which an image was made
    History(history::HistoryArgs),
    /// Pack images into an archive
    Save(save::SaveArgs),
    /// Take in the images of an archive
    Load(load::LoadArgs),
    /// Send an image to a registry
    Push(push::PushArgs),
    /// List what a box has changed of its image
    Diff(diff::DiffArgs),
    /// Make an image of a box and what it has changed
    Commit(commit::CommitArgs),
    /// Pack all files of a box into a tar archive
    Export(export::ExportArgs),
    /// Move whole boxes between hosts as single files
    #[command(subcommand)]
    Box(box_file::BoxCommand),
    /// Make an image of a tar archive of files
    Import(commit::ImportArgs),
    /// Keep a user name and a password for a registry
    Login(login::LoginArgs),
    /// Forget the password for a registry
    Logout(login::LogoutArgs),
    /// Create a box from an image and run a command in it
    #[command(override_usage = "boxlite run [OPTIONS] IMAGE [COMMAND] [ARG]...")]
    Run(run::RunArgs),
    /// Create a box without starting it
    #[command(override_usage = "boxlite create [OPTIONS] IMAGE [COMMAND] [ARG]...")]
    Create(BoxArgs),
    /// Make a box like another that does not run, its files included
    Clone(clone::CloneArgs),
    /// Keep what is on a box's disk, and go back to it
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Start boxes
    Start(start::StartArgs),
    /// Run a command in a running box
    #[command(override_usage = "boxlite exec [OPTIONS] BOX COMMAND [ARG]...")]
    Exec(exec::ExecArgs),
    /// A shell or a command in a running box, by the arguments of the SSH client; the image needs no SSH server
    #[command(override_usage = "boxlite ssh [OPTIONS] [USER@]BOX [COMMAND]...")]
    Ssh(ssh::SshArgs),
    /// Connect to the main process of a running box
    Attach(attach::AttachArgs),
    /// Stop boxes
    Stop(stop::StopArgs),
    /// Send a signal to the main process of boxes
    Kill(kill::KillArgs),
    /// Stop and start boxes
    Restart(stop::StopArgs),
    /// Pause running boxes: they keep their memory, and take no processor time
    Pause(unpause::PauseArgs),
    /// Let paused boxes go on
    Unpause(unpause::PauseArgs),
    /// Change boxes: disk quota, restart policy and time to live at any time, everything else while they do not run
    Update(update::UpdateArgs),
    /// Give a box another name
    Rename(update::RenameArgs),
    /// Remove boxes
    Rm(rm::RemoveArgs),
    /// List boxes
    #[command(visible_alias = "ps")]
    Ls(ls::ListArgs),
    /// Show everything about boxes or images as JSON
    Inspect(inspect::InspectArgs),
    /// Show what a box's main process wrote
    Logs(logs::LogsArgs),
    /// Wait until boxes stop and print their exit statuses
    Wait(wait::WaitArgs),
    /// Show which ports of the host a running box has
    Port(port::PortArgs),
    /// Reach ports inside a running box from this host, published or not, until interrupted
    #[command(override_usage = "boxlite port-forward [OPTIONS] BOX [LOCAL:]REMOTE...")]
    PortForward(port_forward::PortForwardArgs),
    /// List the processes in a running box
    #[command(override_usage = "boxlite top [OPTIONS] BOX [PS OPTION]...")]
    Top(top::TopArgs),
    /// Show what boxes consume, once a second
    Stats(stats::StatsArgs),
    /// Show what happens in the home, as lines of JSON
    Events(events::EventsArgs),
    /// Copy files between a box and the host
    #[command(after_help = cp::CopyArgs::RULES)]
    Cp(cp::CopyArgs),
    /// Show what this host offers boxes, and what it lacks
    #[command(visible_alias = "doctor")]
    Info(TemplateArgs),
    /// Remove disk images and leftovers that no box needs
    Gc(gc::GcArgs),
    /// Remove all boxes that do not run, and then what no box needs; asks first
    Prune(prune::PruneArgs),
    /// Manage networks, in which boxes reach each other by name
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Manage named volumes, which boxes mount and which outlive them
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Serve the home over HTTP
    Serve(serve::ServeArgs),
    /// Make a key for `serve --keys-file`, and print its entry for that file
    ServeKey(serve_key::ServeKeyArgs),
    /// Look at the home and the host as a whole
    #[command(subcommand)]
    System(system::SystemCommand),
    /// Serve a cluster as a node: tell its scheduler whether boxes can be placed here
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Fetch the guest kernel, where this host has none
    Setup,
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// Directory for the pages, which exists
        directory: PathBuf,
    },
    /// Print a shell's completion script, which completes the names of boxes and images too
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version(TemplateArgs),
}

/// Runs a command line.
pub(crate) async fn run(cli: Cli, environment: &Environment) -> Result<Exit, CommandFailure> {
    let global = cli.global;
    let runtime = || open::runtime(&global, environment, boxlite::MissingHome::Create);
    // A mistyped home has nothing to show, so none is created for it.
    let existing = || open::runtime(&global, environment, boxlite::MissingHome::Refuse);
    match cli.command {
        CliCommand::Completion { shell } => print(&completion::script(shell)?).map(|()| Exit::OK),
        CliCommand::Man { directory } => man::man(&directory),
        CliCommand::Setup => setup::setup(environment),
        CliCommand::Version(args) => version::version(args),
        CliCommand::Node(command) => command.run(&global, environment, existing).await,
        CliCommand::Pull(args) => pull::pull(&runtime()?, args).await,
        CliCommand::Images(args) => images::images(&runtime()?, args).await,
        CliCommand::Image(command) => image::image(&runtime()?, command).await,
        CliCommand::Rmi(args) => rmi::rmi(&runtime()?, args).await,
        CliCommand::Tag(args) => tag::tag(&runtime()?, args).await,
        CliCommand::History(args) => history::history(&runtime()?, args).await,
        CliCommand::Save(args) => save::save(&runtime()?, args).await,
        CliCommand::Load(args) => load::load(&runtime()?, args).await,
        CliCommand::Push(args) => push::push(&runtime()?, args).await,
        CliCommand::Diff(args) => diff::diff(&runtime()?, args).await,
        CliCommand::Commit(args) => commit::commit(&runtime()?, args).await,
        CliCommand::Export(args) => export::export(&runtime()?, args).await,
        CliCommand::Box(command) => box_file::box_file(&runtime()?, command).await,
        CliCommand::Import(args) => commit::import(&runtime()?, args).await,
        CliCommand::Login(args) => login::login(&runtime()?, args).await,
        CliCommand::Logout(args) => login::logout(&runtime()?, args).await,
        CliCommand::Run(args) => {
            let is_tied = args.is_tied(environment, open::names_server(&global, environment)?)?;
            let runtime = if is_tied { open::tied(&global, environment)? } else { runtime()? };
            run::run(&runtime, environment, args).await
        }
        CliCommand::Create(args) => create::create(&runtime()?, environment, args).await,
        CliCommand::Clone(args) => clone::clone(&runtime()?, environment, args).await,
        CliCommand::Snapshot(command) => snapshot::snapshot(&runtime()?, command).await,
        CliCommand::Start(args) => start::start(&runtime()?, args).await,
        CliCommand::Exec(args) => exec::exec(&runtime()?, environment, args).await,
        CliCommand::Ssh(args) => ssh::ssh(&runtime()?, args).await,
        CliCommand::Attach(args) => attach::attach(&runtime()?, args).await,
        CliCommand::Stop(args) => stop::stop(&runtime()?, args).await,
        CliCommand::Kill(args) => kill::kill(&runtime()?, args).await,
        CliCommand::Restart(args) => restart::restart(&runtime()?, args).await,
        CliCommand::Update(args) => update::update(&runtime()?, environment, args).await,
        CliCommand::Rename(args) => update::rename(&runtime()?, args).await,
        CliCommand::Rm(args) => rm::rm(&runtime()?, args).await,
        CliCommand::Ls(args) => ls::ls(&runtime()?, args).await,
        CliCommand::Inspect(args) => inspect::inspect(&runtime()?, args).await,
        CliCommand::Logs(args) => logs::logs(&runtime()?, args).await,
        CliCommand::Wait(args) => wait::wait(&runtime()?, args).await,
        CliCommand::Info(args) | CliCommand::System(system::SystemCommand::Info(args)) => {
            info::info(&runtime()?, args).await
        }
        CliCommand::Serve(args) => serve::serve(&global, environment, args).await,
        CliCommand::ServeKey(args) => serve_key::serve_key(&args),
        CliCommand::Gc(args) => gc::gc(&existing()?, args).await,
        CliCommand::System(system::SystemCommand::Df(args)) => system::df(&existing()?, args).await,
        CliCommand::Prune(args) | CliCommand::System(system::SystemCommand::Prune(args)) => {
            prune::prune(&existing()?, args).await
        }
        CliCommand::Network(command) => network::network(&runtime()?, command).await,
        CliCommand::Volume(command) => volume::volume(&runtime()?, command).await,
        CliCommand::Pause(args) => unpause::pause(&runtime()?, args).await,
        CliCommand::Unpause(args) => unpause::unpause(&runtime()?, args).await,
        CliCommand::Events(args) => events::events(&existing()?, args).await,
        CliCommand::Top(args) => top::top(&runtime()?, args).await,
        CliCommand::Stats(args) => stats::stats(&runtime()?, args).await,
        CliCommand::Port(args) => port::port(&runtime()?, args).await,
        CliCommand::PortForward(args) => port_forward::port_forward(&runtime()?, args).await,
        CliCommand::Cp(args) => cp::cp(&runtime()?, args).await,
    }
}

#[cfg(test)]
mod tests;
