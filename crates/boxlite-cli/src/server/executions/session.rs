//! One client attached to one execution, over a WebSocket.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use boxlite::WindowSize;
use boxlite::wire::{Channel, ClientFrame, ServerFrame};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::buffer::Piece;
use super::command::{Abandoned, Attached, Command, Outcome};

/// The longest message from a client, in bytes.
pub(crate) const MAX_MESSAGE: usize = 4 << 20;
/// How often the client is asked for a sign of life.
const PING: Duration = Duration::from_secs(15);
/// Silence after which the client is taken for dead.
const DEAD: Duration = Duration::from_secs(45);
/// How long the closing handshake may take.
const PARTING: Duration = Duration::from_secs(5);
/// Remarks for the client that wait to be sent.
const REMARKS: usize = 16;

/// How an attachment ended on the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It said that it leaves.
    Deliberately,
    /// It was cut off, or is silent.
    Broken,
}

/// Serves the client until the command has ended, the client has gone, or `closing` says that the server goes.
///
/// What was not passed on stays in the buffer for the next client.
pub(crate) async fn serve(
    socket: WebSocket,
    attached: Attached,
    command: Arc<Command>,
    with_stdin: bool,
    closing: CancellationToken,
) {
    let (mut sink, stream) = socket.split();
    let (remarks, remarked) = mpsc::channel(REMARKS);
    let alive = Mutex::new(Instant::now());
    let left = {
        let client = Client { command: &command, with_stdin, alive: &alive, remarks };
        tokio::select! {
            sent = send(&mut sink, &command, remarked, &alive) => match sent {
                Ok(close) => Err(close),
                Err(_) => Ok(Left::Broken),
            },
            left = client.listen(stream) => Ok(left),
            () = closing.cancelled() => Err(closed(close_code::AWAY, "the server is going away")),
        }
    };
    match left {
        Ok(Left::Deliberately) if command.abandoned == Abandoned::LetGo => command.release(),
        Ok(_) => {}
        Err(close) => {
            let _ = tokio::time::timeout(PARTING, async {
                sink.send(close).await?;
                sink.close().await
            })
            .await;
        }
    }
    drop(attached);
}

/// Passes output on until the command's end, which it tells; returns how to close.
async fn send(
    sink: &mut SplitSink<WebSocket, Message>,
    command: &Command,
    mut remarked: mpsc::Receiver<String>,
    alive: &Mutex<Instant>,
) -> Result<Message, axum::Error> {
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    loop {
        tokio::select! {
            piece = command.buffer.front() => {
                let Some(piece) = piece else { break };
                sink.send(message(piece)).await?;
                command.buffer.passed_on();
                touch(alive);
            }
            Some(remark) = remarked.recv() => sink.send(said(&ServerFrame::Error { message: remark })).await?,
            _ = ping.tick() => sink.send(Message::Ping(bytes::Bytes::new())).await?,
        }
    }
    match command.outcome() {
        Some((Outcome::Ended(status), _)) => {
            sink.send(said(&ServerFrame::Exit { exit_code: status.code, reason: status.reason })).await?;
            Ok(closed(close_code::NORMAL, ""))
        }
        Some((Outcome::Broken(error), _)) => {
            sink.send(said(&ServerFrame::Error { message: error.message.clone() })).await?;
            Ok(closed(close_code::ERROR, &error.message))
        }
        None => Ok(closed(close_code::ERROR, "the server let go of this execution")),
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

fn touch(alive: &Mutex<Instant>) {
    if let Ok(mut alive) = alive.lock() {
        *alive = Instant::now();
    }
}

/// What the client says, and what it is told about it.
struct Client<'a> {
    command: &'a Command,
    with_stdin: bool,
    alive: &'a Mutex<Instant>,
    remarks: mpsc::Sender<String>,
}

impl Client<'_> {
    async fn listen(&self, mut stream: SplitStream<WebSocket>) -> Left {
        loop {
            let deadline = self.alive.lock().map_or_else(|_| Instant::now(), |alive| *alive) + DEAD;
            let next = match tokio::time::timeout_at(deadline, stream.next()).await {
                Ok(Some(Ok(next))) => next,
                // Output that it takes is a sign of life as well.
                Err(_) if self.alive.lock().is_ok_and(|alive| alive.elapsed() < DEAD) => continue,
                Ok(_) | Err(_) => return Left::Broken,
            };
            if let ControlFlow::Break(left) = self.heard(next).await {
                return left;
            }
            touch(self.alive);
        }
    }

    async fn heard(&self, message: Message) -> ControlFlow<Left> {
        match message {
            Message::Binary(_) if !self.with_stdin => {
                self.remark("this attachment is without standard input".into());
            }
            Message::Binary(bytes) => self.command.feed(bytes).await,
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(frame) => {
                    if let Err(error) = self.asked(frame).await {
                        self.remark(error.to_string());
                    }
                }
                Err(error) => self.remark(format!("no frame that this server knows: {error}")),
            },
            Message::Close(_) => return ControlFlow::Break(Left::Deliberately),
            Message::Ping(_) | Message::Pong(_) => {}
        }
        ControlFlow::Continue(())
    }

    async fn asked(&self, frame: ClientFrame) -> boxlite::Result<()> {
        match frame {
            ClientFrame::Resize { cols, rows } => {
                self.command.resize(WindowSize { rows, columns: cols }).await
            }
            ClientFrame::Signal { sig } => match boxlite::parse_signal(&sig.to_string()) {
                Ok(signal) => self.command.signal(signal).await,
                Err(error) => Err(error),
            },
            ClientFrame::StdinEof => {
                if self.with_stdin {
                    self.command.close_stdin();
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
