//! One client attached to one execution, over a WebSocket; `boxlite::wire` describes its frames.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boxlite::wire::{Channel, ClientFrame, PING, ServerFrame};
use boxlite::{Departure, UnattendedPolicy, WindowSize};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_tungstenite::tungstenite::{Error as SocketError, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use super::buffer::OutputPiece;
use super::execution::{AttachmentGuard, ExecutionOutcome, ServedExecution};
use super::input::{DeliveredInput, InputProgress};
use crate::websocket::ServerSocket;

/// How long a client may be silent before it counts as dead.
const CLIENT_TIMEOUT: Duration = PING.saturating_mul(3);
/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Remarks that wait to be sent to the client.
const MAX_QUEUED_REMARKS: usize = 16;

/// The terms that a client asked for when it attached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttachTerms {
    /// Its binary messages are standard input.
    pub(crate) with_stdin: bool,
    /// Set if it acknowledges: how many bytes of output it already has.
    pub(crate) received: Option<u64>,
}

/// How an attachment ended.
enum AttachmentClose {
    /// The server stops, and the client is to come back to the next one.
    Away,
    /// Our closing message is all that is left to send.
    Send(Message),
    /// The client closed.
    Closed,
    /// The connection broke, the client is silent, or another one replaced it.
    Broken,
}

/// Serves the client until the command has ended, the client has left, or `closing` is cancelled.
///
/// Output that the client did not get stays in the buffer for the next one.
pub(crate) async fn serve_client(
    socket: ServerSocket,
    attached: AttachmentGuard,
    terms: AttachTerms,
    closing: CancellationToken,
) {
    let served = &*attached.served;
    let (mut sink, mut stream) = socket.split();
    let (progress, again) = served.input.begin();
    let (remarks, remarked) = mpsc::channel(MAX_QUEUED_REMARKS);
    let alive = Liveness(Mutex::new(Instant::now()));
    let again = if terms.received.is_some() { again } else { 0 };
    let client = AttachedClient { served, terms, alive: &alive, remarks, again: Mutex::new(again) };
    let end = tokio::select! {
        end = send_output(&mut sink, served, terms, progress, remarked, &alive) => end.unwrap_or_else(|error| {
            tracing::debug!(id = served.id, %error, "an attachment broke");
            AttachmentClose::Broken
        }),
        end = client.listen(&mut stream) => end,
        () = attached.replaced.cancelled() => AttachmentClose::Broken,
        () = closing.cancelled() => AttachmentClose::Away,
    };
    // Before its input counts as broken off: what is on its way still arrives.
    let end = match end {
        AttachmentClose::Away => match timeout(CLOSE_TIMEOUT, client.see_off(&mut sink, &mut stream)).await {
            Ok(Ok(true)) => AttachmentClose::Away,
            _ => AttachmentClose::Broken,
        },
        end => end,
    };
    let seen_off = matches!(end, AttachmentClose::Closed | AttachmentClose::Away);
    if terms.with_stdin && terms.received.is_none() && !seen_off {
        served.input_broke_off();
    }
    // The right to attach is returned before the connection ends: a client that sees the end may come back at once.
    match end {
        AttachmentClose::Closed | AttachmentClose::Broken => {
            if matches!(end, AttachmentClose::Closed)
                && (terms.received.is_some() || served.terms.unattended == UnattendedPolicy::Release)
            {
                served.release();
            }
            let broke = matches!(end, AttachmentClose::Broken);
            served.leave(if broke { Departure::Broke } else { Departure::Done }).await;
            drop(attached);
        }
        AttachmentClose::Away => {
            served.leave(Departure::Returns).await;
            drop(attached);
        }
        AttachmentClose::Send(frame) => {
            let (served, sent) = (Arc::clone(&attached.served), served.buffer.sent_to());
            let broke = served.outcome().is_none();
            served.leave(if broke { Departure::Broke } else { Departure::Done }).await;
            drop(attached);
            if let Ok(Ok(true)) = timeout(CLOSE_TIMEOUT, close(sink, stream, frame)).await {
                // The client closed after it had read everything before our close frame.
                served.acknowledge(sent);
            }
        }
    }
}

/// Closes, and waits until the client has closed too; true when it sent a close frame.
///
/// A socket that is closed with unread input is reset, and the client would lose the output that it has not read yet.
async fn close(
    mut sink: SplitSink<ServerSocket, Message>,
    mut stream: SplitStream<ServerSocket>,
    frame: Message,
) -> Result<bool, SocketError> {
    sink.send(frame).await?;
    let mut closed = false;
    while let Some(message) = stream.next().await.transpose()? {
        closed |= matches!(message, Message::Close(_));
    }
    Ok(closed)
}

/// Sends output until the command ends, and then how it ended.
async fn send_output(
    sink: &mut SplitSink<ServerSocket, Message>,
    served: &ServedExecution,
    terms: AttachTerms,
    mut progress: InputProgress,
    mut remarked: mpsc::Receiver<String>,
    alive: &Liveness,
) -> Result<AttachmentClose, SocketError> {
    let acknowledges = terms.received.is_some();
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    loop {
        tokio::select! {
            biased;
            Some(DeliveredInput { bytes: stdin, closed }) = progress.next(), if acknowledges => {
                sink.send(text(&ServerFrame::Ack { stdin, closed })).await?;
            }
            _ = ping.tick() => sink.send(Message::Ping(bytes::Bytes::new())).await?,
            Some(remark) = remarked.recv() => sink.send(text(&ServerFrame::Error { message: remark })).await?,
            piece = served.buffer.next() => {
                let Some(piece) = piece else { break };
                sink.send(message(piece)).await?;
                if acknowledges { served.buffer.sent() } else { served.passed_on() }
                alive.sign();
            }
        }
    }
    match served.outcome() {
        Some(_) if served.is_unseated() => Ok(AttachmentClose::Broken),
        Some((ExecutionOutcome::Exited(status), _)) => {
            sink.send(text(&ServerFrame::Exit { exit_code: status.code, reason: status.reason })).await?;
            Ok(AttachmentClose::Send(close_frame(CloseCode::Normal, "")))
        }
        Some((ExecutionOutcome::Broken(error), _)) if acknowledges => {
            sink.send(text(&ServerFrame::Failed { error })).await?;
            Ok(AttachmentClose::Send(close_frame(CloseCode::Normal, "")))
        }
        Some((ExecutionOutcome::Broken(error), _)) => {
            sink.send(text(&ServerFrame::Error { message: error.message.clone() })).await?;
            Ok(AttachmentClose::Send(close_frame(CloseCode::Error, &error.message)))
        }
        None => {
            Ok(AttachmentClose::Send(close_frame(CloseCode::Error, "the server released this execution")))
        }
    }
}

fn message(piece: OutputPiece) -> Message {
    match piece {
        OutputPiece::Output(chunk) => {
            let mut frame = Vec::with_capacity(chunk.bytes.len() + 1);
            frame.push(Channel::from(chunk.stream) as u8);
            frame.extend_from_slice(&chunk.bytes);
            Message::Binary(frame.into())
        }
        OutputPiece::Loss(message) => text(&ServerFrame::Error { message }),
    }
}

fn text(frame: &ServerFrame) -> Message {
    Message::Text(serde_json::to_string(frame).unwrap_or_default().into())
}

fn close_frame(code: CloseCode, reason: &str) -> Message {
    // A close frame has room for 123 bytes of reason.
    let mut reason = reason.to_owned();
    while reason.len() > 123 {
        reason.pop();
    }
    Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::from(reason) }))
}

/// When the client last gave a sign of life.
struct Liveness(Mutex<Instant>);

impl Liveness {
    fn sign(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns when it counts as dead without a further sign of life.
    fn until(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) + CLIENT_TIMEOUT
    }
}

/// The client's messages, and our remarks on them.
struct AttachedClient<'a> {
    served: &'a ServedExecution,
    terms: AttachTerms,
    alive: &'a Liveness,
    remarks: mpsc::Sender<String>,
    /// Bytes of input that the client will send although they were accepted before.
    again: Mutex<u64>,
}

impl AttachedClient<'_> {
    /// Tells the client that the server goes away, and takes what it sends until it has closed too; false when it did not.
    async fn see_off(
        &self,
        sink: &mut SplitSink<ServerSocket, Message>,
        stream: &mut SplitStream<ServerSocket>,
    ) -> Result<bool, SocketError> {
        sink.send(close_frame(CloseCode::Away, "the server is going away")).await?;
        while let Some(message) = stream.next().await.transpose()? {
            if self.heard(message).await.is_break() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn listen(&self, stream: &mut SplitStream<ServerSocket>) -> AttachmentClose {
        loop {
            let next = match tokio::time::timeout_at(self.alive.until(), stream.next()).await {
                // Taking output is a sign of life as well.
                Err(_) if self.alive.until() > Instant::now() => continue,
                Ok(Some(Err(SocketError::Capacity(error)))) => {
                    return AttachmentClose::Send(close_frame(CloseCode::Size, &error.to_string()));
                }
                Ok(Some(Err(error))) => {
                    tracing::debug!(id = self.served.id, %error, "an attachment broke");
                    return AttachmentClose::Broken;
                }
                Err(_) | Ok(None) => {
                    tracing::debug!(id = self.served.id, "an attachment ended without a close frame");
                    return AttachmentClose::Broken;
                }
                Ok(Some(Ok(next))) => next,
            };
            if self.heard(next).await.is_break() {
                return AttachmentClose::Closed;
            }
            self.alive.sign();
        }
    }

    async fn heard(&self, message: Message) -> ControlFlow<()> {
        match message {
            Message::Binary(_) if !self.terms.with_stdin => {
                self.remark("this attachment is without standard input".into());
            }
            Message::Binary(bytes) => self.input(bytes).await,
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(frame) => {
                    if let Err(error) = self.asked(frame).await {
                        self.remark(error.chain().to_string());
                    }
                }
                Err(error) => self.remark(format!("not a frame that this server knows: {error}")),
            },
            Message::Close(_) => return ControlFlow::Break(()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
        ControlFlow::Continue(())
    }

    async fn input(&self, mut bytes: bytes::Bytes) {
        {
            let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
            let known = bytes.len().min(usize::try_from(*again).unwrap_or(usize::MAX));
            *again -= known as u64;
            drop(bytes.split_to(known));
        }
        if !bytes.is_empty() {
            self.served.offer_input(bytes).await;
        }
    }

    async fn asked(&self, frame: ClientFrame) -> boxlite::Result<()> {
        match frame {
            ClientFrame::Resize { cols, rows } => {
                self.served.resize(WindowSize { rows, columns: cols }).await
            }
            ClientFrame::Signal { sig } => {
                let signal = boxlite::parse_signal(&sig.to_string())?;
                self.served.signal(signal).await
            }
            ClientFrame::StdinEof => {
                if self.terms.with_stdin {
                    self.served.end_input().await;
                }
                Ok(())
            }
            ClientFrame::Ack { output } => {
                if self.terms.received.is_some() {
                    self.served.acknowledge(output);
                }
                Ok(())
            }
        }
    }

    fn remark(&self, text: String) {
        // A client that does not read its remarks misses some.
        let _ = self.remarks.try_send(text);
    }
}
