//! `run`: create, start, attach.

use std::ops::ControlFlow;

use boxlite::{BoxInfo, BoxOptions, ErrorKind, RemoveOptions, Runtime, StopOptions};

use super::host_env;
use crate::args::RunArgs;
use crate::render::{print_line, progress};
use crate::report::{Exit, Failure, Topic, note};
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
    let end = match runtime.attach(&id).await {
        Ok(execution) => connect(execution, wiring).await,
        Err(error) => Err(Failure::of(&error, Topic::Start)),
    };
    // A box that may still run is not ours to remove; it goes by itself when it ends.
    let may_run = match &end {
        Ok(End::LeftRunning(_)) => true,
        Ok(End::Ended(_)) => false,
        Err(failure) => failure.is_of_server(),
    };
    if remove && !may_run {
        unless_interrupted(&id, remove_ended(runtime, &id)).await;
    }
    end.map(End::exit)
}

/// Cleans up behind a box, for as long as the user has the patience.
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
    // The start goes on behind our back, and may have got hold of the box only after that.
    if starting.await.is_ok() {
        stopped = stop().await;
    }
    if let Err(error) = stopped
        && error.kind() != ErrorKind::NotFound
    {
        Failure::of(&error, Topic::Box).print();
    }
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
/// What fails or is interrupted before it runs leaves no box that was to be removed anyway, and none that runs.
async fn begin(
    runtime: &Runtime,
    options: BoxOptions,
    quiet: bool,
) -> Result<ControlFlow<Exit, String>, Failure> {
    let info = tokio::select! {
        created = runtime.create(options, progress(quiet)) => created.map_err(|error| Failure::of(&error, Topic::NewBox))?,
        signal = interruption() => return Ok(ControlFlow::Break(Exit::of_signal(signal))),
    };
    let mut starting = std::pin::pin!(runtime.start(&info.id, progress(quiet)));
    let outcome = tokio::select! {
        started = &mut starting => {
            started.map(|_| ControlFlow::Continue(info.id.clone())).map_err(|error| Failure::of(&error, Topic::Start))
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
