//! One execution: what is held of it, and the seat of the client that has its streams.

use std::time::Duration;

use boxlite_proto::{
    ExecSpec, ExecutionEnd, ExecutionState, Frame, HoldTerms, MAX_PAYLOAD, Op, OpEvent, ProcessExit,
    ProtoError, ReceiveWindow, SendWindow, ShimReply, Stream, ToGuest, UnattendedPolicy, WINDOW,
};
use tokio::time::Instant;

use super::super::main_process::ClientId;
use super::input::{HeldInput, MissingInput};
use super::window::HeldOutput;
use super::{SIGKILL, shortened, stream_index};
use crate::shim::sink::FrameSink;

/// How long a killed command may take to end before its clients are told that it may run on.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long output that broke off counts as on its way to the client that it broke off from.
const INTERRUPTED_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that are kept of the name of a program.
const MAX_PROGRAM_BYTES: usize = 256;
/// Bytes that are kept of the guest's reason why a program could not be run.
const MAX_REASON_BYTES: usize = 1024;
/// Why a command was killed whose input has a gap.
const INPUT_LOST: &str = "killed because its standard input did not arrive whole: the connection broke before the input's \
                          end, and what the client sent last may be lost";

/// An execution that the shim holds.
#[derive(Debug)]
pub(super) struct HeldExecution {
    id: String,
    /// Its number towards the guest.
    channel: u32,
    program: String,
    tty: bool,
    stdin: bool,
    terms: HoldTerms,
    began: Instant,
    began_unix_ms: u64,
    /// Clients that began it and wait for its start.
    waiting: Vec<(ClientId, FrameSink)>,
    started: bool,
    end: Option<(ExecutionEnd, Instant)>,
    /// The guest has said its last word on it.
    over: bool,
    killed: bool,
    hidden: bool,
    released: bool,
    input_lost: bool,
    /// When it exceeded its limit.
    timed_out: Option<Instant>,
    output: HeldOutput,
    windows: [ReceiveWindow; 2],
    input: HeldInput,
    seat: Option<OccupiedSeat>,
    /// Since when the seat is free.
    left: Instant,
    /// The client that had the seat last was lost, or sent away, and may come back.
    lost: bool,
}

/// The one client that has the streams.
#[derive(Debug)]
struct OccupiedSeat {
    client: ClientId,
    channel: u32,
    sink: FrameSink,
    resumes: bool,
    stdin: bool,
    /// Position after what it was sent.
    sent: u64,
    output: [SendWindow; 2],
    input: ReceiveWindow,
    /// It knows the end.
    told: bool,
}

/// A client's request for the seat.
#[derive(Debug)]
pub(super) struct SeatRequest {
    pub(super) client: ClientId,
    pub(super) channel: u32,
    pub(super) sink: FrameSink,
    pub(super) from: Option<u64>,
    pub(super) replace: bool,
    pub(super) resumes: bool,
    pub(super) stdin: bool,
}

impl HeldExecution {
    /// Begins an execution in the guest, as number `channel`.
    pub(super) fn begin(
        id: String,
        channel: u32,
        spec: ExecSpec,
        terms: HoldTerms,
        guest: &FrameSink,
    ) -> Result<Self, ProtoError> {
        let now = Instant::now();
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut held = Self {
            id,
            channel,
            program: shortened(spec.argv.first().cloned().unwrap_or_default(), MAX_PROGRAM_BYTES),
            tty: spec.tty.is_some(),
            stdin: spec.stdin,
            input: HeldInput::new(channel, spec.stdin),
            began: now,
            began_unix_ms: since_epoch.unwrap_or_default().as_millis() as u64,
            waiting: Vec::new(),
            started: false,
            end: None,
            over: false,
            killed: false,
            hidden: false,
            released: false,
            input_lost: false,
            timed_out: None,
            output: HeldOutput::default(),
            windows: [Stream::Stdout, Stream::Stderr].map(|stream| ReceiveWindow::new(channel, stream)),
            seat: None,
            left: now,
            lost: false,
            terms,
        };
        guest.control(&ToGuest::Op(Op::Exec { id: channel, spec }))?;
        if held.terms.unattended == UnattendedPolicy::Discard {
            held.release(guest);
        }
        Ok(held)
    }

    pub(super) fn channel(&self) -> u32 {
        self.channel
    }

    /// Bytes of memory that are set aside for its streams: as much as the windows of one that runs allow.
    pub(super) fn reserved(&self) -> usize {
        if self.end.is_some() || self.released { self.output.len() } else { reservation(self.stdin) }
    }

    /// Whether somebody uses the box by it.
    pub(super) fn is_in_use(&self) -> bool {
        self.end.is_none() && !self.released
    }

    /// Since when it is over without a client.
    pub(super) fn unattended_end(&self) -> Option<Instant> {
        let (_, ended) = self.end.as_ref()?;
        self.seat.is_none().then(|| self.left.max(*ended))
    }

    /// Since when no client is attached, when it ended, and on which terms it runs.
    pub(super) fn attendance(&self) -> (Option<Instant>, Option<Instant>, UnattendedPolicy) {
        let left = self.seat.is_none().then_some(self.left);
        (left, self.end.as_ref().map(|(_, at)| *at), self.terms.unattended)
    }

    pub(super) fn state(&self) -> ExecutionState {
        ExecutionState {
            id: self.id.clone(),
            program: self.program.clone(),
            tty: self.tty,
            stdin: self.stdin,
            unattended: self.terms.unattended,
            began_unix_ms: self.began_unix_ms,
            duration_ms: self.end.as_ref().map(|(_, at)| (*at - self.began).as_millis() as u64),
            started: self.started,
            end: self.end.as_ref().map(|(end, _)| end.clone()),
            killed: self.killed,
            timed_out: self.timed_out.is_some(),
            hidden: self.hidden,
            released: self.released,
            attached: self.seat.is_some(),
            interrupted: self.seat.is_none()
                && self.lost
                && self.output.len() > 0
                && self.left.elapsed() < INTERRUPTED_TIMEOUT,
            output: self.output.end(),
            held: self.output.len() as u64,
        }
    }

    /// Tells `client` once the process runs, or could not be run.
    pub(super) fn tell_started(&mut self, client: ClientId, sink: &FrameSink) {
        self.waiting.push((client, sink.clone()));
        self.answer_waiting();
    }

    fn answer_waiting(&mut self) {
        if self.started || self.end.is_some() {
            let reply = ShimReply::Execution(self.state());
            for (_, sink) in self.waiting.drain(..) {
                let _ = sink.control(&reply);
            }
        }
    }

    /// The guest reports about the process.
    pub(super) fn event(&mut self, event: OpEvent) {
        self.over |= event.is_last();
        match event {
            OpEvent::Started { .. } => self.started = true,
            OpEvent::Exited { status, .. } => self.end_with(self.end_of(status)),
            OpEvent::ExecFailed { kind, message, .. } => {
                let reason = Some(shortened(message, MAX_REASON_BYTES));
                self.end_with(ExecutionEnd { code: kind.exit_code(), reason });
            }
            _ => return,
        }
        self.answer_waiting();
        self.feed();
    }

    fn end_of(&self, status: ProcessExit) -> ExecutionEnd {
        let code = status.shell_code();
        if let (Some(_), Some(limit)) = (self.timed_out, self.terms.limit)
            && let Some(code) = limit.code
        {
            let limit = Duration::from_millis(limit.ms);
            let reason = format!("the command exceeded its limit of {limit:?} and was killed");
            return ExecutionEnd { code, reason: Some(reason) };
        }
        let reason = match status {
            ProcessExit::Signal(SIGKILL) if self.input_lost => Some(INPUT_LOST.to_owned()),
            ProcessExit::Signal(signal) => Some(format!("killed by signal {signal}")),
            ProcessExit::Code(_) => None,
        };
        ExecutionEnd { code, reason }
    }

    fn end_with(&mut self, end: ExecutionEnd) {
        if self.end.is_none() {
            self.end = Some((end, Instant::now()));
            self.input.close();
            if let Some(seat) = &self.seat {
                seat.tell_input(&self.input);
            }
        }
    }

    /// A frame of the guest on the execution's channel.
    pub(super) fn guest_frame(&mut self, frame: Frame, guest: &FrameSink) -> Result<(), ProtoError> {
        match frame {
            Frame::Data { stream, bytes, .. } => {
                let window = stream_index(self.channel, stream).map(|index| &mut self.windows[index])?;
                window.received(bytes.len())?;
                if self.released {
                    if let Some(credit) = window.consumed(bytes.len()) {
                        guest.credit(self.channel, stream, credit);
                    }
                } else {
                    self.output.push(stream, &bytes);
                    self.feed();
                }
            }
            Frame::Credit { stream: Stream::Stdin, bytes, .. } => {
                self.input.granted(bytes)?;
                self.forward_input(guest);
            }
            Frame::Close { stream: Stream::Stdin, .. } => {
                let dropped = self.input.close();
                self.input_consumed(dropped);
                if let Some(seat) = &self.seat {
                    seat.tell_input(&self.input);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Gives a client the seat.
    ///
    /// # Errors
    /// Why not, for people.
    pub(super) fn attach(&mut self, request: SeatRequest, guest: &FrameSink) -> Result<(), String> {
        let SeatRequest { client, channel, sink, from, replace, resumes, stdin } = request;
        if self.released {
            return Err(format!("execution {} was released", self.id));
        }
        let position = from.unwrap_or(self.output.base());
        if !(self.output.base()..=self.output.end()).contains(&position) {
            return Err(format!("the output of execution {} after {position} bytes is not here", self.id));
        }
        if self.seat.is_some() && !replace {
            return Err(format!("another client is attached to execution {}", self.id));
        }
        self.leave(true, true);
        let mut input = ReceiveWindow::new(channel, Stream::Stdin);
        let queued = self.input.queued();
        if input.received(queued).is_err() {
            return Err(format!("execution {} has more input than one window", self.id));
        }
        let reply = ShimReply::ExecutionAttached {
            id: channel,
            position,
            input: self.input.given(),
            queued: queued as u32,
            state: self.state(),
        };
        let _ = sink.control(&reply);
        let output = [Stream::Stdout, Stream::Stderr].map(|stream| SendWindow::new(channel, stream));
        self.lost = false;
        self.seat = Some(OccupiedSeat {
            client,
            channel,
            sink,
            resumes,
            stdin,
            sent: position,
            output,
            input,
            told: false,
        });
        self.forward_input(guest);
        self.feed();
        Ok(())
    }

    /// The channel of `client`, if it has the seat.
    pub(super) fn seat_of(&self, client: ClientId) -> Option<u32> {
        self.seat.as_ref().filter(|seat| seat.client == client).map(|seat| seat.channel)
    }

    /// A frame of the client in the seat.
    pub(super) fn client_frame(&mut self, frame: Frame, guest: &FrameSink) -> Result<(), ProtoError> {
        let Some(seat) = &mut self.seat else { return Ok(()) };
        match frame {
            Frame::Credit { stream, bytes, .. } => {
                seat.output[stream_index(seat.channel, stream)?].granted(bytes)?;
                self.feed();
            }
            Frame::Data { stream: Stream::Stdin, bytes, .. } => {
                seat.input.received(bytes.len())?;
                match self.input.accept(&bytes) {
                    Ok(true) => self.forward_input(guest),
                    Ok(false) => self.input_consumed(bytes.len()),
                    Err(MissingInput) => {
                        self.input_consumed(bytes.len());
                        self.kill_for_lost_input(guest);
                    }
                }
                if let Some(seat) = &self.seat {
                    seat.tell_input(&self.input);
                }
            }
            Frame::Eof { stream: Stream::Stdin, .. } => match self.input.end() {
                Ok(()) => self.forward_input(guest),
                Err(MissingInput) => self.kill_for_lost_input(guest),
            },
            _ => {}
        }
        Ok(())
    }

    /// The output before `position` has reached its reader.
    pub(super) fn taken(&mut self, position: u64, guest: &FrameSink) {
        let dropped = self.output.drop_before(position);
        if self.over {
            return;
        }
        for (stream, bytes) in [(Stream::Stdout, dropped.stdout), (Stream::Stderr, dropped.stderr)] {
            if let Some(credit) = self.windows[usize::from(stream == Stream::Stderr)].consumed(bytes) {
                guest.credit(self.channel, stream, credit);
            }
        }
    }

    /// The client in the seat leaves it; with `broke`, its connection broke, and its input may have a gap. One that `returns`
    /// is given time to fetch the rest.
    pub(super) fn leave(&mut self, broke: bool, returns: bool) {
        let Some(seat) = self.seat.take() else { return };
        self.left = Instant::now();
        self.lost = broke || returns;
        if broke && seat.stdin && !seat.resumes && !self.tty {
            self.input.break_off();
        }
        if !seat.told {
            let message = format!("execution {} has another client, or was left", self.id);
            let _ =
                seat.sink.control(&ShimReply::Error { kind: boxlite_proto::ShimError::Conflict, message });
        }
    }

    /// A client has gone without a word, and with it whatever it had not passed on. With `paused`, one that waited for the
    /// guest to begin gave up.
    pub(super) fn client_lost(&mut self, client: ClientId, guest: &FrameSink, paused: bool) {
        let waited = self.waiting.len();
        self.waiting.retain(|(waiting, _)| *waiting != client);
        if paused && self.waiting.len() < waited && !self.started && self.waiting.is_empty() {
            self.signal(SIGKILL, guest);
        }
        let Some(seat) = self.seat.as_ref().filter(|seat| seat.client == client) else { return };
        let needs_whole_input = !seat.resumes && seat.stdin && !self.tty;
        self.leave(true, true);
        if needs_whole_input && self.input.is_partial() {
            self.kill_for_lost_input(guest);
        }
    }

    /// Gives up the streams for good.
    pub(super) fn release(&mut self, guest: &FrameSink) {
        if std::mem::replace(&mut self.released, true) {
            return;
        }
        self.output.drop_before(u64::MAX);
        if self.end.is_some() {
            return;
        }
        if self.input.is_partial() && !self.tty {
            self.kill_for_lost_input(guest);
        }
        self.input.abandon();
        self.input.forward(guest);
        for stream in [Stream::Stdout, Stream::Stderr] {
            guest.send(Frame::Close { channel: self.channel, stream });
        }
    }

    pub(super) fn signal(&self, signo: i32, guest: &FrameSink) {
        if !self.over {
            let _ = guest.control(&ToGuest::Op(Op::Signal { id: self.channel, signo }));
        }
    }

    /// Kills it for a client that wants to see no more of it.
    pub(super) fn end_and_hide(&mut self, guest: &FrameSink) {
        self.hidden = true;
        if self.end.is_none() {
            self.killed = true;
            self.signal(SIGKILL, guest);
        }
    }

    /// Kills it once it has exceeded its limit, and gives it up when it survives that.
    pub(super) fn enforce_limit(&mut self, now: Instant, guest: &FrameSink) {
        let Some(limit) = self.terms.limit.filter(|_| self.end.is_none()) else { return };
        match (self.timed_out, limit.code) {
            (None, _) if now - self.began >= Duration::from_millis(limit.ms) => {
                self.timed_out = Some(now);
                self.signal(SIGKILL, guest);
            }
            (Some(killed), Some(code)) if now - killed >= KILL_TIMEOUT => {
                let reason = format!(
                    "the command exceeded its limit of {:?} and was killed, but had not ended {} s later; it may run on",
                    Duration::from_millis(limit.ms),
                    KILL_TIMEOUT.as_secs()
                );
                self.end_with(ExecutionEnd { code, reason: Some(reason) });
                self.answer_waiting();
                self.feed();
            }
            _ => {}
        }
    }

    fn kill_for_lost_input(&mut self, guest: &FrameSink) {
        self.input_lost = true;
        self.signal(SIGKILL, guest);
    }

    fn forward_input(&mut self, guest: &FrameSink) {
        let forwarded = self.input.forward(guest);
        self.input_consumed(forwarded);
    }

    /// Lets the client in the seat send as much again.
    fn input_consumed(&mut self, bytes: usize) {
        if let Some(seat) = &mut self.seat
            && let Some(credit) = seat.input.consumed(bytes)
        {
            seat.sink.credit(seat.channel, Stream::Stdin, credit);
        }
    }

    /// Sends what the client in the seat has room for, and then the end.
    fn feed(&mut self) {
        let Some(seat) = &mut self.seat else { return };
        let room = |windows: &[SendWindow; 2], stream| {
            windows[usize::from(stream == Stream::Stderr)].available().min(MAX_PAYLOAD)
        };
        while let Some((stream, bytes)) = self.output.read(seat.sent, |stream| room(&seat.output, stream)) {
            seat.output[usize::from(stream == Stream::Stderr)].sent(bytes.len());
            seat.sent += bytes.len() as u64;
            seat.sink.send(Frame::Data { channel: seat.channel, stream, bytes });
        }
        if let Some((end, _)) = &self.end
            && seat.sent == self.output.end()
            && !std::mem::replace(&mut seat.told, true)
        {
            let _ = seat.sink.control(&ShimReply::ExecutionEnded { id: seat.channel, end: end.clone() });
        }
    }
}

impl OccupiedSeat {
    fn tell_input(&self, input: &HeldInput) {
        let input = input.given();
        let _ = self.sink.control(&ShimReply::InputGiven { id: self.channel, input });
        if input.closed {
            self.sink.send(Frame::Close { channel: self.channel, stream: Stream::Stdin });
        }
    }
}

/// Bytes that the streams of an execution may take while it runs.
pub(super) fn reservation(stdin: bool) -> usize {
    WINDOW as usize * if stdin { 3 } else { 2 }
}
