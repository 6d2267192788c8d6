//! The task that owns an execution's WebSocket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use boxlite_types::wire::{Channel, ClientFrame, PING, ServerFrame};
use boxlite_types::{Error, ExecStatus, OutputChunk};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use super::super::failure;
use super::flow::{Flow, Nonsense, Outgoing};
use super::socket::{Place, Refusal, Socket};
use super::{Command, Ended};

/// Pauses between attempts to connect again; when all are over, the execution counts as lost.
const PAUSES: [Duration; 7] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// After this long without a connection no further attempt is made: an answer that never comes costs time as well.
const ENOUGH: Duration = Duration::from_secs(40);
/// A connection that lasted so long was a good one, although nothing came over it.
const LASTING: Duration = Duration::from_secs(10);
/// The longest silence of a living server.
const SILENCE: Duration = PING.saturating_mul(3);
/// How long a good-bye may take.
const PARTING: Duration = Duration::from_secs(1);

pub(super) struct Link {
    place: Place,
    flow: Arc<Flow>,
    chunks: mpsc::UnboundedSender<OutputChunk>,
    commands: mpsc::Receiver<Command>,
    failed: usize,
    broken_since: Option<Instant>,
}

/// How a connection came to its end.
enum Over {
    Ended(Ended),
    LetGo,
    Broken(Error),
}

impl Link {
    pub(super) fn new(
        place: Place,
        flow: Arc<Flow>,
        chunks: mpsc::UnboundedSender<OutputChunk>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self { place, flow, chunks, commands, failed: 0, broken_since: None }
    }

    /// Keeps the connection up until the execution ends or everybody has let go of it.
    pub(super) async fn run(mut self, ended: watch::Sender<Option<Ended>>) {
        let end = loop {
            let trouble = match self.place.attach(self.flow.begin()).await {
                Ok(socket) => {
                    let (before, since) = (self.flow.progress(), Instant::now());
                    let over = self.converse(socket).await;
                    if self.flow.progress() != before || since.elapsed() >= LASTING {
                        (self.failed, self.broken_since) = (0, None);
                    }
                    match over {
                        Over::Ended(end) => break end,
                        Over::LetGo => return,
                        Over::Broken(error) => error,
                    }
                }
                Err(Refusal::ForNow(error)) => error,
                Err(Refusal::ForGood(error)) => break Ended::Failed(Arc::new(error)),
            };
            tracing::debug!(%trouble, "an execution's connection broke");
            let since = *self.broken_since.get_or_insert_with(Instant::now);
            let pause = PAUSES.get(self.failed).filter(|_| since.elapsed() < ENOUGH);
            let Some(&pause) = pause else {
                break Ended::Failed(Arc::new(self.place.lost(&trouble)));
            };
            self.failed += 1;
            sleep(pause).await;
            if self.commands.is_closed() {
                return;
            }
        };
        self.flow.close_input();
        // The end is known before the output's end is seen, so that reading to the end and then asking never waits.
        let _ = ended.send(Some(end));
    }

    /// Speaks and listens, neither waiting for the other.
    async fn converse(&mut self, socket: Socket) -> Over {
        let (mut sink, mut stream) = socket.split();
        let ear = Ear { server: self.place.server(), flow: &self.flow, chunks: &self.chunks };
        let mut mouth = Mouth { server: self.place.server(), flow: &self.flow, commands: &mut self.commands };
        let over = tokio::select! {
            biased;
            over = ear.listen(&mut stream) => over,
            over = mouth.speak(&mut sink) => over,
        };
        if let Over::Ended(_) | Over::LetGo = over {
            // Tells the server that nobody comes back; if it does not hear that, it finds out by itself.
            let _ = timeout(PARTING, sink.close()).await;
        }
        over
    }
}

/// Sends what there is to send and does as it is told; ends when everybody has let go.
struct Mouth<'a> {
    server: &'a str,
    flow: &'a Flow,
    commands: &'a mut mpsc::Receiver<Command>,
}

impl Mouth<'_> {
    async fn speak(&mut self, sink: &mut SplitSink<Socket, Message>) -> Over {
        loop {
            let over = tokio::select! {
                biased;
                // However much input there is, a signal does not wait for it.
                command = self.commands.recv() => obey(sink, command).await,
                outgoing = next_outgoing(self.flow) => send(sink, outgoing).await,
            };
            match over {
                Ok(None) => {}
                Ok(Some(over)) => return over,
                Err(error) => return broken(error, self.server),
            }
        }
    }
}

/// Waits for something to send.
async fn next_outgoing(flow: &Flow) -> Outgoing {
    loop {
        if let Some(outgoing) = flow.next_outgoing() {
            return outgoing;
        }
        flow.stirred.notified().await;
    }
}

async fn send(
    sink: &mut SplitSink<Socket, Message>,
    outgoing: Outgoing,
) -> Result<Option<Over>, tungstenite::Error> {
    let message = match outgoing {
        Outgoing::Frame(frame) => text(frame),
        Outgoing::Input(bytes) => Message::Binary(bytes),
    };
    sink.send(message).await.map(|()| None)
}

/// Does what a command asks for; without one, everybody has let go.
async fn obey(
    sink: &mut SplitSink<Socket, Message>,
    command: Option<Command>,
) -> Result<Option<Over>, tungstenite::Error> {
    match command {
        None => Ok(Some(Over::LetGo)),
        Some(Command::LetGo(done)) => {
            let _ = timeout(PARTING, sink.close()).await;
            let _ = done.send(());
            Ok(Some(Over::LetGo))
        }
        Some(Command::Say(frame, done)) => {
            sink.send(text(frame)).await?;
            let _ = done.send(());
            Ok(None)
        }
    }
}

/// Takes what the server sends.
struct Ear<'a> {
    server: &'a str,
    flow: &'a Flow,
    chunks: &'a mpsc::UnboundedSender<OutputChunk>,
}

impl Ear<'_> {
    async fn listen(&self, stream: &mut SplitStream<Socket>) -> Over {
        loop {
            let understood = match timeout(SILENCE, stream.next()).await {
                Err(_) => return Over::Broken(failure::silent(self.server)),
                Ok(None | Some(Ok(Message::Close(_)))) => {
                    return Over::Broken(failure::broken_off(self.server, None));
                }
                Ok(Some(Err(error))) => return broken(error, self.server),
                Ok(Some(Ok(Message::Binary(frame)))) => self.output(&frame),
                Ok(Some(Ok(Message::Text(text)))) => match serde_json::from_str::<ServerFrame>(&text) {
                    Ok(frame) => self.frame(frame),
                    // A newer server may say more than we understand; what matters to us stays as it is.
                    Err(error) => {
                        tracing::debug!(%error, "a frame that is not understood");
                        Ok(None)
                    }
                },
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => Ok(None),
            };
            match understood {
                Ok(None) => {}
                Ok(Some(end)) => return Over::Ended(end),
                Err(Nonsense(what)) => {
                    let message = format!("the server {} is not understood: {what}", self.server);
                    return Over::Ended(Ended::Failed(Arc::new(failure::unusable(self.server, message))));
                }
            }
        }
    }

    fn output(&self, frame: &Bytes) -> Result<Option<Ended>, Nonsense> {
        let stream = frame
            .first()
            .and_then(|&byte| Channel::stream_of(byte))
            .ok_or(Nonsense("it sends output of no known stream"))?;
        let bytes = frame.slice(1..);
        if !bytes.is_empty() && self.flow.output_arrived(bytes.len())? {
            // Nobody listens when the reader has just gone.
            let _ = self.chunks.send(OutputChunk { stream, bytes });
        }
        Ok(None)
    }

    fn frame(&self, frame: ServerFrame) -> Result<Option<Ended>, Nonsense> {
        match frame {
            ServerFrame::Exit { exit_code, reason } => {
                Ok(Some(Ended::Process(ExecStatus { code: exit_code, reason })))
            }
            ServerFrame::Failed { error } => Ok(Some(Ended::Failed(Arc::new(error.into_error())))),
            ServerFrame::Ack { stdin, closed } => self.flow.input_arrived(stdin, closed).map(|()| None),
            ServerFrame::Error { message } => {
                tracing::debug!(message, "the server could not do what was asked of a command");
                Ok(None)
            }
        }
    }
}

fn text(frame: ClientFrame) -> Message {
    // A plain enum of numbers serialises.
    Message::text(serde_json::to_string(&frame).unwrap_or_default())
}

fn broken(error: tungstenite::Error, server: &str) -> Over {
    Over::Broken(failure::broken_off(server, Some(&error)).because(error))
}
