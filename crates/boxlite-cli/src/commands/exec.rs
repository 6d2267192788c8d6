//! `exec`.

use std::ops::ControlFlow::{Break, Continue};
use std::time::Duration;

use boxlite::{
    ErrorKind, ExecOptions, Execution, ExecutionState, ExitStatus, HoldTerms, Runtime, UnattendedPolicy,
    WindowSize,
};
use clap::Args;

use super::pause::PauseNotices;
use crate::args::{HostVariables, ProcessArgs};
use crate::environment::Environment;
use crate::report::{CommandFailure, Exit, Topic, note};
use crate::terminal::{
    DetachArgs, DetachKeys, Interruptions, SessionExit, Wiring, conclude, connect, detach_from,
    window_size_or_default,
};

/// `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Do not wait for the command, and do not show its output
    #[arg(short, long)]
    detach: bool,
    /// Fail while the box is paused, instead of waiting until it resumes
    #[arg(long)]
    no_wait: bool,
    /// Kill the command after so many seconds and end with 124
    #[arg(long, value_name = "SECONDS", conflicts_with = "detach", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    keys: DetachArgs,
    /// Accepted because Docker has it: root of a box has every capability of its machine
    #[arg(long, hide = true)]
    privileged: bool,
    #[command(flatten)]
    process: ProcessArgs,
    /// The box, then the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["BOX", "COMMAND"])]
    box_and_command: Vec<String>,
}

impl ExecArgs {
    /// The box and the library's options for these arguments.
    pub(super) fn options(
        self,
        host: &impl HostVariables,
        size: WindowSize,
    ) -> Result<(String, ExecOptions), CommandFailure> {
        let process = self.process;
        let mut words = self.box_and_command.into_iter();
        let id = words.next().unwrap_or_default();
        let options = ExecOptions {
            command: words.collect(),
            env: process.environment(host)?,
            workdir: process.workdir,
            user: process.user,
            tty: process.tty.then_some(size),
            stdin: process.interactive && !self.detach,
            unless_paused: self.no_wait,
            timeout_ms: self.timeout.map(|limit| limit.as_millis().try_into().unwrap_or(u64::MAX)),
        };
        Ok((id, options))
    }
}

/// Reads a time limit in seconds, which may have a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    let limit = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    limit.filter(|limit| !limit.is_zero()).ok_or_else(|| "write a number of seconds above 0".into())
}

pub(super) async fn exec(
    runtime: &Runtime,
    environment: &Environment,
    args: ExecArgs,
) -> Result<Exit, CommandFailure> {
    let mut interruptions = Interruptions::watch()?;
    let (detach, keys) = (args.detach, args.keys.detach_keys);
    let (id, options) = args.options(environment, window_size_or_default())?;
    if !detach {
        return run_attached(runtime, &id, options, keys, interruptions).await;
    }
    let failed = |error: boxlite::Error| CommandFailure::of(&error, Topic::RunningBox);
    let mut notices = PauseNotices::of(runtime, &id);
    let begun = begin_detached(runtime, &id, options.clone());
    match interruptions.before(notices.before(begun)).await {
        Continue(Ok(state)) if state.started => return Ok(Exit::OK),
        Continue(Ok(state)) => {
            let ended = state.end.map(|end| ExitStatus { code: end.code, reason: end.reason });
            return Ok(ended.as_ref().map_or(Exit::OK, conclude));
        }
        // A server, or a box that an older boxlite has started.
        Continue(Err(error)) if error.kind() == ErrorKind::Unsupported => {}
        Continue(Err(error)) => return Err(failed(error)),
        Break(exit) => return Ok(exit),
    }
    let (execution, started) = match interruptions.before(notices.before(begin(runtime, &id, options))).await
    {
        Continue(begun) => begun.map_err(failed)?,
        Break(exit) => return Ok(exit),
    };
    let detaching = async {
        if started {
            detach_from(&*execution.control).await;
            return Ok(Exit::OK);
        }
        let status = execution.control.wait().await.map_err(failed)?;
        Ok(conclude(&status))
    };
    match interruptions.before(detaching).await {
        Continue(exit) => exit,
        Break(exit) => Ok(exit),
    }
}

/// Runs a command with our standard streams.
pub(super) async fn run_attached(
    runtime: &Runtime,
    id: &str,
    options: ExecOptions,
    keys: DetachKeys,
    mut interruptions: Interruptions,
) -> Result<Exit, CommandFailure> {
    let wiring = Wiring { tty: options.tty.is_some(), stdin: options.stdin, keys };
    wiring.check()?;
    let mut notices = PauseNotices::of(runtime, id);
    let (execution, _) = match interruptions.before(notices.before(begin(runtime, id, options))).await {
        Continue(begun) => begun.map_err(|error| CommandFailure::of(&error, Topic::RunningBox))?,
        Break(exit) => return Ok(exit),
    };
    let session = connect(execution, wiring, interruptions);
    let ended = notices.during(session, wiring).await?;
    if matches!(ended, SessionExit::LeftRunning(_)) && wiring.stdin && !wiring.tty {
        note("boxlite: a command that has had only a part of its standard input is killed");
    }
    Ok(ended.exit())
}

/// Begins a command, and says whether its process runs.
async fn begin(runtime: &Runtime, id: &str, options: ExecOptions) -> boxlite::Result<(Execution, bool)> {
    let execution = runtime.exec(id, options).await?;
    let started = execution.control.started().await?;
    Ok((execution, started))
}

/// Begins a command that its box holds, without its output, which leaves nothing to do here.
async fn begin_detached(
    runtime: &Runtime,
    id: &str,
    options: ExecOptions,
) -> boxlite::Result<ExecutionState> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let execution = format!("cli-{}-{}", std::process::id(), now.as_nanos());
    let terms = HoldTerms { unattended: UnattendedPolicy::Discard, limit: None };
    runtime.begin_execution(id, &execution, options, terms).await
}
