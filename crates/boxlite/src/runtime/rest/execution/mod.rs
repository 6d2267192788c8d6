//! An execution on a server, seen from here as any other.
//!
//! One task ([`link::Link`]) owns the WebSocket and makes it anew when it breaks. Reading never waits for whoever
//! takes the output, nor writing for whoever gives the input: what is on its way is bounded by acknowledgements in
//! both directions ([`flow::Flow`]), so that pings, signals and acknowledgements always pass.

mod flow;
mod link;
mod socket;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use boxlite_types::wire::{ClientFrame, ExecutionCreated};
use boxlite_types::{
    Error, ErrorKind, ExecStatus, Execution, ExecutionControl, OutputChunk, Result, WindowSize,
};
use flow::Flow;
use futures::Stream;
use link::Link;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot, watch};

use super::client::Client;

/// Commands waiting for the connection.
const COMMANDS: usize = 8;

/// How an execution ended, shared by everybody who waits for it.
#[derive(Debug, Clone)]
enum Ended {
    Process(ExecStatus),
    Failed(Arc<Error>),
}

/// What the connection is asked to do, and who waits for it.
#[derive(Debug)]
enum Command {
    Say(ClientFrame, oneshot::Sender<()>),
    LetGo(oneshot::Sender<()>),
}

/// Connects to an execution that the server has begun in the box `id`.
pub(super) fn connect(client: &Client, id: &str, created: &ExecutionCreated) -> Execution {
    let flow = Arc::new(Flow::default());
    let (chunks, output) = mpsc::unbounded_channel();
    let (ended, ended_receiver) = watch::channel(None);
    let (commands, command_receiver) = mpsc::channel(COMMANDS);
    let place = socket::Place::new(client.clone(), id, &created.execution_id);
    tokio::spawn(Link::new(place, Arc::clone(&flow), chunks, command_receiver).run(ended));
    let stdin = created.stdin.then(|| -> Pin<Box<dyn AsyncWrite + Send>> {
        Box::pin(Stdin { flow: Arc::clone(&flow), _open: commands.clone() })
    });
    let output = Box::pin(Output { chunks: output, flow, _open: commands.clone() });
    let control = Arc::new(Control { started: created.started, commands, ended: ended_receiver });
    Execution { stdin, output, control }
}

/// Writes an execution's input; shutting it down is end-of-file, dropping it leaves the input open.
struct Stdin {
    flow: Arc<Flow>,
    _open: mpsc::Sender<Command>,
}

impl AsyncWrite for Stdin {
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

/// The output; taking it is what lets more of it come. Dropping it discards the rest.
struct Output {
    chunks: mpsc::UnboundedReceiver<OutputChunk>,
    flow: Arc<Flow>,
    _open: mpsc::Sender<Command>,
}

impl Stream for Output {
    type Item = Result<OutputChunk>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.chunks.poll_recv(context));
        if let Some(chunk) = &next {
            self.flow.took(chunk.bytes.len());
        }
        Poll::Ready(next.map(Ok))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.flow.discard_output();
    }
}

/// Signals, resizing and waiting.
struct Control {
    started: bool,
    commands: mpsc::Sender<Command>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Control {
    /// Has the connection do something, and waits until it is done.
    async fn ask(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let _ = self.commands.send(command(done)).await;
        if answer.await.is_ok() {
            return Ok(());
        }
        match &*self.ended.borrow() {
            // As with a local command: who has ended takes no notice.
            Some(Ended::Process(_)) => Ok(()),
            Some(Ended::Failed(error)) => Err(again(error)),
            None => Err(Error::new(ErrorKind::Unavailable, "the connection broke off before that was sent")),
        }
    }
}

#[async_trait]
impl ExecutionControl for Control {
    async fn signal(&self, signal: i32) -> Result<()> {
        self.ask(|done| Command::Say(ClientFrame::Signal { sig: signal }, done)).await
    }

    async fn resize(&self, size: WindowSize) -> Result<()> {
        let frame = ClientFrame::Resize { cols: size.columns, rows: size.rows };
        self.ask(|done| Command::Say(frame, done)).await
    }

    async fn started(&self) -> Result<bool> {
        Ok(self.started)
    }

    async fn wait(&self) -> Result<ExecStatus> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ended::Process(status))) => Ok(status.clone()),
            Ok(Some(Ended::Failed(error))) => Err(again(error)),
            Ok(None) | Err(_) => Err(Error::new(ErrorKind::Cancelled, "the command was let go of")),
        }
    }

    async fn let_go(&self) -> Result<()> {
        self.ask(Command::LetGo).await
    }
}

/// The same failure once more, for another waiter.
fn again(error: &Arc<Error>) -> Error {
    let again = Error::new(error.kind(), error.chain().to_string()).because(Arc::clone(error));
    match error.server() {
        Some(server) => again.of_server(server),
        None => again,
    }
}
