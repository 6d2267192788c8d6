//! One connection, and one exec, attach or copy on it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use boxlite_home::BoxPaths;
use boxlite_proto::{
    Frame, GivenInput, Op, OpEvent, ProcessExit, ReceiveWindow, ShimReply, ShimRequest, Stream, WinSize,
};
use boxlite_types::{
    Error, Execution, ExecutionControl, ExitStatus, OutputChunk, OutputStream, Result, WindowSize,
};
use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, watch};

use super::stdin::{StdinSink, StdinWriter};
use super::{ShimClient, connection_lost, failure, refusal, wait_until_gone};
use crate::shim::MainLog;
use crate::shim::frames::FrameReader;
use crate::shim::sink::{self, FrameSink};

/// A connection to a shim; it ends when the last [`FrameSink`] is dropped.
#[derive(Debug)]
pub(super) struct ShimConnection {
    pub(super) sink: FrameSink,
    frames: FrameReader<OwnedReadHalf>,
}

impl ShimConnection {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        let (sink, source) = sink::queue();
        tokio::spawn(source.drain_into(write));
        Self { sink, frames: FrameReader::new(read) }
    }

    /// Sends a request, which always fits a frame.
    pub(super) fn send(&self, request: &ShimRequest) -> Result<()> {
        let sent = FrameSink::control(&self.sink, request);
        sent.map_err(|error| Error::bug("a request does not serialise").because(error))
    }

    /// The next frame; `None` when the shim has closed the connection.
    pub(super) async fn frame(&mut self) -> Result<Option<Frame>> {
        self.frames.next().await.map_err(connection_lost)
    }

    /// The next control message.
    pub(super) async fn reply(&mut self) -> Result<Option<ShimReply>> {
        while let Some(frame) = self.frame().await? {
            if let Frame::Control(payload) = frame {
                return Frame::parse_control(&payload).map(Some).map_err(connection_lost);
            }
        }
        Ok(None)
    }

    /// The next control message that is not the shim's hello; a refusal becomes an error.
    pub(super) async fn answer(&mut self) -> Result<Option<ShimReply>> {
        loop {
            match self.reply().await? {
                Some(ShimReply::Hello { .. }) => {}
                Some(ShimReply::Error { kind, message }) => return Err(refusal(kind, message)),
                other => return Ok(other),
            }
        }
    }
}

/// How an operation ended, shared by everybody who waits for it.
#[derive(Debug, Clone)]
pub(super) enum StreamEnd {
    Process(ExitStatus),
    Copied(u64),
    Failed(Error),
}

/// One operation and its streams.
pub(super) struct Session {
    pub(super) output: Output,
    pub(super) stdin: StdinSink,
    pub(super) control: Control,
}

impl Session {
    /// Starts listening to the operation `channel`, which `connection` was opened with.
    pub(super) fn start(connection: ShimConnection, channel: u32) -> Self {
        Self::listen(connection, channel, None, None, None)
    }

    /// The same for the seat of an execution that was given `input`, with `queued` bytes of its window in use.
    pub(super) fn seated(connection: ShimConnection, channel: u32, input: GivenInput, queued: u32) -> Self {
        Self::listen(connection, channel, None, None, Some((input, queued)))
    }

    /// The same for the main process of the box at `log`, asked for from position `from` on: what the connection did
    /// not bring before the box ended is read from its log.
    pub(super) fn attach(connection: ShimConnection, channel: u32, from: Option<u64>, log: BoxPaths) -> Self {
        Self::listen(connection, channel, from, Some(log), None)
    }

    fn listen(
        connection: ShimConnection,
        channel: u32,
        from: Option<u64>,
        log: Option<BoxPaths>,
        seat: Option<(GivenInput, u32)>,
    ) -> Self {
        let sink = connection.sink.clone();
        let (chunks, receiver) = mpsc::unbounded_channel();
        let (ended, ended_receiver) = watch::channel(None);
        let (started, started_receiver) = watch::channel(false);
        let (given, queued) = seat.unwrap_or_default();
        let input = StdinWriter::new(channel, queued);
        if given.closed {
            input.close();
        }
        let (given, given_receiver) = watch::channel(given);
        let (left, left_receiver) = watch::channel(false);
        let seat = seat.map(|_| SeatListener { given, left });
        let listener =
            Listener { connection, input: input.clone(), chunks, started, position: None, from, log, seat };
        tokio::spawn(listener.listen(ended));
        Self {
            output: Output {
                channel,
                chunks: receiver,
                sink: sink.clone(),
                windows: [Stream::Stdout, Stream::Stderr].map(|stream| ReceiveWindow::new(channel, stream)),
            },
            stdin: StdinSink::new(channel, sink.clone(), input),
            control: Control {
                channel,
                sink,
                started: started_receiver,
                ended: ended_receiver,
                given: given_receiver,
                left: left_receiver,
            },
        }
    }

    /// Waits until the operation is under way.
    pub(super) async fn started(&self) -> Result<()> {
        if self.control.started().await? {
            Ok(())
        } else {
            Err(Error::bug("an operation ended before it began"))
        }
    }

    /// The process of the box that `client` reaches, as callers see it.
    pub(super) fn into_execution(self, stdin: bool, client: ShimClient) -> Execution {
        Execution {
            stdin: if stdin { Some(Box::pin(self.stdin)) } else { None },
            output: Box::pin(self.output),
            control: Arc::new(ProcessControl { control: self.control, client }),
        }
    }
}

/// Reads a connection on behalf of a session; holds no sink of its own, so that the session's end closes it.
struct Listener {
    connection: ShimConnection,
    input: StdinWriter,
    chunks: mpsc::UnboundedSender<Result<OutputChunk>>,
    /// Told once the process runs; dropped when it is over.
    started: watch::Sender<bool>,
    /// Where the next byte of a main process's output is.
    position: Option<u64>,
    /// Where it was asked to begin.
    from: Option<u64>,
    /// The box whose log has what the connection does not bring.
    log: Option<BoxPaths>,
    /// The messages for the client in the seat of an execution.
    seat: Option<SeatListener>,
}

struct SeatListener {
    given: watch::Sender<GivenInput>,
    /// Told once the seat is free.
    left: watch::Sender<bool>,
}

impl SeatListener {
    fn hear(&self, reply: &ShimReply) {
        match reply {
            ShimReply::InputGiven { input, .. } => {
                self.given.send_replace(*input);
            }
            ShimReply::Done => {
                self.left.send_replace(true);
            }
            _ => {}
        }
    }
}

impl Listener {
    async fn listen(self, ended: watch::Sender<Option<StreamEnd>>) {
        let Self { connection, input, chunks, started, mut position, from, log, seat } = self;
        let ShimConnection { sink, mut frames } = connection;
        drop(sink);
        let end = loop {
            let frame = match frames.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => break StreamEnd::Failed(gone()),
                Err(error) => break StreamEnd::Failed(connection_lost(error)),
            };
            match frame {
                Frame::Control(payload) => match Frame::parse_control(&payload) {
                    Ok(reply) => {
                        if let ShimReply::Event(OpEvent::Started { .. }) = &reply {
                            started.send_replace(true);
                        }
                        if let Some(seat) = &seat {
                            seat.hear(&reply);
                        }
                        if let Some(end) = judge(reply, &mut position, &chunks) {
                            break end;
                        }
                    }
                    Err(error) => break StreamEnd::Failed(connection_lost(error)),
                },
                Frame::Data { stream, bytes, .. } => {
                    position = position.map(|position| position + bytes.len() as u64);
                    let stream = OutputStream::from(stream);
                    let _ = chunks.send(Ok(OutputChunk { stream, bytes: Bytes::from(bytes) }));
                }
                Frame::Credit { stream: Stream::Stdin, bytes, .. } => {
                    if let Err(error) = input.granted(bytes) {
                        break StreamEnd::Failed(connection_lost(error));
                    }
                }
                Frame::Close { stream: Stream::Stdin, .. } => input.close(),
                _ => {}
            }
        };
        input.close();
        if let (Some(log), Some(position), StreamEnd::Failed(_)) = (log, position.or(from), &end) {
            read_rest(&log, position, &chunks).await;
        }
        // The end is known before the output's end is seen, so that reading to the end and then asking never waits.
        let _ = ended.send(Some(end));
        drop(chunks);
        if let Some(seat) = seat {
            // The seat may be left after the end as well.
            while let Ok(Some(frame)) = frames.next().await {
                if let Frame::Control(payload) = frame
                    && let Ok(reply) = Frame::parse_control(&payload)
                {
                    seat.hear(&reply);
                }
            }
        }
    }
}

/// Sends what the main process wrote from `position` on, once nobody writes to its log any more.
async fn read_rest(paths: &BoxPaths, position: u64, chunks: &mpsc::UnboundedSender<Result<OutputChunk>>) {
    if wait_until_gone(paths).await.is_err() {
        return;
    }
    let (path, chunks) = (paths.main_log(), chunks.clone());
    let reading = tokio::task::spawn_blocking(move || -> Result<()> {
        let Some(last) = MainLog::runs(&path)?.map(|runs| *runs.end()) else { return Ok(()) };
        for record in MainLog::open_run(&path, last, position)? {
            let record = record?;
            let stream = OutputStream::from(record.stream);
            if chunks.send(Ok(OutputChunk { stream, bytes: record.bytes })).is_err() {
                break;
            }
        }
        Ok(())
    });
    if let Ok(Err(error)) = reading.await {
        tracing::warn!(error = %error.chain(), "the rest of a box's output could not be read");
    }
}

fn gone() -> Error {
    Error::new(boxlite_types::ErrorKind::Unavailable, "the box ended while it was being used")
}

/// Judges a message for the operation; `Some` when it was the last.
fn judge(
    reply: ShimReply,
    position: &mut Option<u64>,
    chunks: &mpsc::UnboundedSender<Result<OutputChunk>>,
) -> Option<StreamEnd> {
    match reply {
        ShimReply::Event(OpEvent::Exited { status, .. }) => Some(StreamEnd::Process(ExitStatus {
            code: status.shell_code(),
            reason: match status {
                ProcessExit::Code(_) => None,
                ProcessExit::Signal(signal) => Some(format!("killed by signal {signal}")),
            },
        })),
        ShimReply::Event(OpEvent::ExecFailed { kind, message, .. }) => {
            Some(StreamEnd::Process(ExitStatus { code: kind.exit_code(), reason: Some(message) }))
        }
        ShimReply::Event(OpEvent::Copied { bytes, .. }) => Some(StreamEnd::Copied(bytes)),
        ShimReply::Event(OpEvent::Failed { kind, message, .. }) => {
            Some(StreamEnd::Failed(failure(kind, message)))
        }
        ShimReply::Stopped { .. } => Some(StreamEnd::Failed(gone())),
        ShimReply::Error { kind, message } => Some(StreamEnd::Failed(refusal(kind, message))),
        ShimReply::Attached { position: now, .. } => {
            if let Some(lost) = position.and_then(|before| now.checked_sub(before)).filter(|&lost| lost > 0) {
                let message = format!("{lost} bytes of output were lost because they were not read in time");
                let _ = chunks.send(Err(Error::new(boxlite_types::ErrorKind::Unavailable, message)));
            }
            *position = Some(now);
            None
        }
        ShimReply::ExecutionEnded { end, .. } => {
            Some(StreamEnd::Process(ExitStatus { code: end.code, reason: end.reason }))
        }
        ShimReply::Event(_)
        | ShimReply::Hello { .. }
        | ShimReply::Status(_)
        | ShimReply::Done
        | ShimReply::Switched { .. }
        | ShimReply::Execution(_)
        | ShimReply::Executions(_)
        | ShimReply::ExecutionAttached { .. }
        | ShimReply::InputGiven { .. } => None,
    }
}

/// The output of an operation; reading it is what lets more of it come. Dropping it discards the rest.
pub(super) struct Output {
    channel: u32,
    chunks: mpsc::UnboundedReceiver<Result<OutputChunk>>,
    sink: FrameSink,
    windows: [ReceiveWindow; 2],
}

impl futures::Stream for Output {
    type Item = Result<OutputChunk>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.chunks.poll_recv(context));
        if let Some(Ok(chunk)) = &next {
            let (index, stream) = match chunk.stream {
                OutputStream::Stdout => (0, Stream::Stdout),
                OutputStream::Stderr => (1, Stream::Stderr),
            };
            let length = chunk.bytes.len();
            let (channel, window) = (self.channel, &mut self.windows[index]);
            match window.received(length) {
                Ok(()) => {
                    if let Some(credit) = window.consumed(length) {
                        self.sink.credit(channel, stream, credit);
                    }
                }
                Err(error) => return Poll::Ready(Some(Err(connection_lost(error)))),
            }
        }
        Poll::Ready(next)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.sink.send(Frame::Close { channel: self.channel, stream });
        }
    }
}

/// Signals, resizing and waiting.
pub(super) struct Control {
    channel: u32,
    sink: FrameSink,
    started: watch::Receiver<bool>,
    ended: watch::Receiver<Option<StreamEnd>>,
    /// The amount of input that an execution was given.
    given: watch::Receiver<GivenInput>,
    /// Whether the seat of an execution is free.
    left: watch::Receiver<bool>,
}

impl Control {
    /// Waits for the operation's last word.
    pub(super) async fn ended(&self) -> StreamEnd {
        let mut receiver = self.ended.clone();
        match receiver.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or_else(|| StreamEnd::Failed(gone())),
            Err(_) => StreamEnd::Failed(gone()),
        }
    }

    /// Waits for the operation's first word: whether it is under way, rather than ended.
    async fn started(&self) -> Result<bool> {
        let mut started = self.started.clone();
        if started.wait_for(|started| *started).await.is_ok() {
            return Ok(true);
        }
        match self.ended().await {
            StreamEnd::Failed(error) => Err(error),
            StreamEnd::Process(_) | StreamEnd::Copied(_) => Ok(false),
        }
    }

    /// Where requests go.
    pub(super) fn sink(&self) -> &FrameSink {
        &self.sink
    }

    /// Returns the amount of input that the execution was given, as that changes.
    pub(super) fn given(&self) -> watch::Receiver<GivenInput> {
        self.given.clone()
    }

    /// Waits until the seat is free, or the shim gone.
    pub(super) async fn left(&self) {
        let _ = self.left.clone().wait_for(|left| *left).await;
    }

    fn ask(&self, op: Op) -> Result<()> {
        let message = ShimRequest::Op(op);
        self.sink.control(&message).map_err(|error| Error::bug("a request does not serialise").because(error))
    }
}

/// Controls a process in the guest.
struct ProcessControl {
    control: Control,
    client: ShimClient,
}

#[async_trait]
impl ExecutionControl for ProcessControl {
    async fn signal(&self, signal: i32) -> Result<()> {
        self.control.ask(Op::Signal { id: self.control.channel, signo: signal })?;
        self.client.answers().await
    }

    async fn answers(&self) -> Result<()> {
        self.client.answers().await
    }

    async fn resize(&self, size: WindowSize) -> Result<()> {
        let size = WinSize { rows: size.rows, cols: size.columns };
        self.control.ask(Op::Resize { id: self.control.channel, size })
    }

    async fn started(&self) -> Result<bool> {
        self.control.started().await
    }

    async fn wait(&self) -> Result<ExitStatus> {
        match self.control.ended().await {
            StreamEnd::Process(status) => Ok(status),
            StreamEnd::Copied(_) => Err(Error::bug("a process ended like a copy")),
            StreamEnd::Failed(error) => Err(error),
        }
    }
}
