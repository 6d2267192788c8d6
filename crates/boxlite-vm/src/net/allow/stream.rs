//! The guest's side of one TCP connection to an address that only a name allows.
//!
//! Nothing is carried before it was read, and it is read in order. The stack may lose what was carried, and the guest may
//! then send other bytes in its place. So what was read is kept until the stack has acknowledged it, and no other bytes are
//! ever carried at its place.
//!
//! Where the first byte is, guest and stack must agree on: the guest asks for a connection, and the stack accepts just that
//! one. Until then no data is carried. Otherwise the guest could ask twice, and the stack heed the other question. An
//! acceptance that the stack repeats is of the connection before, which lives on, and is told by the stack's own number.

use super::super::answer::TcpSegment;
use super::super::frame::{FIN, URGENT};
use super::greeting::{Greeting, Heard, Permits};

/// Most frames that wait for the rest of a greeting; ordinary ones come in one or two.
const MAX_HELD: usize = 48;
/// Most bytes that were read and that the stack has not acknowledged; its windows are no larger.
const MAX_UNACKNOWLEDGED: usize = 64 * 1024;

/// The verdict on a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamVerdict {
    /// It is carried.
    Carry,
    /// It is lost, as on a bad line: the guest sends it again.
    Lose,
    /// It waits.
    Hold,
    /// These are carried, in order; the frame itself is the last of them.
    Release(Vec<Vec<u8>>),
    /// The connection is over: it asks for this name, or does not say for which.
    Refuse(Option<String>),
}

/// The stack's consent to a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acceptance {
    /// The stack's own sequence number, which each connection has another of.
    pub(super) number: u32,
    /// How many there were before.
    pub(super) order: u64,
}

/// The bytes read of one connection.
#[derive(Debug)]
pub(super) struct ClientStream {
    /// The sequence number of the first byte.
    start: u32,
    acceptance: Option<Acceptance>,
    /// The stack's own number in a connection before this one.
    earlier: Option<u32>,
    /// Where the bytes begin that the stack has not acknowledged.
    acknowledged: u32,
    /// Those of them that were read.
    unacknowledged: Vec<u8>,
    held: Vec<Vec<u8>>,
    /// Bytes in the frames that wait.
    held_bytes: usize,
    greeting: Greeting,
}

impl ClientStream {
    /// A connection that the guest asks for with this sequence number; `before` was the last one between the two.
    pub(super) fn asked(sequence: u32, before: Option<&Self>) -> Self {
        let start = sequence.wrapping_add(1);
        Self {
            start,
            acceptance: None,
            earlier: before.and_then(|before| before.acceptance.map(|it| it.number).or(before.earlier)),
            acknowledged: start,
            unacknowledged: Vec::new(),
            held: Vec::new(),
            held_bytes: 0,
            greeting: Greeting::default(),
        }
    }

    /// Whether the stack has still to accept the connection that this sequence number asks for.
    pub(super) fn is_awaiting(&self, sequence: u32) -> bool {
        self.acceptance.is_none() && self.start == sequence.wrapping_add(1)
    }

    /// Notes that the stack accepts a connection whose first byte has the number `start`, if that is the one asked for.
    pub(super) fn accepted(&mut self, start: u32, acceptance: Acceptance) {
        let is_asked = start == self.start && self.earlier != Some(acceptance.number);
        self.acceptance = self.acceptance.or(is_asked.then_some(acceptance));
    }

    /// The place of its acceptance among others'.
    pub(super) fn order(&self) -> Option<u64> {
        self.acceptance.map(|acceptance| acceptance.order)
    }

    /// Notes that the stack has every byte before this one.
    pub(super) fn acknowledged(&mut self, next: u32) {
        let Ok(count) = usize::try_from(next.wrapping_sub(self.acknowledged).cast_signed()) else { return };
        let carried = self.unacknowledged.len() - self.held_bytes;
        // Of what is not read any more, nothing is kept; otherwise nothing is acknowledged that was not carried.
        if count <= carried || self.greeting.is_over() {
            self.unacknowledged.drain(..count.min(carried));
            self.acknowledged = next;
        }
    }

    /// The number of the first byte that was not carried: one that the stack takes a reset with.
    pub(super) fn next_to_carry(&self) -> u32 {
        self.acknowledged.wrapping_add((self.unacknowledged.len() - self.held_bytes) as u32)
    }

    /// Decides about the `frame` of `segment`.
    pub(super) fn hear(
        &mut self,
        frame: &[u8],
        segment: &TcpSegment<'_>,
        permits: &impl Permits,
    ) -> StreamVerdict {
        let (data, is_last) = (segment.data, segment.flags & FIN != 0);
        if data.is_empty() {
            // A client that finishes within its greeting will not complete it any more.
            let is_cut_short = is_last && !self.held.is_empty();
            return if is_cut_short { StreamVerdict::Refuse(None) } else { StreamVerdict::Carry };
        }
        if self.acceptance.is_none() {
            return StreamVerdict::Lose;
        }
        let distance = segment.sequence.wrapping_sub(self.acknowledged).cast_signed();
        let offset = usize::try_from(distance).unwrap_or(0);
        // The stack takes nothing of what it has acknowledged.
        let data = match usize::try_from(-i64::from(distance)) {
            Ok(before) if before >= data.len() => return StreamVerdict::Carry,
            Ok(before) => &data[before..],
            Err(_) => data,
        };
        let known = self.unacknowledged.get(offset..).unwrap_or_default();
        if known.iter().zip(data).any(|(known, said)| known != said) {
            return StreamVerdict::Lose;
        }
        let end = offset + data.len();
        let data = &data[known.len().min(data.len())..];
        if data.is_empty() {
            let is_held = end > self.unacknowledged.len() - self.held_bytes;
            return if is_held { StreamVerdict::Lose } else { StreamVerdict::Carry };
        }
        if self.greeting.is_over() {
            return StreamVerdict::Carry;
        }
        // An urgent byte leaves the stream that a server reads.
        if offset > self.unacknowledged.len()
            || segment.flags & URGENT != 0
            || self.unacknowledged.len() + data.len() > MAX_UNACKNOWLEDGED
        {
            return StreamVerdict::Lose;
        }
        self.unacknowledged.extend_from_slice(data);
        match self.greeting.read(data, permits) {
            Heard::Fine => {
                self.held_bytes = 0;
                let mut frames = std::mem::take(&mut self.held);
                if frames.is_empty() {
                    return StreamVerdict::Carry;
                }
                frames.push(frame.to_vec());
                StreamVerdict::Release(frames)
            }
            Heard::More if !is_last && self.held.len() < MAX_HELD => {
                self.held_bytes += data.len();
                self.held.push(frame.to_vec());
                StreamVerdict::Hold
            }
            Heard::More => {
                self.held_bytes += data.len();
                StreamVerdict::Refuse(None)
            }
            Heard::Refused(name) => {
                self.held_bytes += data.len();
                StreamVerdict::Refuse(name)
            }
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
