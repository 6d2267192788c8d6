//! The main process: its output's way to the log and to attached clients, and its input.
//!
//! Output is numbered and logged as it arrives, and the guest gets credit for it once every attached client that
//! keeps up has been sent it, so that a slow reader slows the main process down and nothing is lost. A client that
//! takes nothing for [`STALL_TIMEOUT`] no longer holds the box up: it is fed from the log, and told if the log has moved past it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use boxlite_proto::{
    Frame, MAIN_CHANNEL, MAX_PAYLOAD, MainState, OpEvent, ProcessExit, ProtoError, ReceiveWindow, SendWindow,
    ShimReply, Stream, WINDOW,
};
use bytes::Bytes;
use tokio::time::Instant;

use crate::shim::log::{MainLog, MainLogWriter, Record, RunLog};
use crate::shim::sink::FrameSink;

/// How long an attached client that takes nothing may hold up the main process's output.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Identifies a connection for the life of the shim.
pub(super) type ClientId = u64;

/// The main process of a box, seen from the shim.
#[derive(Debug)]
pub(super) struct MainRun {
    pub(super) state: MainState,
    /// The last event that a client attaching later must still learn.
    told: Option<OpEvent>,
    log: MainLogWriter,
    /// Output for which the guest has no credit yet, because a client has not taken it.
    unpaid: VecDeque<Record>,
    windows: [ReceiveWindow; 2],
    attached: HashMap<ClientId, Attached>,
    /// [`STALL_TIMEOUT`].
    patience: Duration,
    stdin: Stdin,
}

#[derive(Debug)]
struct Attached {
    sink: FrameSink,
    channel: u32,
    position: u64,
    windows: [SendWindow; 2],
    backlog: Option<MainLog>,
    /// A piece of which the window had no room for all.
    rest: Option<Record>,
    /// Since when it has been behind without taking anything.
    behind_since: Option<Instant>,
    /// It wants to learn the end and nothing else.
    discards: bool,
    /// It has had everything, including the end.
    finished: bool,
}

#[derive(Debug)]
struct Stdin {
    owner: Option<(ClientId, u32, FrameSink, ReceiveWindow)>,
    window: SendWindow,
    /// Input that the guest has no room for yet, and who sent it.
    waiting: VecDeque<(ClientId, Vec<u8>)>,
    /// The owner has sent all of its input.
    ended: bool,
    /// The end has been passed on, or the process wants no more.
    closed: bool,
}

impl MainRun {
    pub(super) fn new(log: MainLogWriter) -> Self {
        Self {
            state: MainState::Booting,
            told: None,
            log,
            unpaid: VecDeque::new(),
            windows: [Stream::Stdout, Stream::Stderr].map(|stream| ReceiveWindow::new(MAIN_CHANNEL, stream)),
            attached: HashMap::new(),
            patience: STALL_TIMEOUT,
            stdin: Stdin {
                owner: None,
                window: SendWindow::new(MAIN_CHANNEL, Stream::Stdin),
                waiting: VecDeque::new(),
                ended: false,
                closed: false,
            },
        }
    }

    /// The exit status, once known.
    pub(super) fn status(&self) -> Option<ProcessExit> {
        match self.state {
            MainState::Exited(status) => Some(status),
            _ => None,
        }
    }

    /// The guest reports about the main process; everybody attached is told, after all of its output.
    pub(super) fn event(&mut self, event: &OpEvent) {
        match event {
            OpEvent::Started { pid, .. } => self.state = MainState::Running { pid: *pid },
            OpEvent::Exited { status, .. } => self.state = MainState::Exited(*status),
            OpEvent::ExecFailed { kind, .. } => {
                self.state = MainState::Exited(ProcessExit::Code(kind.exit_code()));
            }
            _ => return,
        }
        self.told = Some(event.clone());
        for attached in self.attached.values_mut() {
            if event.is_last() {
                attached.feed(&self.unpaid, self.log.kept(), self.log.position(), self.told.as_ref());
            } else {
                attached.tell(event);
            }
        }
    }

    /// Output arrives from the guest.
    pub(super) fn output(
        &mut self,
        stream: Stream,
        bytes: Vec<u8>,
        guest: &FrameSink,
    ) -> Result<(), ProtoError> {
        self.windows[index(stream)?].received(bytes.len())?;
        let position = self.log.position();
        self.log.append(stream, &bytes);
        let run = self.log.kept().run();
        self.unpaid.push_back(Record { run, stream, position, at_unix_ms: 0, bytes: Bytes::from(bytes) });
        for attached in self.attached.values_mut() {
            attached.feed(&self.unpaid, self.log.kept(), self.log.position(), None);
        }
        self.pay(guest);
        Ok(())
    }

    /// Gives the guest credit for the output that nobody waits for any more.
    fn pay(&mut self, guest: &FrameSink) {
        let now = Instant::now();
        let patience = self.patience;
        let holding =
            |attached: &&Attached| attached.behind_since.is_none_or(|since| now - since <= patience);
        let passed = self.attached.values().filter(holding).map(|attached| attached.position).min();
        let passed = passed.unwrap_or(u64::MAX);
        while let Some(first) = self.unpaid.front() {
            if first.position + first.bytes.len() as u64 > passed {
                break;
            }
            let window = &mut self.windows[usize::from(first.stream == Stream::Stderr)];
            if let Some(credit) = window.consumed(first.bytes.len()) {
                guest.credit(MAIN_CHANNEL, first.stream, credit);
            }
            self.unpaid.pop_front();
        }
    }

    /// Time passes: clients that stalled stop holding the output up.
    pub(super) fn tick(&mut self, guest: &FrameSink) {
        if !self.unpaid.is_empty() {
            self.pay(guest);
        }
    }

    /// A client wants the output from position `from` on (`None`: from now on) and, with `stdin`, to feed the input.
    pub(super) fn attach(
        &mut self,
        client: ClientId,
        sink: FrameSink,
        channel: u32,
        from: Option<u64>,
        stdin: bool,
    ) {
        let end = self.log.position();
        let position = from.map_or(end, |from| from.min(end));
        let mut attached = Attached {
            sink: sink.clone(),
            channel,
            position,
            windows: [Stream::Stdout, Stream::Stderr].map(|stream| SendWindow::new(channel, stream)),
            backlog: None,
            rest: None,
            behind_since: None,
            discards: false,
            finished: false,
        };
        attached.announce();
        if let Some(started @ OpEvent::Started { .. }) = &self.told {
            attached.tell(started);
        }
        attached.feed(&self.unpaid, self.log.kept(), end, self.told.as_ref());
        self.attached.insert(client, attached);
        if stdin && self.stdin.owner.is_none() && !self.stdin.ended {
            let window = ReceiveWindow::new(channel, Stream::Stdin);
            self.stdin.owner = Some((client, channel, sink, window));
        } else if stdin {
            // Somebody else feeds the input, or it has ended already.
            self.attached[&client].sink.send(Frame::Close { channel, stream: Stream::Stdin });
        }
    }

    /// Whether a client is attached.
    pub(super) fn has_client(&self) -> bool {
        !self.attached.is_empty()
    }

    /// Whether `channel` of `client` is its view of the main process.
    pub(super) fn is_attached(&self, client: ClientId, channel: u32) -> bool {
        self.attached.get(&client).is_some_and(|attached| attached.channel == channel)
    }

    /// A client that is attached sends a frame on its channel.
    pub(super) fn client_frame(
        &mut self,
        client: ClientId,
        frame: Frame,
        guest: &FrameSink,
    ) -> Result<(), ProtoError> {
        match frame {
            Frame::Credit { stream, bytes, .. } => {
                if let Some(attached) = self.attached.get_mut(&client) {
                    attached.windows[index(stream)?].granted(bytes)?;
                    attached.behind_since = None;
                    attached.feed(&self.unpaid, self.log.kept(), self.log.position(), self.told.as_ref());
                }
                self.pay(guest);
            }
            Frame::Data { bytes, stream: Stream::Stdin, .. } => self.stdin.receive(client, bytes, guest)?,
            Frame::Eof { stream: Stream::Stdin, .. } => self.stdin.end(client, guest),
            Frame::Close { stream: Stream::Stdout, .. } => {
                if let Some(attached) = self.attached.get_mut(&client) {
                    attached.discards = true;
                    attached.feed(&self.unpaid, self.log.kept(), self.log.position(), self.told.as_ref());
                }
                self.pay(guest);
            }
            _ => {}
        }
        Ok(())
    }

    /// The guest grants credit for the input, or wants no more of it.
    pub(super) fn guest_frame(&mut self, frame: &Frame, guest: &FrameSink) -> Result<(), ProtoError> {
        match frame {
            Frame::Credit { stream: Stream::Stdin, bytes, .. } => {
                self.stdin.window.granted(*bytes)?;
                self.stdin.forward(guest);
            }
            Frame::Close { stream: Stream::Stdin, .. } => {
                self.stdin.closed = true;
                self.stdin.ended = true;
                self.stdin.waiting.clear();
                if let Some((_, channel, sink, _)) = &self.stdin.owner {
                    sink.send(Frame::Close { channel: *channel, stream: Stream::Stdin });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A client has gone: the main process runs on, its output goes to the log, its input waits for another feeder.
    pub(super) fn detach(&mut self, client: ClientId, guest: &FrameSink) {
        self.attached.remove(&client);
        if self.stdin.owner.as_ref().is_some_and(|owner| owner.0 == client) {
            self.stdin.owner = None;
        }
        self.pay(guest);
    }
}

impl Attached {
    fn announce(&self) {
        let _ = self.sink.control(&ShimReply::Attached { id: self.channel, position: self.position });
    }

    fn tell(&self, event: &OpEvent) {
        if event.is_last() {
            for stream in [Stream::Stdout, Stream::Stderr] {
                self.sink.send(Frame::Eof { channel: self.channel, stream });
            }
        }
        let _ = self.sink.control(&ShimReply::Event(event.clone().with_id(self.channel)));
    }

    /// Sends as much as the windows allow of what the client has not had, from memory or from the log; then the end,
    /// if `told` is one.
    fn feed(&mut self, unpaid: &VecDeque<Record>, log: &RunLog, end: u64, told: Option<&OpEvent>) {
        if self.discards {
            (self.position, self.rest, self.backlog, self.behind_since) = (end, None, None, None);
        }
        while self.position < end {
            let Some(record) = self.rest.take().or_else(|| self.next(unpaid, log)) else {
                // The missing part could neither be kept nor logged.
                self.position = unpaid.front().map_or(end, |first| first.position);
                self.announce();
                continue;
            };
            if record.position > self.position {
                self.position = record.position;
                self.announce();
            }
            let window = &mut self.windows[usize::from(record.stream == Stream::Stderr)];
            let room = window.available().min(MAX_PAYLOAD).min(record.bytes.len());
            if room == 0 {
                self.rest = Some(record);
                self.behind_since.get_or_insert_with(Instant::now);
                return;
            }
            window.sent(room);
            let bytes = record.bytes.slice(..room).to_vec();
            self.sink.send(Frame::Data { channel: self.channel, stream: record.stream, bytes });
            self.position += room as u64;
            if room < record.bytes.len() {
                let bytes = record.bytes.slice(room..);
                self.rest = Some(Record { position: self.position, bytes, ..record });
            }
        }
        if let Some(event) = told.filter(|event| event.is_last() && !self.finished) {
            self.finished = true;
            self.tell(event);
        }
    }

    fn next(&mut self, unpaid: &VecDeque<Record>, log: &RunLog) -> Option<Record> {
        if unpaid.front().is_some_and(|first| first.position <= self.position) {
            self.backlog = None;
            let place = unpaid.partition_point(|record| record.position <= self.position).checked_sub(1)?;
            let record = &unpaid[place];
            let skip = (self.position - record.position) as usize;
            return Some(Record {
                position: self.position,
                bytes: record.bytes.slice(skip..),
                ..record.clone()
            });
        }
        if let Some(record) = self.backlog.as_mut().and_then(|backlog| backlog.next()?.ok()) {
            return Some(record);
        }
        let mut backlog = log.read_from(self.position).ok()?;
        let record = backlog.next()?.ok();
        self.backlog = Some(backlog);
        record
    }
}

impl Stdin {
    fn receive(&mut self, client: ClientId, bytes: Vec<u8>, guest: &FrameSink) -> Result<(), ProtoError> {
        let Some(owner) = self.owner.as_mut().filter(|owner| owner.0 == client) else { return Ok(()) };
        owner.3.received(bytes.len())?;
        if !self.closed && !self.ended {
            self.waiting.push_back((client, bytes));
            self.forward(guest);
        }
        Ok(())
    }

    fn end(&mut self, client: ClientId, guest: &FrameSink) {
        if self.owner.as_ref().is_some_and(|owner| owner.0 == client) && !self.ended {
            self.ended = true;
            self.forward(guest);
        }
    }

    fn forward(&mut self, guest: &FrameSink) {
        while let Some((client, mut bytes)) = self.waiting.pop_front() {
            let room = self.window.available().min(bytes.len());
            if room == 0 {
                self.waiting.push_front((client, bytes));
                return;
            }
            let rest = bytes.split_off(room);
            self.window.sent(room);
            guest.send(Frame::Data { channel: MAIN_CHANNEL, stream: Stream::Stdin, bytes });
            if !rest.is_empty() {
                self.waiting.push_front((client, rest));
            }
            if let Some((owner, channel, sink, window)) = &mut self.owner
                && *owner == client
                && let Some(credit) = window.consumed(room)
            {
                sink.credit(*channel, Stream::Stdin, credit);
            }
        }
        if self.ended && !self.closed {
            self.closed = true;
            guest.send(Frame::Eof { channel: MAIN_CHANNEL, stream: Stream::Stdin });
        }
    }
}

/// Which of the two output windows; input has none here.
fn index(stream: Stream) -> Result<usize, ProtoError> {
    match stream {
        Stream::Stdout => Ok(0),
        Stream::Stderr => Ok(1),
        Stream::Stdin => {
            Err(ProtoError::WindowExceeded { channel: MAIN_CHANNEL, stream, sent: 0, allowed: WINDOW })
        }
    }
}

#[cfg(test)]
mod tests;
