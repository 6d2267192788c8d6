//! A command in a box, wired to our standard streams until it ends or we let go.

use std::io::{self, Write};
use std::time::Duration;

use boxlite::{ExecStatus, Execution, ExecutionControl, OutputChunk, OutputStream};
use futures::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::raw::RawMode;
use super::{signals, stdin, stdin_is_terminal};
use crate::report::{Exit, Failure, Topic, note};

/// How long a good-bye may take.
const PARTING: Duration = Duration::from_secs(2);

/// How a session came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The command ended.
    Ended(Exit),
    /// We let go of it, and it runs on.
    LeftRunning(Exit),
}

impl End {
    /// Our own exit status.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Self::Ended(exit) | Self::LeftRunning(exit) => exit,
        }
    }
}

/// How a command is wired.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wiring {
    /// It has a terminal: ours goes raw, and its size is passed on.
    pub(crate) tty: bool,
    /// Our standard input is passed on.
    pub(crate) stdin: bool,
}

impl Wiring {
    /// Refuses to wire a terminal to something that is none.
    pub(crate) fn check(self) -> Result<(), Failure> {
        if self.tty && self.stdin && !stdin_is_terminal() {
            return Err(Failure::local(
                "standard input is no terminal, so -t and -i do not go together here",
            )
            .hint("leave -t out to pipe data in"));
        }
        Ok(())
    }
}

/// Passes input, output, signals and size between us and a command until it ends.
///
/// When the detach keys are typed, or a third INT or TERM arrives, the command is left running.
pub(crate) async fn connect(execution: Execution, wiring: Wiring) -> Result<End, Failure> {
    let Execution { stdin, mut output, control } = execution;
    let raw = (wiring.tty && wiring.stdin).then(RawMode::enter).flatten();
    let (detach, detached) = oneshot::channel();
    let (lose_patience, impatience) = oneshot::channel();
    // Fused: a sender that goes without a word must not be asked again.
    let (mut detached, mut impatience) = (detached.fuse(), impatience.fuse());
    // Aborted when dropped, which is when this function returns.
    let mut companions = JoinSet::new();
    companions.spawn(signals::proxy(control.clone(), lose_patience));
    if wiring.tty {
        companions.spawn(signals::follow_size(control.clone()));
    }
    if let (Some(to), true) = (stdin, wiring.stdin) {
        companions.spawn(stdin::pump(to, raw.is_some().then_some(detach)));
    }
    let mut reader_left = false;
    loop {
        tokio::select! {
            biased;
            Ok(()) = &mut detached => {
                drop(raw);
                note("");
                let_go(&*control).await;
                return Ok(End::LeftRunning(Exit::OK));
            }
            Ok(signal) = &mut impatience => {
                drop(raw);
                return Ok(give_up(&*control, signal).await);
            }
            chunk = output.next() => match chunk {
                None => break,
                Some(Err(error)) => return Err(Failure::of(&error, Topic::RunningBox)),
                Some(Ok(_)) if reader_left => {}
                Some(Ok(chunk)) => match tokio::task::block_in_place(|| write(&chunk)) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        // As in a pipeline of local programs: the writer learns that its reader went away.
                        reader_left = true;
                        if let Err(error) = control.signal(libc::SIGPIPE).await {
                            tracing::debug!("passing on SIGPIPE failed: {}", error.chain());
                        }
                    }
                    Err(error) => return Err(Failure::output(&error)),
                },
            },
        }
    }
    // Before waiting, so that Ctrl-C is a signal again.
    drop(raw);
    tokio::select! {
        biased;
        Ok(signal) = &mut impatience => Ok(give_up(&*control, signal).await),
        ended = control.wait() => {
            let status = ended.map_err(|error| Failure::of(&error, Topic::RunningBox))?;
            Ok(End::Ended(conclude(&status)))
        }
    }
}

async fn give_up(control: &dyn ExecutionControl, signal: i32) -> End {
    note("boxlite: letting go of the command, which goes on");
    let_go(control).await;
    End::LeftRunning(Exit::of_signal(signal))
}

/// Tells whoever runs the command that we do not come back, as far as that can be told quickly.
pub(crate) async fn let_go(control: &dyn ExecutionControl) {
    if !matches!(tokio::time::timeout(PARTING, control.let_go()).await, Ok(Ok(()))) {
        tracing::debug!("letting go of the command could not be told");
    }
}

/// The exit status of an ended command, after saying what else there is to say of it.
pub(crate) fn conclude(status: &ExecStatus) -> Exit {
    if let Some(reason) = &status.reason {
        note(&format!("boxlite: {reason}"));
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
