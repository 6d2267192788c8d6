//! A command in a box, connected to our standard streams until it ends or we detach.

use std::io::{self, Write};
use std::time::Duration;

use boxlite::{Execution, ExecutionControl, ExitStatus, OutputChunk, OutputStream};
use futures::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::detach::DetachKeys;
use super::signals::{self, Interruptions, LastSignal};
use super::stdin;
use super::tty::{RawMode, stdin_is_terminal};
use crate::report::{CommandFailure, Exit, Topic, note};

/// How long telling the runtime that we detach may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionExit {
    /// The command ended.
    Ended(Exit),
    /// We detached, and the command keeps running.
    LeftRunning(Exit),
}

impl SessionExit {
    /// Returns our own exit status.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Self::Ended(exit) | Self::LeftRunning(exit) => exit,
        }
    }
}

/// How a command is connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wiring {
    /// The command has a terminal: ours enters raw mode, and its size is passed on.
    pub(crate) tty: bool,
    /// Our standard input is passed on.
    pub(crate) stdin: bool,
    /// The keys that detach.
    pub(crate) keys: DetachKeys,
}

impl Wiring {
    /// Standard streams that are only read from or written to.
    pub(crate) const PLAIN: Self = Self { tty: false, stdin: false, keys: DetachKeys::NONE };

    /// Tells whether our terminal, where standard input is one, is in raw mode during the session.
    pub(crate) fn is_raw(self) -> bool {
        self.tty && self.stdin
    }

    /// Refuses a terminal for the command when our standard input is not one.
    pub(crate) fn check(self) -> Result<(), CommandFailure> {
        if self.tty && self.stdin && !stdin_is_terminal() {
            return Err(CommandFailure::local(
                "standard input is not a terminal, so -t and -i do not go together here",
            )
            .hint("leave -t out to pipe data in"));
        }
        Ok(())
    }
}

/// Passes input, output, signals and size between us and a command until it ends.
///
/// The command is left running when the detach keys are typed, a third INT or TERM arrives, or one cannot be delivered.
pub(crate) async fn connect(
    execution: Execution,
    wiring: Wiring,
    interruptions: Interruptions,
) -> Result<SessionExit, CommandFailure> {
    let Execution { stdin, mut output, control } = execution;
    let raw = wiring.is_raw().then(RawMode::enter).flatten();
    let (detach, detached) = oneshot::channel();
    let (give_up, given_up) = oneshot::channel();
    // Fused: a receiver whose sender was dropped must not be polled again.
    let (mut detached, mut given_up) = (detached.fuse(), given_up.fuse());
    // Dropping the set, when this function returns, aborts its tasks.
    let mut tasks = JoinSet::new();
    let passing_on = signals::pass_on(interruptions, control.clone());
    tasks.spawn(async move {
        // The session may just have ended.
        let _ = give_up.send(passing_on.await);
    });
    if wiring.tty {
        tasks.spawn(signals::follow_size(control.clone()));
    }
    if let (Some(to), true) = (stdin, wiring.stdin) {
        tasks.spawn(stdin::pump(to, wiring.keys, raw.is_some().then_some(detach), control.clone()));
    }
    let mut reader_left = false;
    loop {
        tokio::select! {
            biased;
            Ok(()) = &mut detached => {
                drop(raw);
                note("");
                detach_from(&*control).await;
                return Ok(SessionExit::LeftRunning(Exit::OK));
            }
            Ok(last) = &mut given_up => {
                drop(raw);
                return Ok(leave_running(&*control, last).await);
            }
            chunk = output.next() => match chunk {
                None => break,
                Some(Err(error)) => return Err(CommandFailure::of(&error, Topic::RunningBox)),
                Some(Ok(_)) if reader_left => {}
                Some(Ok(chunk)) => reader_left = !show(&chunk, &*control).await?,
            },
        }
    }
    // Leave raw mode before waiting, so that Ctrl-C is a signal again.
    drop(raw);
    tokio::select! {
        biased;
        Ok(last) = &mut given_up => Ok(leave_running(&*control, last).await),
        ended = control.wait() => {
            let status = ended.map_err(|error| CommandFailure::of(&error, Topic::RunningBox))?;
            Ok(SessionExit::Ended(conclude(&status)))
        }
    }
}

/// Writes output of the command, and returns whether it still has a reader. A command whose output has none learns that, as in
/// a pipeline of local programs.
async fn show(chunk: &OutputChunk, control: &dyn ExecutionControl) -> Result<bool, CommandFailure> {
    match tokio::task::block_in_place(|| write(chunk)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            if let Err(error) = control.signal(libc::SIGPIPE).await {
                tracing::debug!("passing on SIGPIPE failed: {}", error.chain());
            }
            Ok(false)
        }
        Err(error) => Err(CommandFailure::output(&error)),
    }
}

async fn leave_running(control: &dyn ExecutionControl, last: LastSignal) -> SessionExit {
    if last.delivered {
        note("boxlite: detached; the command keeps running");
    } else {
        note(&format!(
            "boxlite: the box does not answer, so signal {} may not have arrived; detached, and the command may keep running",
            last.number
        ));
    }
    detach_from(control).await;
    SessionExit::LeftRunning(Exit::of_signal(last.number))
}

/// Tells the runtime that we do not come back to the command, unless that takes too long.
pub(crate) async fn detach_from(control: &dyn ExecutionControl) {
    if !matches!(tokio::time::timeout(RELEASE_TIMEOUT, control.detach()).await, Ok(Ok(()))) {
        tracing::debug!("the runtime could not be told that we detached");
    }
}

/// Prints why a command ended, where there is a reason, and returns its exit status.
pub(crate) fn conclude(status: &ExitStatus) -> Exit {
    if let Some(reason) = &status.reason {
        note(&format!("boxlite: {reason}"));
        if reason.starts_with('-') {
            note(
                "hint: options of boxlite stand before the image or the box; what comes after it is the command",
            );
        }
    }
    Exit::of_command(status.code)
}

fn write(chunk: &OutputChunk) -> io::Result<()> {
    match chunk.stream {
        OutputStream::Stdout => whole(io::stdout().lock(), &chunk.bytes),
        OutputStream::Stderr => whole(io::stderr().lock(), &chunk.bytes),
    }
}

fn whole(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
