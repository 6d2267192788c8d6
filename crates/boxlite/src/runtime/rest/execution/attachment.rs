//! The task that keeps a client attached to an execution: it owns the WebSocket and replaces it when it breaks.
//!
//! # Protocol
//! An attachment begins with a handshake that tells the server how much output has arrived
//! ([`RemoteExecution::attach`]), and so loses and repeats nothing; [`boxlite_types::wire`] describes the frames. While it
//! lasts, a [`ServerFrameReader`] and a [`ClientFrameWriter`] work side by side, and neither waits for the other: a
//! server that sends much still hears signals, and one that reads slowly still delivers output. An attachment closes in
//! one of three ways ([`ConnectionClose`]):
//!
//! - the server reports the execution's outcome, or breaks the protocol: the task publishes the outcome and ends;
//! - all handles of the execution were dropped, or one of them asked to detach: the task closes the WebSocket in order,
//!   which tells the server that no client will come back, and ends;
//! - the connection breaks or falls silent: the task attaches again after a pause ([`Reconnection`]). When it runs out of
//!   attempts, the outcome is an error, because the execution's status cannot be known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use boxlite_types::wire::{Channel, ClientFrame, PING, ServerFrame};
use boxlite_types::{Error, ExitStatus, OutputChunk};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use super::super::failure;
use super::flow::{FlowControl, Outgoing, ProtocolViolation};
use super::handshake::{AttachError, RemoteExecution, Socket};
use super::{AttachmentCommand, RemoteOutcome};

/// Pauses between attempts to attach again; after the last, the execution counts as lost.
const RETRY_INTERVALS: [Duration; 7] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// After this long without a connection no further attempt is made, however few were: an unanswered one takes time too.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(40);
/// A connection that lasted this long was a good one, even if nothing came over it.
const GOOD_CONNECTION_INTERVAL: Duration = Duration::from_secs(10);
/// The longest silence of a living server.
const SILENCE_TIMEOUT: Duration = PING.saturating_mul(3);
/// How long the orderly close of a WebSocket may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The way in which an attachment ended.
enum ConnectionClose {
    /// The execution's outcome is known.
    Finished(RemoteOutcome),
    /// The client detached.
    Detached,
    /// The connection broke.
    Broken(Error),
}

/// Keeps one execution attached.
pub(super) struct AttachmentTask {
    execution: RemoteExecution,
    flow: Arc<FlowControl>,
    chunks: mpsc::UnboundedSender<OutputChunk>,
    commands: mpsc::Receiver<AttachmentCommand>,
}

impl AttachmentTask {
    pub(super) fn new(
        execution: RemoteExecution,
        flow: Arc<FlowControl>,
        chunks: mpsc::UnboundedSender<OutputChunk>,
        commands: mpsc::Receiver<AttachmentCommand>,
    ) -> Self {
        Self { execution, flow, chunks, commands }
    }

    /// Runs until the execution has an outcome, which it publishes, or the client has detached.
    pub(super) async fn run(mut self, published: watch::Sender<Option<RemoteOutcome>>) {
        if let Some(outcome) = self.attach_until_finished().await {
            self.flow.close_input();
            // The outcome is published before the output ends with `self.chunks`: a caller that reads the output to its end
            // and then asks for the outcome never waits.
            let _ = published.send(Some(outcome));
        }
    }

    /// Attaches, again after each breakage, until the execution has an outcome; `None` when the client has detached.
    async fn attach_until_finished(&mut self) -> Option<RemoteOutcome> {
        let mut reconnection = Reconnection::default();
        loop {
            let broken = match self.attach_once(&mut reconnection).await {
                ConnectionClose::Finished(outcome) => return Some(outcome),
                ConnectionClose::Detached => return None,
                ConnectionClose::Broken(error) => error,
            };
            tracing::debug!(error = %broken.chain(), "an execution's connection broke");
            let Some(pause) = reconnection.next_pause() else {
                return Some(RemoteOutcome::Failed(self.execution.lost(broken)));
            };
            sleep(pause).await;
            if self.commands.is_closed() {
                return None;
            }
        }
    }

    /// Attaches once and returns how the attachment closed, or why there was none.
    async fn attach_once(&mut self, reconnection: &mut Reconnection) -> ConnectionClose {
        let socket = match self.execution.attach(self.flow.begin_attachment()).await {
            Ok(socket) => socket,
            Err(AttachError::Transient(error)) => return ConnectionClose::Broken(error),
            Err(AttachError::Permanent(error)) => {
                return ConnectionClose::Finished(RemoteOutcome::Failed(error));
            }
        };
        let (before, since) = (self.flow.progress(), Instant::now());
        let close = self.converse(socket).await;
        if self.flow.progress() != before || since.elapsed() >= GOOD_CONNECTION_INTERVAL {
            *reconnection = Reconnection::default();
        }
        close
    }

    /// Reads and writes frames until the attachment closes.
    async fn converse(&mut self, socket: Socket) -> ConnectionClose {
        let (mut sink, mut stream) = socket.split();
        let server = self.execution.server();
        let reader = ServerFrameReader { server, flow: &self.flow, chunks: &self.chunks };
        let mut writer = ClientFrameWriter { server, flow: &self.flow, commands: &mut self.commands };
        let close = tokio::select! {
            biased;
            close = reader.read_until_closed(&mut stream) => close,
            close = writer.write_until_closed(&mut sink) => close,
        };
        if let ConnectionClose::Finished(_) | ConnectionClose::Detached = close {
            // Tells the server that no client comes back. A server that does not hear it finds out by itself.
            let _ = timeout(CLOSE_TIMEOUT, sink.close()).await;
        }
        close
    }
}

/// The attempts since the last good connection.
#[derive(Default)]
struct Reconnection {
    attempts: usize,
    broken_since: Option<Instant>,
}

impl Reconnection {
    /// How long to wait before the next attempt; `None` when it is time to give up.
    fn next_pause(&mut self) -> Option<Duration> {
        let broken_since = *self.broken_since.get_or_insert_with(Instant::now);
        let pause = RETRY_INTERVALS.get(self.attempts)?;
        self.attempts += 1;
        (broken_since.elapsed() < RECONNECT_TIMEOUT).then_some(*pause)
    }
}

/// Writes what the client has to send: input, acknowledgements and commands.
struct ClientFrameWriter<'a> {
    server: &'a str,
    flow: &'a FlowControl,
    commands: &'a mut mpsc::Receiver<AttachmentCommand>,
}

impl ClientFrameWriter<'_> {
    /// Writes frames until the client detaches or the connection breaks.
    async fn write_until_closed(&mut self, sink: &mut SplitSink<Socket, Message>) -> ConnectionClose {
        loop {
            let written = tokio::select! {
                biased;
                // However much input there is, a signal does not wait for it.
                command = self.commands.recv() => carry_out(sink, command).await,
                outgoing = self.flow.next_outgoing() => send(sink, outgoing).await,
            };
            match written {
                Ok(None) => {}
                Ok(Some(close)) => return close,
                Err(error) => return broken(error, self.server),
            }
        }
    }
}

async fn send(
    sink: &mut SplitSink<Socket, Message>,
    outgoing: Outgoing,
) -> Result<Option<ConnectionClose>, tungstenite::Error> {
    let message = match outgoing {
        Outgoing::Frame(frame) => text(frame),
        Outgoing::Input(bytes) => Message::Binary(bytes),
    };
    sink.send(message).await.map(|()| None)
}

/// Carries out a command; `None` says that all handles of the execution were dropped.
async fn carry_out(
    sink: &mut SplitSink<Socket, Message>,
    command: Option<AttachmentCommand>,
) -> Result<Option<ConnectionClose>, tungstenite::Error> {
    match command {
        None => Ok(Some(ConnectionClose::Detached)),
        Some(AttachmentCommand::Detach(done)) => {
            let _ = timeout(CLOSE_TIMEOUT, sink.close()).await;
            let _ = done.send(());
            Ok(Some(ConnectionClose::Detached))
        }
        Some(AttachmentCommand::Send(frame, done)) => {
            sink.send(text(frame)).await?;
            let _ = done.send(());
            Ok(None)
        }
    }
}

/// Reads what the server sends: output, acknowledgements and the outcome.
struct ServerFrameReader<'a> {
    server: &'a str,
    flow: &'a FlowControl,
    chunks: &'a mpsc::UnboundedSender<OutputChunk>,
}

impl ServerFrameReader<'_> {
    /// Reads frames until the execution has an outcome or the connection breaks.
    async fn read_until_closed(&self, stream: &mut SplitStream<Socket>) -> ConnectionClose {
        loop {
            let message = match timeout(SILENCE_TIMEOUT, stream.next()).await {
                Err(_) => return ConnectionClose::Broken(failure::silent(self.server)),
                Ok(None | Some(Ok(Message::Close(_)))) => {
                    return ConnectionClose::Broken(failure::broken_off(self.server, None));
                }
                Ok(Some(Err(error))) => return broken(error, self.server),
                Ok(Some(Ok(message))) => message,
            };
            match self.handle(message) {
                Ok(None) => {}
                Ok(Some(outcome)) => return ConnectionClose::Finished(outcome),
                Err(ProtocolViolation(what)) => {
                    let message = format!("the server {} is not understood: {what}", self.server);
                    let error = failure::unusable(self.server, message);
                    return ConnectionClose::Finished(RemoteOutcome::Failed(error));
                }
            }
        }
    }

    fn handle(&self, message: Message) -> Result<Option<RemoteOutcome>, ProtocolViolation> {
        match message {
            Message::Binary(frame) => self.handle_output(&frame).map(|()| None),
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(frame) => self.handle_frame(frame),
                // A newer server may send frames that this version does not know; those that it needs stay as they are.
                Err(error) => {
                    tracing::debug!(%error, "a frame that is not understood");
                    Ok(None)
                }
            },
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Ok(None),
        }
    }

    fn handle_output(&self, frame: &Bytes) -> Result<(), ProtocolViolation> {
        let stream = frame
            .first()
            .and_then(|&byte| Channel::stream_of(byte))
            .ok_or(ProtocolViolation("it sends output of no known stream"))?;
        let bytes = frame.slice(1..);
        if !bytes.is_empty() && self.flow.output_arrived(bytes.len())? {
            // Fails when the reader has just been dropped, which is not an error.
            let _ = self.chunks.send(OutputChunk { stream, bytes });
        }
        Ok(())
    }

    fn handle_frame(&self, frame: ServerFrame) -> Result<Option<RemoteOutcome>, ProtocolViolation> {
        match frame {
            ServerFrame::Exit { exit_code, reason } => {
                Ok(Some(RemoteOutcome::Exited(ExitStatus { code: exit_code, reason })))
            }
            ServerFrame::Failed { error } => Ok(Some(RemoteOutcome::Failed(error.into_error()))),
            ServerFrame::Ack { stdin, closed } => self.flow.input_arrived(stdin, closed).map(|()| None),
            ServerFrame::Error { message } => {
                tracing::debug!(message, "the server could not do what was asked of a command");
                Ok(None)
            }
        }
    }
}

fn text(frame: ClientFrame) -> Message {
    // A plain enum of numbers always serialises.
    Message::text(serde_json::to_string(&frame).unwrap_or_default())
}

fn broken(error: tungstenite::Error, server: &str) -> ConnectionClose {
    ConnectionClose::Broken(failure::broken_off(server, Some(&error)).because(error))
}
