//! Bytes of two streams in the order in which they came, and a reader among them.

use std::collections::VecDeque;

use boxlite::{OutputChunk, OutputStream};

/// A queue of bytes; what it takes up besides them is a [`Run`] for each change of the stream.
#[derive(Debug, Default)]
pub(super) struct Runs {
    bytes: VecDeque<u8>,
    order: VecDeque<Run>,
    reader: Reader,
}

/// Successive bytes of one stream.
#[derive(Debug, Clone, Copy)]
struct Run {
    stream: OutputStream,
    length: u32,
}

/// What comes next.
#[derive(Debug, Clone, Copy, Default)]
struct Reader {
    /// Bytes before it.
    passed: usize,
    /// Which run it is in.
    run: usize,
    /// Bytes of that run before it.
    within: u32,
}

impl Runs {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes before the reader.
    pub(super) fn passed(&self) -> usize {
        self.reader.passed
    }

    pub(super) fn push(&mut self, stream: OutputStream, bytes: &[u8]) {
        let length = bytes.len() as u32;
        match self.order.back_mut() {
            Some(last) if last.stream == stream => last.length += length,
            _ => self.order.push_back(Run { stream, length }),
        }
        self.bytes.extend(bytes);
    }

    /// What comes next and of one stream, at most `longest` bytes of it.
    pub(super) fn next(&self, longest: usize) -> Option<OutputChunk> {
        let Reader { passed, run, within } = self.reader;
        // At the end of a run that was the last, more may have come.
        let (run, within) = match self.order.get(run)? {
            run if run.length == within => (self.order.get(self.reader.run + 1)?, 0),
            run => (run, within),
        };
        let end = passed + longest.min((run.length - within) as usize);
        let bytes = self.bytes.range(passed..end).copied().collect::<Vec<u8>>();
        Some(OutputChunk { stream: run.stream, bytes: bytes.into() })
    }

    /// Moves the reader on.
    pub(super) fn pass(&mut self, count: usize) {
        let mut left = count.min(self.bytes.len() - self.reader.passed);
        self.reader.passed += left;
        while let Some(run) = self.order.get(self.reader.run) {
            let step = left.min((run.length - self.reader.within) as usize);
            self.reader.within += step as u32;
            left -= step;
            if left == 0 {
                break;
            }
            (self.reader.run, self.reader.within) = (self.reader.run + 1, 0);
        }
    }

    /// Moves the reader back to the first byte.
    pub(super) fn rewind(&mut self) {
        self.reader = Reader::default();
    }

    /// Drops the first `count` bytes, which the reader has passed, and gives back what room they took up.
    pub(super) fn drop_first(&mut self, count: usize) {
        let mut left = count.min(self.reader.passed);
        self.bytes.drain(..left);
        self.reader.passed -= left;
        while let Some(first) = self.order.front_mut() {
            if first.length as usize > left {
                first.length -= left as u32;
                if self.reader.run == 0 {
                    self.reader.within -= left as u32;
                }
                break;
            }
            left -= first.length as usize;
            self.order.pop_front();
            match self.reader.run.checked_sub(1) {
                Some(run) => self.reader.run = run,
                None => self.reader.within = 0,
            }
        }
        if self.bytes.is_empty() {
            *self = Self::default();
        }
        if self.bytes.capacity() > 4 * self.bytes.len() {
            self.bytes.shrink_to_fit();
        }
        if self.order.capacity() > 4 * self.order.len() {
            self.order.shrink_to_fit();
        }
    }

    /// Bytes of memory that it takes up.
    #[cfg(test)]
    pub(super) fn cost(&self) -> usize {
        self.bytes.capacity() + self.order.capacity() * size_of::<Run>()
    }
}
