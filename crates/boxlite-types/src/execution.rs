//! A command that runs in a box, as its caller sees it.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;
use tokio::sync::watch;

use crate::{ExecutionState, GivenInput, Result};

/// Which output a chunk came from; with a terminal all is [`OutputStream::Stdout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Output is standard output unless the guest says that it is standard error.
impl From<boxlite_proto::Stream> for OutputStream {
    fn from(stream: boxlite_proto::Stream) -> Self {
        match stream {
            boxlite_proto::Stream::Stderr => Self::Stderr,
            boxlite_proto::Stream::Stdin | boxlite_proto::Stream::Stdout => Self::Stdout,
        }
    }
}

/// Some output, in the order in which it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// Where it came from.
    pub stream: OutputStream,
    /// Raw bytes, not necessarily text.
    pub bytes: Bytes,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

impl From<WindowSize> for boxlite_proto::WinSize {
    fn from(size: WindowSize) -> Self {
        Self { rows: size.rows, cols: size.columns }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Its exit status; 128 + n when signal n ended it; 126 or 127 when it could not be run.
    pub code: i32,
    /// Why it could not be run, or what else there is to say.
    pub reason: Option<String>,
}

/// A process that ran ends with a status and nothing else to say.
impl From<boxlite_proto::ProcessExit> for ExitStatus {
    fn from(exit: boxlite_proto::ProcessExit) -> Self {
        Self { code: exit.shell_code(), reason: None }
    }
}

/// Acts on a running command; cheap to share between tasks.
#[async_trait]
pub trait ExecutionControl: Send + Sync {
    /// Sends signal number `signal` to the process, and returns once its guest has it.
    ///
    /// # Errors
    /// `Unavailable` when the guest does not answer within some seconds; the signal may still arrive.
    async fn signal(&self, signal: i32) -> Result<()>;
    /// Asks the process's guest for a sign of life. A server's guest is the server's to ask, and always answers here.
    ///
    /// # Errors
    /// `Unavailable` when the guest does not answer within some seconds.
    async fn answers(&self) -> Result<()> {
        Ok(())
    }
    /// Tells the process's terminal its new size.
    async fn resize(&self, size: WindowSize) -> Result<()>;
    /// Waits until the process runs; `false` when it could not be run, and then `wait` has its status.
    ///
    /// A caller that detaches earlier cannot know whether the command ever ran.
    async fn started(&self) -> Result<bool>;
    /// Detaches from the command, which keeps running, and returns once its host knows that no client will come back.
    ///
    /// Dropping the [`Execution`] detaches too, but in the background; a program that is about to exit calls this.
    async fn detach(&self) -> Result<()> {
        Ok(())
    }
    /// Waits for the end; may be called by several tasks and after the end.
    async fn wait(&self) -> Result<ExitStatus>;
}

/// A running command: its streams and its control. Dropping it detaches; the command keeps running.
pub struct Execution {
    /// Standard input; `None` unless it was asked for. Shutting it down is end-of-file.
    pub stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// All output until the end; reading slowly slows the writer down, and nothing is lost.
    pub output: Pin<Box<dyn Stream<Item = Result<OutputChunk>> + Send>>,
    /// Signals, resizing, waiting.
    pub control: Arc<dyn ExecutionControl>,
}

impl std::fmt::Debug for Execution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Execution").field("stdin", &self.stdin.is_some()).finish_non_exhaustive()
    }
}

/// The wishes of a client that attaches to an execution which its box holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeatOptions {
    /// Position in the output to begin at, in bytes; `None` means the first byte that no client has acknowledged.
    pub from: Option<u64>,
    /// Take the place of a client that is attached.
    pub replace: bool,
    /// The client knows what reached its reader and sends again what was lost of its input.
    pub resumes: bool,
    /// The client sends input.
    pub stdin: bool,
}

/// A client's seat at an execution that its box holds: the streams, and what is said about them.
///
/// Dropping it without [`ExecutionSeat::leave`] means that the client was lost, perhaps with some of the input.
pub struct AttachedExecution {
    /// The streams and the control.
    pub execution: Execution,
    /// The seat.
    pub seat: Arc<dyn ExecutionSeat>,
    /// Position of the first byte of the output that follows, in bytes.
    pub position: u64,
    /// The box's knowledge of the execution.
    pub state: ExecutionState,
}

/// How the client in the seat of an execution leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// In order.
    Done,
    /// It was sent away and comes back; all of its input has arrived until then.
    Returns,
    /// Its connection broke: it may come back, and may have lost what was on its way.
    Broke,
}

/// The place of the one client that has an execution's streams.
#[async_trait]
pub trait ExecutionSeat: Send + Sync {
    /// The output before `position` (in bytes) has reached its reader and needs not be held for it. Never waits.
    fn taken(&self, position: u64);
    /// Gives up the streams for good: the command runs on with its input at its end. Never waits.
    fn release(&self);
    /// Leaves the seat, and returns once the next client may have it.
    async fn leave(&self, how: Departure);
    /// How much input is the box's and will reach the process.
    fn given(&self) -> watch::Receiver<GivenInput>;
}
