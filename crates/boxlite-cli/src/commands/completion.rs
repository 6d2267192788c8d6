//! Completion in a shell: commands and options from the command line's own description, and the names of boxes and images
//! that there are.
//!
//! The script that `boxlite completion SHELL` prints has the shell ask this program at every press of the key, with
//! [`VARIABLE`] set. The answer comes from the home or server that the environment names; when that has no answer, or none
//! in time, there are no names, and nothing is said of it.

use std::ffi::OsStr;
use std::time::Duration;

use boxlite::{ListOptions, MissingHome, Runtime};
use clap::{Arg, ArgAction, Command, CommandFactory};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

use super::{Cli, open};
use crate::args::GlobalArgs;
use crate::environment::Environment;
use crate::render::familiar;
use crate::report::CommandFailure;

/// Set by the shell when it asks for completions.
const VARIABLE: &str = "BOXLITE_COMPLETE";
/// How long a person waits for names.
const PATIENCE: Duration = Duration::from_secs(2);

/// Returns the script that makes `shell` ask.
pub(crate) fn script(shell: Shell) -> Result<String, CommandFailure> {
    let failed =
        |error: &str| CommandFailure::local(format!("writing the completion for {shell} failed: {error}"));
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string()).ok_or_else(|| failed("the shell is unknown"))?;
    completer
        .write_registration(VARIABLE, "boxlite", "boxlite", "boxlite", &mut script)
        .map_err(|error| failed(&error.to_string()))?;
    String::from_utf8(script).map_err(|error| failed(&error.to_string()))
}

/// Answers a shell that asks; false when this is an ordinary command.
pub(crate) fn answer() -> Result<bool, clap::Error> {
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(|| with_names(Cli::command()))
        .var(VARIABLE)
        .try_complete(std::env::args_os(), here.as_deref())
}

/// The kind of name that a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Box,
    Image,
    Volume,
    Network,
    /// A box or an image.
    Any,
}

impl Named {
    fn of(value: &str) -> Option<Self> {
        match value {
            "BOX" => Some(Self::Box),
            "IMAGE" => Some(Self::Image),
            "VOLUME" => Some(Self::Volume),
            "NETWORK" | "none|user|NETWORK" => Some(Self::Network),
            "BOX|IMAGE" => Some(Self::Any),
            _ => None,
        }
    }
}

/// Completes what was begun.
fn complete(begun: &OsStr, named: Named) -> Vec<CompletionCandidate> {
    let Some(begun) = begun.to_str() else { return Vec::new() };
    let names = there_are(&Environment::collect(), named).unwrap_or_default();
    names.into_iter().filter(|name| name.starts_with(begun)).map(CompletionCandidate::new).collect()
}

/// Returns the names that there are; `None` when they cannot be found out.
fn there_are(environment: &Environment, named: Named) -> Option<Vec<String>> {
    let runtime = open::runtime(&GlobalArgs::default(), environment, MissingHome::Refuse).ok()?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let names = tokio.block_on(async { tokio::time::timeout(PATIENCE, names(&runtime, named)).await });
    tokio.shutdown_background();
    names.ok()?
}

async fn names(runtime: &Runtime, named: Named) -> Option<Vec<String>> {
    let mut names = Vec::new();
    if named == Named::Volume {
        let volumes = runtime.volumes().await.ok()?;
        return Some(volumes.into_iter().map(|volume| volume.name).collect());
    }
    if named == Named::Network {
        let networks = runtime.networks().await.ok()?;
        return Some(networks.into_iter().map(|network| network.name).collect());
    }
    if named != Named::Image {
        let boxes = runtime.list(ListOptions { all: true, filters: Vec::new() }).await.ok()?;
        names.extend(boxes.into_iter().map(|info| info.name));
    }
    if named != Named::Box {
        let images = runtime.images().await.ok()?;
        names.extend(images.iter().flat_map(|image| &image.references).map(|name| familiar(name)));
    }
    Some(names)
}

/// Has every argument completed whose value is described as a name.
fn with_names(command: Command) -> Command {
    let command = with_first_word_apart(command);
    command.mut_args(with_completer).mut_subcommands(with_names)
}

fn with_completer(argument: Arg) -> Arg {
    let value = argument.get_value_names().and_then(<[_]>::first);
    let Some(named) = value.and_then(|value| Named::of(value)) else { return argument };
    argument.add(ArgValueCompleter::new(move |begun: &OsStr| complete(begun, named)))
}

/// Splits an argument that is a name and then a command in the box, which is completed like any file.
fn with_first_word_apart(command: Command) -> Command {
    let list = command.get_positionals().find_map(|argument| match argument.get_value_names()? {
        [first, _] => Some((argument.get_id().clone(), first.clone())),
        _ => None,
    });
    let Some((list, first)) = list else { return command };
    let command = command.mut_arg(list, |list| {
        list.action(ArgAction::Set).num_args(1).trailing_var_arg(false).value_names([first])
    });
    command.arg(Arg::new("command in the box").num_args(0..).trailing_var_arg(true))
}
