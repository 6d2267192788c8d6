//! `run`: create, start, attach.

use std::ops::ControlFlow;

use boxlite::{BoxOptions, ErrorKind, RemoveOptions, Runtime};

use super::host_env;
use crate::args::RunArgs;
use crate::render::{print_line, progress};
use crate::report::{Exit, Failure, Topic};
use crate::terminal::{End, Wiring, connect, interruption};

pub(super) async fn run(runtime: &Runtime, args: RunArgs) -> Result<Exit, Failure> {
    let detach = args.detach;
    let options = args.create.options(host_env)?;
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
    let execution = runtime.attach(&id).await.map_err(|error| Failure::of(&error, Topic::Start))?;
    let end = connect(execution, wiring).await?;
    if let (End::Ended(_), true) = (end, remove) {
        remove_ended(runtime, &id).await;
    }
    Ok(end.exit())
}

/// Removes a box that has done its work; somebody else may have done so already.
async fn remove_ended(runtime: &Runtime, id: &str) {
    if let Err(error) = runtime.remove(id, RemoveOptions { force: true }).await
        && error.kind() != ErrorKind::NotFound
    {
        Failure::of(&error, Topic::Removal).print();
    }
}

/// Creates and starts, and returns the id or how it was interrupted.
///
/// What fails or is interrupted before it runs leaves no box that was to be removed anyway.
async fn begin(
    runtime: &Runtime,
    options: BoxOptions,
    quiet: bool,
) -> Result<ControlFlow<Exit, String>, Failure> {
    let info = tokio::select! {
        created = runtime.create(options, progress(quiet)) => created.map_err(|error| Failure::of(&error, Topic::NewBox))?,
        signal = interruption() => return Ok(ControlFlow::Break(Exit::of_signal(signal))),
    };
    let outcome = tokio::select! {
        started = runtime.start(&info.id, progress(quiet)) => {
            started.map(|_| ControlFlow::Continue(info.id.clone())).map_err(|error| Failure::of(&error, Topic::Start))
        }
        signal = interruption() => Ok(ControlFlow::Break(Exit::of_signal(signal))),
    };
    if info.options.auto_remove && !matches!(outcome, Ok(ControlFlow::Continue(_))) {
        remove_ended(runtime, &info.id).await;
    }
    outcome
}
