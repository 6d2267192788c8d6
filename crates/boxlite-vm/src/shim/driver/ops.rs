//! Operations of clients in the guest: renumbering, and the flow-control windows that neither side may overrun.
//!
//! The shim keeps its own account of every window. A client that breaks one loses its connection, and never gets
//! the guest to give up on the shim; a guest that breaks one is at fault itself.

use std::collections::{HashMap, HashSet};

use boxlite_proto::{Frame, MAIN_CHANNEL, Op, OpEvent, ProtoError, ShimReply, Stream, ToGuest, WINDOW};

use super::executions::FIRST_HELD;
use super::main_process::ClientId;
use crate::shim::sink::FrameSink;

/// Operations that one client may have under way.
const PER_CLIENT: usize = 1024;

/// Tunnels of all clients together. The guest runs 128 operations at once, and tunnels may stand idle for long: they must not
/// keep commands out.
pub(super) const MAX_TUNNELS: usize = 48;

/// The shim itself among its clients, which are numbered from the other end.
const OWN: ClientId = ClientId::MAX;

/// Signal number of SIGKILL.
const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();

/// All operations under way, by their number towards the guest.
#[derive(Debug)]
pub(super) struct Ops {
    next: u32,
    by_guest: HashMap<u32, RunningOp>,
    by_client: HashMap<(ClientId, u32), u32>,
}

#[derive(Debug)]
struct RunningOp {
    /// The client that asked, and its number for it; `None` once that client has disconnected.
    asker: Option<(ClientId, u32, FrameSink)>,
    opens_channel: bool,
    needed_input: NeededInput,
    /// It is of no use without its asker.
    dies_with_asker: bool,
    /// The guest has answered.
    begun: bool,
    /// Input that the guest has granted and the client not yet used, in bytes.
    input: u32,
    /// Output (stdout, stderr) passed on for which the client has not granted credit again, in bytes.
    output: [u32; 2],
    /// Streams of which the client wants no more.
    closed: HashSet<Stream>,
}

/// How far the input is that a process needs whole: one through a pipe, not a terminal's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NeededInput {
    /// There is none, or none that needs to be whole.
    Free,
    /// Nothing has come.
    Unused,
    /// A part has come.
    Partial,
    /// All has come, or the process wants no more.
    Whole,
}

impl NeededInput {
    fn of(op: &Op) -> Self {
        match op {
            Op::Exec { spec, .. } if spec.stdin && spec.tty.is_none() => Self::Unused,
            _ => Self::Free,
        }
    }
}

/// Why an operation was not passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The number is in use on this connection.
    IdInUse,
    /// Too many operations are under way.
    TooMany,
    /// The box has its most tunnels.
    TooManyTunnels,
}

impl Ops {
    pub(super) fn new() -> Self {
        Self { next: MAIN_CHANNEL + 1, by_guest: HashMap::new(), by_client: HashMap::new() }
    }

    /// Whether a client waits for a command or a copy.
    pub(super) fn have_asker(&self) -> bool {
        self.by_guest.values().any(|op| op.opens_channel && op.asker.is_some())
    }

    /// How many the guest has not answered for good.
    pub(super) fn under_way(&self) -> usize {
        self.by_guest.len()
    }

    /// Connections to services in the guest.
    fn tunnels(&self) -> usize {
        self.by_guest.values().filter(|op| op.dies_with_asker).count()
    }

    /// Passes `op` of a client on to the guest.
    pub(super) fn begin(
        &mut self,
        client: ClientId,
        sink: &FrameSink,
        op: Op,
        guest: &FrameSink,
    ) -> Result<(), Refused> {
        let theirs = op.id();
        if let Op::Signal { .. } | Op::Resize { .. } = op {
            if let Some(&ours) = self.by_client.get(&(client, theirs)) {
                let _ = guest.control(&ToGuest::Op(op.with_id(ours)));
            }
            return Ok(());
        }
        if self.by_client.contains_key(&(client, theirs)) {
            return Err(Refused::IdInUse);
        }
        if self.by_client.keys().filter(|(owner, _)| *owner == client).count() >= PER_CLIENT {
            return Err(Refused::TooMany);
        }
        if matches!(op, Op::Dial { .. }) && self.tunnels() >= MAX_TUNNELS {
            return Err(Refused::TooManyTunnels);
        }
        let ours = self.free_number();
        let entry = RunningOp {
            asker: Some((client, theirs, sink.clone())),
            opens_channel: op.opens_channel(),
            needed_input: NeededInput::of(&op),
            dies_with_asker: matches!(op, Op::Dial { .. }),
            begun: false,
            input: WINDOW,
            output: [0; 2],
            closed: HashSet::new(),
        };
        if guest.control(&ToGuest::Op(op.with_id(ours))).is_err() {
            return Err(Refused::TooMany);
        }
        self.by_guest.insert(ours, entry);
        self.by_client.insert((client, theirs), ours);
        Ok(())
    }

    /// Begins an operation of the shim's own. What the guest says of it goes to `sink`, on the channel whose number is
    /// returned.
    pub(super) fn begin_own(&mut self, op: Op, sink: &FrameSink, guest: &FrameSink) -> Result<u32, Refused> {
        let ours = self.free_number();
        self.begin(OWN, sink, op.with_id(ours), guest)?;
        self.by_client.get(&(OWN, ours)).copied().ok_or(Refused::TooMany)
    }

    fn free_number(&mut self) -> u32 {
        loop {
            let number = self.next;
            self.next = if number + 1 < FIRST_HELD { number + 1 } else { MAIN_CHANNEL + 1 };
            if !self.by_guest.contains_key(&number) {
                return number;
            }
        }
    }

    /// Passes an event on to the client that asked; the number is free again after the last event.
    pub(super) fn event(&mut self, event: OpEvent) {
        let ours = event.id();
        let last = event.is_last();
        let Some(entry) = self.by_guest.get_mut(&ours) else { return };
        entry.begun = true;
        if let Some((client, theirs, sink)) = &entry.asker {
            let _ = sink.control(&ShimReply::Event(event.with_id(*theirs)));
            if last {
                self.by_client.remove(&(*client, *theirs));
            }
        }
        if last {
            self.by_guest.remove(&ours);
        }
    }

    /// A frame from the guest on one of the channels; frames on unknown channels are leftovers of ended operations.
    ///
    /// # Errors
    /// When the guest breaks the protocol.
    pub(super) fn guest_frame(&mut self, frame: Frame) -> Result<(), ProtoError> {
        let Some(ours) = frame.channel() else { return Ok(()) };
        let Some(entry) = self.by_guest.get_mut(&ours) else { return Ok(()) };
        match &frame {
            Frame::Data { stream, bytes, .. } => {
                let exceeded = |allowed| ProtoError::WindowExceeded {
                    channel: ours,
                    stream: *stream,
                    sent: bytes.len(),
                    allowed,
                };
                if entry.closed.contains(stream) {
                    return Ok(());
                }
                let outstanding =
                    output_index(*stream).map(|i| &mut entry.output[i]).ok_or_else(|| exceeded(0))?;
                let sum = *outstanding as usize + bytes.len();
                if sum > WINDOW as usize {
                    return Err(exceeded(WINDOW - *outstanding));
                }
                *outstanding = sum as u32;
            }
            Frame::Credit { stream, bytes, .. } => {
                let (stream, granted) = (*stream, *bytes);
                let overflow = ProtoError::CreditOverflow { channel: ours, stream, granted, window: WINDOW };
                match entry.input.checked_add(granted) {
                    Some(sum) if stream == Stream::Stdin && sum <= WINDOW => entry.input = sum,
                    _ => return Err(overflow),
                }
            }
            Frame::Close { stream: Stream::Stdin, .. } => entry.needed_input = NeededInput::Whole,
            _ => {}
        }
        if let Some((_, theirs, sink)) = &entry.asker {
            sink.send(frame.on_channel(*theirs));
        }
        Ok(())
    }

    /// A frame from a client on one of its channels; frames on unknown channels are leftovers of ended operations.
    ///
    /// # Errors
    /// When the client breaks the protocol; nothing of the frame reached the guest.
    pub(super) fn client_frame(
        &mut self,
        client: ClientId,
        frame: Frame,
        guest: &FrameSink,
    ) -> Result<(), ProtoError> {
        let Some(theirs) = frame.channel() else { return Ok(()) };
        let Some(&ours) = self.by_client.get(&(client, theirs)) else { return Ok(()) };
        let Some(entry) = self.by_guest.get_mut(&ours).filter(|entry| entry.opens_channel) else {
            return Ok(());
        };
        match &frame {
            Frame::Data { stream, bytes, .. } => {
                let (stream, sent, allowed) = (*stream, bytes.len(), entry.input);
                let exceeded = ProtoError::WindowExceeded { channel: theirs, stream, sent, allowed };
                if stream != Stream::Stdin || sent > allowed as usize {
                    return Err(exceeded);
                }
                entry.input -= sent as u32;
                if entry.needed_input == NeededInput::Unused {
                    entry.needed_input = NeededInput::Partial;
                }
            }
            Frame::Credit { stream, bytes, .. } => {
                let (stream, granted) = (*stream, *bytes);
                let overflow =
                    ProtoError::CreditOverflow { channel: theirs, stream, granted, window: WINDOW };
                let outstanding =
                    output_index(stream).map(|i| &mut entry.output[i]).ok_or(overflow.clone())?;
                *outstanding = outstanding.checked_sub(granted).ok_or(overflow)?;
                if entry.closed.contains(&stream) {
                    return Ok(());
                }
            }
            Frame::Close { stream, .. } => {
                entry.closed.insert(*stream);
            }
            Frame::Eof { .. } => entry.needed_input = NeededInput::Whole,
            Frame::Control(_) => {}
        }
        guest.send(frame.on_channel(ours));
        Ok(())
    }

    /// A client has gone: its execs run on with their input at its end and their output discarded.
    ///
    /// Three kinds are killed. An exec that has had a part of its input would take that part for the whole. With `paused`, an
    /// exec that has not begun was given up while it waited for the guest, which kills it when it resumes. A dial's
    /// connection would stay open for as long as its service likes.
    pub(super) fn abandon(&mut self, client: ClientId, guest: &FrameSink, paused: bool) {
        for (&ours, entry) in &mut self.by_guest {
            if entry.asker.as_ref().is_some_and(|asker| asker.0 == client) {
                entry.asker = None;
                if entry.opens_channel {
                    let was_given_up = paused && !entry.begun;
                    if was_given_up || entry.dies_with_asker || entry.needed_input == NeededInput::Partial {
                        let _ = guest.control(&ToGuest::Op(Op::Signal { id: ours, signo: SIGKILL }));
                    }
                    guest.send(Frame::Eof { channel: ours, stream: Stream::Stdin });
                    for stream in [Stream::Stdout, Stream::Stderr] {
                        if entry.closed.insert(stream) {
                            guest.send(Frame::Close { channel: ours, stream });
                        }
                    }
                }
            }
        }
        self.by_client.retain(|(owner, _), _| *owner != client);
    }
}

fn output_index(stream: Stream) -> Option<usize> {
    match stream {
        Stream::Stdin => None,
        Stream::Stdout => Some(0),
        Stream::Stderr => Some(1),
    }
}

#[cfg(test)]
mod tests;
