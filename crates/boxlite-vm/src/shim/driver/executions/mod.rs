//! Executions that the shim holds, so that their clients (servers among them) may come and go.
//!
//! # Protocol
//!
//! A client begins an execution under an id of its own choice; beginning it again changes nothing. One client at a time has
//! its *seat*, and with it the streams. Output is held from the byte that its reader has not acknowledged yet (`window`), so
//! that the next client, of whatever server, goes on there. Input is accepted in order (`input`), and a client that resumes is
//! told how much was.
//!
//! # Limits
//!
//! The guest gets credit for output once that was acknowledged: a command that nobody reads blocks as on a pipe, with at most
//! two windows held. Without a client it is hung up or released after some minutes, as its terms say, and one that has ended
//! is forgotten ([`boxlite_proto::reap_action`]). [`MAX_HELD_BYTES`] bounds all streams together, [`MAX_HELD`] the number of
//! executions, and both are checked before one begins.
//!
//! # Lost clients
//!
//! A client that is gone without a word took along what it had not passed on. The input of a command without a terminal then
//! has a gap, unless the client resumes: nothing may follow on it, and a command that has had a part of its input is killed,
//! since it would take that part for the whole.

mod held;
mod input;
mod requests;
mod window;

use std::collections::HashMap;
use std::time::Duration;

use boxlite_proto::{
    ExecSpec, ExecutionState, Frame, HoldTerms, OpEvent, ProtoError, ReapAction, Stream, UnattendedPolicy,
    WINDOW, reap_action,
};
use held::{HeldExecution, SeatRequest, reservation};
use tokio::time::Instant;

use super::main_process::ClientId;
use crate::shim::bounded_text;
use crate::shim::sink::FrameSink;

/// The numbers from here on are those of held executions towards the guest; operations have those below.
pub(super) const FIRST_HELD: u32 = 1 << 31;
/// Bytes of input and output that may be held, all executions together.
const MAX_HELD_BYTES: usize = 96 << 20;
/// Executions that may be held; the oldest that has ended makes room.
const MAX_HELD: usize = 4096;
/// Executions that may run; the guest runs 128 operations at once, and some are left for tunnels, copies and the commands of
/// whoever sits at the host.
const MAX_RUNNING: usize = 120;
/// Bytes of a list of executions; a message has room for four times as many.
const MAX_LIST_BYTES: usize = 1 << 20;
/// The longest id, in bytes.
const MAX_ID: usize = 64;
/// How long unfetched output is safe: its client may be about to attach or to come back.
const UNFETCHED_TIMEOUT: Duration = Duration::from_secs(60);
/// Signal number of SIGKILL.
const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();

/// All executions of the box that are held.
#[derive(Debug)]
pub(super) struct HeldExecutions {
    next: u32,
    by_id: HashMap<String, HeldExecution>,
    by_channel: HashMap<u32, String>,
    /// Which execution each client is attached to.
    seats: HashMap<ClientId, String>,
    /// The instant that times count from.
    epoch: Instant,
    /// When the last decision about unattended ones was made.
    reaped: Instant,
}

/// Why a request about an execution was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HoldRefusal {
    /// There is none of that id.
    Unknown,
    /// It has another client, or not what was asked for.
    Conflict(String),
    /// The request is not one that can be carried out.
    Invalid(&'static str),
    /// The limit is reached.
    TooMany(String),
}

impl HeldExecutions {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            next: FIRST_HELD,
            by_id: HashMap::new(),
            by_channel: HashMap::new(),
            seats: HashMap::new(),
            epoch: now,
            reaped: now,
        }
    }

    /// Whether a command runs that a client may want something of.
    pub(super) fn are_in_use(&self) -> bool {
        self.by_id.values().any(HeldExecution::is_in_use)
    }

    /// Begins an execution, unless it is there, and tells the client once it has started. `others` are the operations that run
    /// beside executions.
    fn begin(
        &mut self,
        client: (ClientId, &FrameSink),
        id: &str,
        spec: ExecSpec,
        terms: HoldTerms,
        guest: &FrameSink,
        others: usize,
    ) -> Result<(), HoldRefusal> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(is_word) {
            return Err(HoldRefusal::Invalid(
                "the id of an execution is one word of at most 64 letters and digits",
            ));
        }
        if !self.by_id.contains_key(id) {
            if self.by_channel.len() + others >= MAX_RUNNING {
                return Err(HoldRefusal::TooMany(format!(
                    "{MAX_RUNNING} commands and tunnels run in this box; wait for some to end"
                )));
            }
            let discards = terms.unattended == UnattendedPolicy::Discard;
            self.make_room(if discards { 0 } else { reservation(spec.stdin) }, Instant::now())?;
            let channel = self.free_channel();
            let held = HeldExecution::begin(id.to_owned(), channel, spec, terms, guest)
                .map_err(|_| HoldRefusal::Invalid("the command does not fit a message"))?;
            self.by_channel.insert(channel, id.to_owned());
            self.by_id.insert(id.to_owned(), held);
        }
        if let Some(held) = self.by_id.get_mut(id) {
            held.tell_started(client.0, client.1);
        }
        Ok(())
    }

    /// Makes room for one more that needs so many bytes, at the cost of the oldest output that nobody fetched.
    fn make_room(&mut self, bytes: usize, now: Instant) -> Result<(), HoldRefusal> {
        let oldest = |executions: &HashMap<String, HeldExecution>, only_heavy: bool, after: Duration| {
            executions
                .iter()
                .filter(|(_, held)| !only_heavy || held.reserved() > 0)
                .filter_map(|(id, held)| Some((held.unattended_end()?, id.clone())))
                .min()
                .filter(|(since, _)| now.saturating_duration_since(*since) >= after)
        };
        while self.by_id.values().map(HeldExecution::reserved).sum::<usize>() + bytes > MAX_HELD_BYTES {
            let Some((_, id)) = oldest(&self.by_id, true, UNFETCHED_TIMEOUT) else {
                let running = self.by_id.values().filter(|held| held.is_in_use()).count();
                return Err(HoldRefusal::TooMany(format!(
                    "{running} commands run in this box, and the output of those and of ended ones takes what is set aside \
                     for it ({} MiB); wait for some to end, and fetch their output",
                    MAX_HELD_BYTES >> 20
                )));
            };
            self.forget(&id);
        }
        while self.by_id.len() >= MAX_HELD {
            let Some((_, id)) = oldest(&self.by_id, false, Duration::ZERO) else {
                return Err(HoldRefusal::TooMany(format!("this box already runs {MAX_HELD} commands")));
            };
            self.forget(&id);
        }
        Ok(())
    }

    fn free_channel(&mut self) -> u32 {
        loop {
            let channel = self.next;
            self.next = self.next.checked_add(1).unwrap_or(FIRST_HELD);
            if !self.by_channel.contains_key(&channel) {
                return channel;
            }
        }
    }

    fn get(&mut self, id: &str) -> Result<&mut HeldExecution, HoldRefusal> {
        self.by_id.get_mut(id).ok_or(HoldRefusal::Unknown)
    }

    fn attach(&mut self, id: &str, request: SeatRequest, guest: &FrameSink) -> Result<(), HoldRefusal> {
        let client = request.client;
        if self.seats.contains_key(&client) {
            return Err(HoldRefusal::Invalid("this connection has attached already"));
        }
        self.get(id)?.attach(request, guest).map_err(HoldRefusal::Conflict)?;
        self.seats.insert(client, id.to_owned());
        Ok(())
    }

    /// The client leaves its seat, if it still has it.
    fn leave(&mut self, client: ClientId, id: &str, broke: bool, returns: bool) -> Result<(), HoldRefusal> {
        let held = self.get(id)?;
        if held.seat_of(client).is_some() {
            held.leave(broke, returns);
        }
        Ok(())
    }

    /// Executions, the one begun last first: all that run, and as many of the others as a message has room for.
    fn list(&self) -> Vec<ExecutionState> {
        let mut states: Vec<_> = self.by_id.values().map(HeldExecution::state).collect();
        let newest_first =
            |a: &ExecutionState, b: &ExecutionState| (b.began_unix_ms, &b.id).cmp(&(a.began_unix_ms, &a.id));
        states.sort_by(|a, b| a.end.is_some().cmp(&b.end.is_some()).then_with(|| newest_first(a, b)));
        let mut room = MAX_LIST_BYTES;
        let fitting = states.iter().take_while(|state| {
            let reason = state.end.as_ref().and_then(|end| end.reason.as_ref()).map_or(0, String::len);
            let needed = 512 + state.program.len() + reason;
            room.checked_sub(needed).inspect(|left| room = *left).is_some()
        });
        let count = fitting.count();
        states.truncate(count);
        states.sort_by(newest_first);
        states
    }

    /// Whether `channel` of `client` is that of a seat.
    pub(super) fn is_attached(&self, client: ClientId, channel: u32) -> bool {
        let held = self.seats.get(&client).and_then(|id| self.by_id.get(id));
        held.and_then(|held| held.seat_of(client)) == Some(channel)
    }

    /// A client in a seat sends a frame on its channel.
    ///
    /// # Errors
    /// When the client breaks the protocol.
    pub(super) fn client_frame(
        &mut self,
        client: ClientId,
        frame: Frame,
        guest: &FrameSink,
    ) -> Result<(), ProtoError> {
        match self.seats.get(&client).and_then(|id| self.by_id.get_mut(id)) {
            Some(held) if held.seat_of(client).is_some() => held.client_frame(frame, guest),
            _ => Ok(()),
        }
    }

    /// A frame of the guest on a channel of these.
    ///
    /// # Errors
    /// When the guest breaks the protocol.
    pub(super) fn guest_frame(&mut self, frame: Frame, guest: &FrameSink) -> Result<(), ProtoError> {
        let id = frame.channel().and_then(|channel| self.by_channel.get(&channel));
        match id.and_then(|id| self.by_id.get_mut(id)) {
            Some(held) => held.guest_frame(frame, guest),
            None => Ok(()),
        }
    }

    /// The guest reports about one of these.
    pub(super) fn event(&mut self, event: OpEvent) {
        let channel = event.id();
        let last = event.is_last();
        if let Some(held) = self.by_channel.get(&channel).and_then(|id| self.by_id.get_mut(id)) {
            held.event(event);
        }
        if last {
            self.by_channel.remove(&channel);
        }
    }

    /// A client has gone without a word; `paused` if the guest may not run now.
    pub(super) fn client_lost(&mut self, client: ClientId, guest: &FrameSink, paused: bool) {
        self.seats.remove(&client);
        for held in self.by_id.values_mut() {
            held.client_lost(client, guest, paused);
        }
    }

    /// Time passes: limits are enforced, and executions without a client hung up, released or forgotten.
    pub(super) fn tick(&mut self, now: Instant, guest: &FrameSink) {
        let since = |at: Instant| at.saturating_duration_since(self.epoch);
        let (last, until) = (since(self.reaped), since(now));
        let mut dropped = Vec::new();
        for (id, held) in &mut self.by_id {
            held.enforce_limit(now, guest);
            let (left, ended, policy) = held.attendance();
            match reap_action(policy, left.map(since), ended.map(since), last, until) {
                ReapAction::Keep => {}
                ReapAction::Signal(signo) => held.signal(signo, guest),
                // One that runs on keeps its status until its end.
                ReapAction::Drop if ended.is_none() && held.is_in_use() => held.release(guest),
                ReapAction::Drop if ended.is_none() => {}
                ReapAction::Drop => dropped.push(id.clone()),
            }
        }
        self.reaped = now;
        for id in dropped {
            self.forget(&id);
        }
    }

    fn forget(&mut self, id: &str) {
        if let Some(held) = self.by_id.remove(id)
            && self.by_channel.get(&held.channel()).is_some_and(|of| of == id)
        {
            self.by_channel.remove(&held.channel());
        }
    }
}

/// Which of the two output windows; input has none.
fn stream_index(channel: u32, stream: Stream) -> Result<usize, ProtoError> {
    match stream {
        Stream::Stdout => Ok(0),
        Stream::Stderr => Ok(1),
        Stream::Stdin => Err(ProtoError::WindowExceeded { channel, stream, sent: 0, allowed: WINDOW }),
    }
}

/// The beginning of a text that others chose, of at most so many bytes: what is kept of ended executions must be bounded.
fn shortened(mut text: String, most: usize) -> String {
    if bounded_text::cut(&mut text, most) {
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests;
