//! `run`: creates a box, starts it and attaches to it.

use std::ops::ControlFlow;

use boxlite::{BoxInfo, BoxOptions, ErrorKind, RemoveOptions, Runtime, StopOptions};
use clap::Args;

use crate::args::BoxArgs;
use crate::environment::Environment;
use crate::render::{print_line, progress};
use crate::report::{CommandFailure, Exit, Topic, note};
use crate::terminal::{SessionExit, Wiring, connect, interruption};

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Print the box's id and leave it running
    #[arg(short, long)]
    detach: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    pub(super) options: BoxArgs,
}

pub(super) async fn run(
    runtime: &Runtime,
    environment: &Environment,
    args: RunArgs,
) -> Result<Exit, CommandFailure> {
    let detach = args.detach;
    let options = args.options.options(|name| environment.text(name))?;
    let wiring = Wiring { tty: options.tty, stdin: options.stdin };
    let remove = options.auto_remove;
    if !detach {
        wiring.check()?;
    }
    let id = match begin(runtime, options, args.quiet).await? {
        ControlFlow::Continue(id) => id,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    if detach {
        return print_line(&id).map(|()| Exit::OK);
    }
    let end = match runtime.attach(&id).await {
        Ok(execution) => connect(execution, wiring).await,
        Err(error) => Err(CommandFailure::of(&error, Topic::Start)),
    };
    // A box that may still run removes itself when it ends.
    let may_run = match &end {
        Ok(SessionExit::LeftRunning(_)) => true,
        Ok(SessionExit::Ended(_)) => false,
        Err(failure) => failure.is_of_server(),
    };
    if remove && !may_run {
        unless_interrupted(&id, remove_ended(runtime, &id)).await;
    }
    end.map(SessionExit::exit)
}

/// Cleans up after a box until the user interrupts.
async fn unless_interrupted(id: &str, cleaning: impl Future<Output = ()>) {
    tokio::select! {
        () = cleaning => {}
        _ = interruption() => note(&format!("boxlite: warning: box {id} is left as it is")),
    }
}

/// Stops a box whose start was interrupted.
async fn call_off(
    runtime: &Runtime,
    id: &str,
    starting: impl Future<Output = Result<BoxInfo, boxlite::Error>>,
) {
    let stop = || runtime.stop(id, StopOptions { timeout: Some(0) });
    let mut stopped = stop().await;
    // The start continues in the background and may have locked the box only after that stop.
    if starting.await.is_ok() {
        stopped = stop().await;
    }
    if let Err(error) = stopped
        && error.kind() != ErrorKind::NotFound
    {
        CommandFailure::of(&error, Topic::Box).print();
    }
}

/// Removes a box that has ended, unless another process already did.
async fn remove_ended(runtime: &Runtime, id: &str) {
    if let Err(error) = runtime.remove(id, RemoveOptions { force: true }).await
        && error.kind() != ErrorKind::NotFound
    {
        CommandFailure::of(&error, Topic::Removal).print();
    }
}

/// Creates and starts a box; returns its id, or the exit status after an interruption.
///
/// A box that fails or is interrupted before it runs is stopped, and removed if it was to remove itself.
async fn begin(
    runtime: &Runtime,
    options: BoxOptions,
    quiet: bool,
) -> Result<ControlFlow<Exit, String>, CommandFailure> {
    let info = tokio::select! {
        created = runtime.create(options, progress(quiet)) => created.map_err(|error| CommandFailure::of(&error, Topic::NewBox))?,
        signal = interruption() => return Ok(ControlFlow::Break(Exit::of_signal(signal))),
    };
    let mut starting = std::pin::pin!(runtime.start(&info.id, progress(quiet)));
    let outcome = tokio::select! {
        started = &mut starting => {
            started.map(|_| ControlFlow::Continue(info.id.clone())).map_err(|error| CommandFailure::of(&error, Topic::Start))
        }
        signal = interruption() => Ok(ControlFlow::Break(Exit::of_signal(signal))),
    };
    match &outcome {
        Ok(ControlFlow::Continue(_)) => {}
        _ if info.options.auto_remove => {
            unless_interrupted(&info.id, remove_ended(runtime, &info.id)).await;
        }
        Ok(ControlFlow::Break(_)) => {
            unless_interrupted(&info.id, call_off(runtime, &info.id, starting)).await;
        }
        Err(_) => {}
    }
    outcome
}
