//! One client attached to one execution, over a WebSocket; `boxlite::wire` describes its frames.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use boxlite::WindowSize;
use boxlite::wire::{Channel, ClientFrame, PING, ServerFrame};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::buffer::Piece;
use super::command::{Abandoned, Attached, Command, Outcome};
use super::input::{Given, Progress};

/// The longest message from a client, in bytes.
pub(crate) const MAX_MESSAGE: usize = 4 << 20;
/// Silence after which the client is taken for dead.
const DEAD: Duration = PING.saturating_mul(3);
/// How long the closing handshake may take.
const PARTING: Duration = Duration::from_secs(5);
/// Remarks for the client that wait to be sent.
const REMARKS: usize = 16;

/// What a client wants of its attachment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// What it sends is standard input.
    pub(super) with_stdin: bool,
    /// It acknowledges, and has had so much output before.
    pub(super) received: Option<u64>,
}

/// How an attachment ended.
enum End {
    /// There is no more to say but this.
    Said(Message),
    /// The client closed.
    Closed,
    /// The client was cut off, is silent, or was replaced.
    Broken,
}

/// Serves the client until the command has ended, the client has gone, or `closing` says that the server goes.
///
/// What the client does not have stays in the buffer for the next one.
pub(super) async fn serve(socket: WebSocket, attached: Attached, terms: Terms, closing: CancellationToken) {
    let command = &*attached.command;
    let (mut sink, mut stream) = socket.split();
    let (progress, again) = command.input.begin();
    let (remarks, remarked) = mpsc::channel(REMARKS);
    let alive = Alive(Mutex::new(Instant::now()));
    let again = if terms.received.is_some() { again } else { 0 };
    let client = Client { command, terms, alive: &alive, remarks, again: Mutex::new(again) };
    let end = tokio::select! {
        end = speak(&mut sink, command, terms, progress, remarked, &alive) => end.unwrap_or_else(|error| {
            tracing::debug!(id = command.id, %error, "an attachment broke");
            End::Broken
        }),
        end = client.listen(&mut stream) => end,
        () = attached.replaced.cancelled() => End::Broken,
        () = closing.cancelled() => End::Said(closed(close_code::AWAY, "the server is going away")),
    };
    // The seat is given back before the connection ends: whoever sees that end may come back at once.
    match end {
        End::Closed | End::Broken => {
            if matches!(end, End::Closed)
                && (terms.received.is_some() || command.abandoned == Abandoned::LetGo)
            {
                command.release();
            }
            drop(attached);
        }
        End::Said(close) => {
            let (command, sent) = (Arc::clone(&attached.command), command.buffer.sent_to());
            drop(attached);
            if let Ok(Ok(true)) = tokio::time::timeout(PARTING, part(sink, stream, close)).await {
                // It closes after everything before our close, the last of which is not worth an acknowledgement.
                command.buffer.acknowledge(sent);
            }
        }
    }
}

/// Closes, and waits until the client has closed too: a socket that is closed while something the client said is unread
/// is reset, and the client then loses what it has not read yet. True when the client said that it closes.
async fn part(
    mut sink: SplitSink<WebSocket, Message>,
    mut stream: SplitStream<WebSocket>,
    close: Message,
) -> Result<bool, axum::Error> {
    sink.send(close).await?;
    let mut said = false;
    while let Some(message) = stream.next().await.transpose()? {
        said |= matches!(message, Message::Close(_));
    }
    Ok(said)
}

/// Passes output on until the command's end, which it tells.
async fn speak(
    sink: &mut SplitSink<WebSocket, Message>,
    command: &Command,
    terms: Terms,
    mut progress: Progress,
    mut remarked: mpsc::Receiver<String>,
    alive: &Alive,
) -> Result<End, axum::Error> {
    let acknowledges = terms.received.is_some();
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    loop {
        tokio::select! {
            biased;
            Some(Given { bytes: stdin, closed }) = progress.next(), if acknowledges => {
                sink.send(said(&ServerFrame::Ack { stdin, closed })).await?;
            }
            _ = ping.tick() => sink.send(Message::Ping(bytes::Bytes::new())).await?,
            Some(remark) = remarked.recv() => sink.send(said(&ServerFrame::Error { message: remark })).await?,
            piece = command.buffer.next() => {
                let Some(piece) = piece else { break };
                sink.send(message(piece)).await?;
                if acknowledges { command.buffer.sent() } else { command.buffer.passed_on() }
                alive.sign();
            }
        }
    }
    match command.outcome() {
        Some((Outcome::Ended(status), _)) => {
            sink.send(said(&ServerFrame::Exit { exit_code: status.code, reason: status.reason })).await?;
            Ok(End::Said(closed(close_code::NORMAL, "")))
        }
        Some((Outcome::Broken(error), _)) if acknowledges => {
            sink.send(said(&ServerFrame::Failed { error })).await?;
            Ok(End::Said(closed(close_code::NORMAL, "")))
        }
        Some((Outcome::Broken(error), _)) => {
            sink.send(said(&ServerFrame::Error { message: error.message.clone() })).await?;
            Ok(End::Said(closed(close_code::ERROR, &error.message)))
        }
        None => Ok(End::Said(closed(close_code::ERROR, "the server let go of this execution"))),
    }
}

fn message(piece: Piece) -> Message {
    match piece {
        Piece::Output(chunk) => {
            let mut frame = Vec::with_capacity(chunk.bytes.len() + 1);
            frame.push(Channel::from(chunk.stream) as u8);
            frame.extend_from_slice(&chunk.bytes);
            Message::Binary(frame.into())
        }
        Piece::Trouble(message) => said(&ServerFrame::Error { message }),
    }
}

fn said(frame: &ServerFrame) -> Message {
    Message::Text(serde_json::to_string(frame).unwrap_or_default().into())
}

fn closed(code: u16, reason: &str) -> Message {
    // A close frame has room for 123 bytes of reason.
    let mut reason = reason.to_owned();
    while reason.len() > 123 {
        reason.pop();
    }
    Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::from(reason) }))
}

/// When the client last showed that it lives.
struct Alive(Mutex<Instant>);

impl Alive {
    fn sign(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When it is dead unless it shows up before.
    fn until(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) + DEAD
    }
}

/// What the client says, and what it is told about it.
struct Client<'a> {
    command: &'a Command,
    terms: Terms,
    alive: &'a Alive,
    remarks: mpsc::Sender<String>,
    /// Bytes of input that will come although they came before.
    again: Mutex<u64>,
}

impl Client<'_> {
    async fn listen(&self, stream: &mut SplitStream<WebSocket>) -> End {
        loop {
            let next = match tokio::time::timeout_at(self.alive.until(), stream.next()).await {
                // Output that it takes is a sign of life as well.
                Err(_) if self.alive.until() > Instant::now() => continue,
                Ok(Some(Err(error))) => {
                    tracing::debug!(id = self.command.id, %error, "an attachment broke");
                    return End::Broken;
                }
                Err(_) | Ok(None) => {
                    tracing::debug!(id = self.command.id, "an attachment ended without a word");
                    return End::Broken;
                }
                Ok(Some(Ok(next))) => next,
            };
            if self.heard(next).await.is_break() {
                return End::Closed;
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
                Err(error) => self.remark(format!("no frame that this server knows: {error}")),
            },
            Message::Close(_) => return ControlFlow::Break(()),
            Message::Ping(_) | Message::Pong(_) => {}
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
            self.command.count_input(bytes.len());
            self.command.input.offer(bytes).await;
        }
    }

    async fn asked(&self, frame: ClientFrame) -> boxlite::Result<()> {
        match frame {
            ClientFrame::Resize { cols, rows } => {
                self.command.resize(WindowSize { rows, columns: cols }).await
            }
            ClientFrame::Signal { sig } => {
                let signal = boxlite::parse_signal(&sig.to_string())?;
                self.command.signal(signal).await
            }
            ClientFrame::StdinEof => {
                if self.terms.with_stdin {
                    self.command.input.end();
                }
                Ok(())
            }
            ClientFrame::Ack { output } => {
                if self.terms.received.is_some() {
                    self.command.buffer.acknowledge(output);
                }
                Ok(())
            }
        }
    }

    fn remark(&self, text: String) {
        // Who does not read remarks misses some.
        let _ = self.remarks.try_send(text);
    }
}
