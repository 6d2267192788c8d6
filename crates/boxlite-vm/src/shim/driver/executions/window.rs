//! The output of an execution that is held until its reader has it: pure arithmetic over positions.
//!
//! # Layout
//!
//! Positions count bytes of output since the execution began. Output before `base` has been dropped; `bytes` are those from
//! there to the end. Which of the two streams a byte belongs to is one bit, so that output in pieces of one byte costs no
//! more memory than any other.

use std::collections::VecDeque;

use boxlite_proto::Stream;

/// The least memory that is set aside at once, in bytes; otherwise an eighth, since doubling it would break the promise of a
/// bound.
const STEP: usize = 1024;

/// Output that is held.
#[derive(Debug, Default)]
pub(super) struct HeldOutput {
    base: u64,
    bytes: VecDeque<u8>,
    /// A bit per byte, set for standard error; the first element has the bits of positions from `base / 8 * 8` on.
    marks: VecDeque<u8>,
}

/// Bytes of each stream that were dropped: standard output, standard error.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct DroppedBytes {
    pub(super) stdout: usize,
    pub(super) stderr: usize,
}

impl HeldOutput {
    /// Position of the first byte that is held.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Position after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Bytes that are held.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds output.
    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        make_room(&mut self.bytes, bytes.len());
        make_room(&mut self.marks, bytes.len() / 8 + 1);
        let error = u8::from(stream == Stream::Stderr);
        for position in self.end()..self.end() + bytes.len() as u64 {
            let element = self.element(position);
            if element == self.marks.len() {
                self.marks.push_back(0);
            }
            self.marks[element] |= error << (position % 8);
        }
        self.bytes.extend(bytes);
    }

    /// Returns successive bytes of one stream from `position` on, at most as many as `most` allows of that stream; `None`
    /// when there are none, or none are allowed.
    pub(super) fn read(&self, position: u64, most: impl Fn(Stream) -> usize) -> Option<(Stream, Vec<u8>)> {
        if !(self.base..self.end()).contains(&position) {
            return None;
        }
        let stream = self.stream(position);
        let most = self.end().min(position.saturating_add(most(stream) as u64));
        let end = (position..most).find(|&next| self.stream(next) != stream).unwrap_or(most);
        let range = (position - self.base) as usize..(end - self.base) as usize;
        (!range.is_empty()).then(|| (stream, self.bytes.range(range).copied().collect()))
    }

    /// Drops the output before `position`, as far as there is any.
    pub(super) fn drop_before(&mut self, position: u64) -> DroppedBytes {
        let position = position.clamp(self.base, self.end());
        let stderr = (self.base..position).filter(|&at| self.stream(at) == Stream::Stderr).count();
        let all = (position - self.base) as usize;
        self.bytes.drain(..all);
        let whole = self.element(position);
        self.base = position;
        self.marks.drain(..whole.min(self.marks.len()));
        if self.bytes.is_empty() {
            // A command that has ended keeps none.
            self.bytes = VecDeque::new();
            self.marks.shrink_to_fit();
        } else if self.bytes.capacity() > 4 * self.bytes.len() + 64 * STEP {
            self.bytes.shrink_to_fit();
            self.marks.shrink_to_fit();
        }
        DroppedBytes { stdout: all - stderr, stderr }
    }

    fn element(&self, position: u64) -> usize {
        (position / 8 - self.base / 8) as usize
    }

    fn stream(&self, position: u64) -> Stream {
        let mark = self.marks.get(self.element(position)).copied().unwrap_or_default();
        if mark >> (position % 8) & 1 == 1 { Stream::Stderr } else { Stream::Stdout }
    }
}

fn make_room(queue: &mut VecDeque<u8>, more: usize) {
    if queue.capacity() - queue.len() < more {
        queue.reserve_exact(more.max(queue.len() / 8).max(STEP));
    }
}

#[cfg(test)]
mod tests {
    use boxlite_proto::WINDOW;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(bool, usize),
        Read { at: u64, most: usize },
        Drop(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (any::<bool>(), 0..40_usize).prop_map(|(error, length)| Step::Push(error, length)),
            2 => (0..300_u64, 0..30_usize).prop_map(|(at, most)| Step::Read { at, most }),
            1 => (0..300_u64).prop_map(Step::Drop),
        ];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        /// Against a list of all bytes ever pushed.
        ///
        /// Mutations tried, each of which fails here: `element` that counts from `base` in place of `base / 8`; a drop that
        /// counts all as standard output.
        #[test]
        fn what_is_held_is_what_was_pushed_and_not_dropped(steps in steps()) {
            let mut held = HeldOutput::default();
            let mut all: Vec<(Stream, u8)> = Vec::new();
            let mut base = 0_usize;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(error, length) => {
                        let stream = if error { Stream::Stderr } else { Stream::Stdout };
                        let bytes = vec![number as u8; length];
                        held.push(stream, &bytes);
                        all.extend(bytes.into_iter().map(|byte| (stream, byte)));
                    }
                    Step::Read { at, most } => {
                        let expected: Vec<_> = match all.get(at as usize) {
                            Some((stream, _)) if at as usize >= base => all[at as usize..]
                                .iter()
                                .take(most)
                                .take_while(|(next, _)| next == stream)
                                .copied()
                                .collect(),
                            _ => Vec::new(),
                        };
                        let read = held.read(at, |_| most);
                        let read = read.map_or(Vec::new(), |(stream, bytes)| {
                            bytes.into_iter().map(|byte| (stream, byte)).collect()
                        });
                        prop_assert_eq!(read, expected);
                    }
                    Step::Drop(position) => {
                        let end = (position as usize).clamp(base, all.len());
                        let stderr = all[base..end].iter().filter(|(stream, _)| *stream == Stream::Stderr).count();
                        let dropped = held.drop_before(position);
                        prop_assert_eq!(dropped, DroppedBytes { stdout: end - base - stderr, stderr });
                        base = end;
                    }
                }
                prop_assert_eq!((held.base(), held.end(), held.len()), (base as u64, all.len() as u64, all.len() - base));
            }
        }
    }

    /// Mutation tried: memory that is kept for a command that has ended; a thousand of those took 20 MiB.
    #[test]
    fn a_full_window_takes_little_more_than_its_bytes_and_an_empty_one_nothing() {
        let mut held = HeldOutput::default();
        for n in 0..2 * WINDOW {
            held.push(if n % 2 == 0 { Stream::Stdout } else { Stream::Stderr }, b"x");
        }
        let cost = |held: &HeldOutput| held.bytes.capacity() + held.marks.capacity();
        assert!(cost(&held) <= 2 * WINDOW as usize * 5 / 4 + 2 * STEP, "{}", cost(&held));
        held.drop_before(u64::MAX);
        assert!(cost(&held) <= 8, "{}", cost(&held));
    }
}
