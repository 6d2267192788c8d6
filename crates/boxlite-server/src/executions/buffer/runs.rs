//! Bytes of two streams in the order of their arrival, with one reader's cursor among them.

use std::collections::VecDeque;

use boxlite::{OutputChunk, OutputStream};

/// A queue of bytes. Besides the bytes it stores one [`ByteRun`] per change of the stream.
#[derive(Debug, Default)]
pub(super) struct ByteRuns {
    bytes: VecDeque<u8>,
    order: VecDeque<ByteRun>,
    cursor: RunCursor,
}

/// Successive bytes of one stream.
#[derive(Debug, Clone, Copy)]
struct ByteRun {
    stream: OutputStream,
    length: u32,
}

/// The position of the reader.
#[derive(Debug, Clone, Copy, Default)]
struct RunCursor {
    /// Bytes before it.
    passed: usize,
    /// The run that it is in.
    run: usize,
    /// Bytes of that run before it.
    within: u32,
}

impl ByteRuns {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the bytes before the reader.
    pub(super) fn passed(&self) -> usize {
        self.cursor.passed
    }

    pub(super) fn push(&mut self, stream: OutputStream, bytes: &[u8]) {
        let length = bytes.len() as u32;
        match self.order.back_mut() {
            Some(last) if last.stream == stream => last.length += length,
            _ => self.order.push_back(ByteRun { stream, length }),
        }
        self.bytes.extend(bytes);
    }

    /// Returns the next bytes of one stream, at most `longest`.
    pub(super) fn next(&self, longest: usize) -> Option<OutputChunk> {
        let RunCursor { passed, run, within } = self.cursor;
        // The cursor rests at the end of the last run until more bytes arrive.
        let (run, within) = match self.order.get(run)? {
            run if run.length == within => (self.order.get(self.cursor.run + 1)?, 0),
            run => (run, within),
        };
        let end = passed + longest.min((run.length - within) as usize);
        let bytes = self.bytes.range(passed..end).copied().collect::<Vec<u8>>();
        Some(OutputChunk { stream: run.stream, bytes: bytes.into() })
    }

    /// Moves the reader on.
    pub(super) fn pass(&mut self, count: usize) {
        let mut left = count.min(self.bytes.len() - self.cursor.passed);
        self.cursor.passed += left;
        while let Some(run) = self.order.get(self.cursor.run) {
            let step = left.min((run.length - self.cursor.within) as usize);
            self.cursor.within += step as u32;
            left -= step;
            if left == 0 {
                break;
            }
            (self.cursor.run, self.cursor.within) = (self.cursor.run + 1, 0);
        }
    }

    /// Moves the reader back to the first byte.
    pub(super) fn rewind(&mut self) {
        self.cursor = RunCursor::default();
    }

    /// Drops the first `count` bytes, which the reader has passed, and frees their memory.
    pub(super) fn drop_first(&mut self, count: usize) {
        let mut left = count.min(self.cursor.passed);
        self.bytes.drain(..left);
        self.cursor.passed -= left;
        while let Some(first) = self.order.front_mut() {
            if first.length as usize > left {
                first.length -= left as u32;
                if self.cursor.run == 0 {
                    self.cursor.within -= left as u32;
                }
                break;
            }
            left -= first.length as usize;
            self.order.pop_front();
            match self.cursor.run.checked_sub(1) {
                Some(run) => self.cursor.run = run,
                None => self.cursor.within = 0,
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

    /// Returns the bytes of memory that it takes up.
    #[cfg(test)]
    pub(super) fn cost(&self) -> usize {
        self.bytes.capacity() + self.order.capacity() * size_of::<ByteRun>()
    }
}
