//! An execution on a server, seen from here as any other.
//!
//! One task ([`attachment`]) owns the WebSocket and replaces it when it breaks. Reading frames never waits for the
//! reader of the output, nor writing them for the writer of the input: acknowledgements bound what is on its way in both
//! directions ([`flow`]), so pings, signals and acknowledgements always pass.

mod attachment;
mod flow;
mod handshake;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use attachment::AttachmentTask;
use boxlite_types::wire::{ClientFrame, ExecutionCreated};
use boxlite_types::{
    Error, ErrorKind, Execution, ExecutionControl, ExitStatus, OutputChunk, Result, WindowSize,
};
use flow::FlowControl;
use futures::Stream;
use handshake::RemoteExecution;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot, watch};

use super::http::HttpClient;

/// Commands that may wait for the connection.
const MAX_COMMANDS: usize = 8;

/// How an execution ended, for everybody who waits for it.
#[derive(Debug, Clone)]
enum RemoteOutcome {
    Exited(ExitStatus),
    /// It ended without a status, or its status cannot be known.
    Failed(Error),
}

/// A request to the attachment; the sender is told when it is done.
#[derive(Debug)]
enum AttachmentCommand {
    Send(ClientFrame, oneshot::Sender<()>),
    Detach(oneshot::Sender<()>),
}

/// Connects to an execution that the server has begun in the box `id`.
pub(super) fn connect(client: &HttpClient, id: &str, created: &ExecutionCreated) -> Execution {
    let flow = Arc::new(FlowControl::default());
    let (chunks, output) = mpsc::unbounded_channel();
    let (published, outcome) = watch::channel(None);
    let (commands, command_receiver) = mpsc::channel(MAX_COMMANDS);
    let execution = RemoteExecution::new(client.clone(), id, &created.execution_id);
    tokio::spawn(AttachmentTask::new(execution, Arc::clone(&flow), chunks, command_receiver).run(published));
    let stdin = created.stdin.then(|| -> Pin<Box<dyn AsyncWrite + Send>> {
        Box::pin(RemoteStdin { flow: Arc::clone(&flow), _attached: commands.clone() })
    });
    let output = Box::pin(RemoteOutput { chunks: output, flow, _attached: commands.clone() });
    let control = Arc::new(RemoteControl { started: created.started, commands, outcome });
    Execution { stdin, output, control }
}

/// Writes an execution's input; shutting it down is end-of-file, dropping it leaves the input open.
struct RemoteStdin {
    flow: Arc<FlowControl>,
    /// Keeps the execution attached.
    _attached: mpsc::Sender<AttachmentCommand>,
}

impl AsyncWrite for RemoteStdin {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.flow.poll_give(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flow.end_input();
        Poll::Ready(Ok(()))
    }
}

/// Reads an execution's output, which lets the server send more. Dropping it discards the rest.
struct RemoteOutput {
    chunks: mpsc::UnboundedReceiver<OutputChunk>,
    flow: Arc<FlowControl>,
    /// Keeps the execution attached.
    _attached: mpsc::Sender<AttachmentCommand>,
}

impl Stream for RemoteOutput {
    type Item = Result<OutputChunk>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.chunks.poll_recv(context));
        if let Some(chunk) = &next {
            self.flow.output_taken(chunk.bytes.len());
        }
        Poll::Ready(next.map(Ok))
    }
}

impl Drop for RemoteOutput {
    fn drop(&mut self) {
        self.flow.discard_output();
    }
}

/// Signals, resizing and waiting.
struct RemoteControl {
    started: bool,
    commands: mpsc::Sender<AttachmentCommand>,
    outcome: watch::Receiver<Option<RemoteOutcome>>,
}

impl RemoteControl {
    /// Asks the attachment to do something, and waits until it is done.
    async fn ask(&self, command: impl FnOnce(oneshot::Sender<()>) -> AttachmentCommand) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let _ = self.commands.send(command(done)).await;
        if answer.await.is_ok() {
            return Ok(());
        }
        match &*self.outcome.borrow() {
            // As with a local command: one that has exited ignores it.
            Some(RemoteOutcome::Exited(_)) => Ok(()),
            Some(RemoteOutcome::Failed(error)) => Err(error.clone()),
            None => Err(Error::new(ErrorKind::Unavailable, "the connection broke off before that was sent")),
        }
    }
}

#[async_trait]
impl ExecutionControl for RemoteControl {
    async fn signal(&self, signal: i32) -> Result<()> {
        self.ask(|done| AttachmentCommand::Send(ClientFrame::Signal { sig: signal }, done)).await
    }

    async fn resize(&self, size: WindowSize) -> Result<()> {
        let frame = ClientFrame::Resize { cols: size.columns, rows: size.rows };
        self.ask(|done| AttachmentCommand::Send(frame, done)).await
    }

    async fn started(&self) -> Result<bool> {
        Ok(self.started)
    }

    async fn wait(&self) -> Result<ExitStatus> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(RemoteOutcome::Exited(status))) => Ok(status.clone()),
            Ok(Some(RemoteOutcome::Failed(error))) => Err(error.clone()),
            Ok(None) | Err(_) => {
                Err(Error::new(ErrorKind::Cancelled, "the client has detached from the command"))
            }
        }
    }

    async fn detach(&self) -> Result<()> {
        self.ask(AttachmentCommand::Detach).await
    }
}
