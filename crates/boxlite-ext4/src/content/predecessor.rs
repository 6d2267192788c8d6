//! The file below that a new one replaces: blocks with the same content at the same place are kept.
//!
//! A layer that changes a file's owner, or one record of a large database, carries the whole file. Most of its blocks
//! are below already.

use std::collections::VecDeque;

use crate::below::FilesystemBelow;
use crate::error::BelowError;
use crate::format::{BLOCK, FileExtent};

/// Blocks compared by one read.
const WINDOW: usize = 32;
/// Blocks that may differ, above twice the number of equal ones, before the comparison is given up.
const MAX_DIFFERENT: u64 = 64;

/// The blocks of a file that is being replaced, consumed in order.
#[derive(Debug)]
pub(crate) struct Predecessor<'b> {
    below: &'b FilesystemBelow<'b>,
    /// Blocks still ahead, ascending.
    ahead: VecDeque<FileExtent>,
    unused: Vec<FileExtent>,
    equal: u64,
    different: u64,
    /// Blocks read below, and the logical number of the first.
    window: Vec<u8>,
    window_at: u32,
}

impl<'b> Predecessor<'b> {
    /// A predecessor with these extents, all of them blocks whose content is what `below` has there.
    pub(crate) fn new(below: &'b FilesystemBelow<'b>, extents: Vec<FileExtent>) -> Self {
        Self {
            below,
            ahead: extents.into(),
            unused: Vec::new(),
            equal: 0,
            different: 0,
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// The extents that were not kept.
    pub(crate) fn into_unused(mut self) -> Vec<FileExtent> {
        self.unused.extend(self.ahead);
        self.unused
    }

    /// Compares blocks with those at the same place below: how many of the first ones share one answer, and the block
    /// below where they lie already, if they do.
    pub(crate) fn compare(&mut self, logical: u32, data: &[u8]) -> Result<(usize, Option<u64>), BelowError> {
        let blocks = data.len() / BLOCK;
        self.pass(logical);
        let Some(&front) = self.ahead.front() else { return Ok((blocks, None)) };
        if front.logical > logical {
            return Ok((blocks.min((front.logical - logical) as usize), None));
        }
        let count = blocks.min(front.length as usize).min(WINDOW);
        self.load(front, count)?;
        let at = (logical - self.window_at) as usize;
        let mut answers = data
            .chunks_exact(BLOCK)
            .zip(self.window[at * BLOCK..].chunks_exact(BLOCK))
            .take(count)
            .map(|(new, old)| new == old);
        let first = answers.next().unwrap_or(false);
        let run = 1 + answers.take_while(|&same| same == first).count();
        if first {
            self.equal += run as u64;
            return Ok((run, Some(self.split(run as u32).physical)));
        }
        // Exact to the block, so that the outcome does not depend on the pieces in which the content arrives.
        let left = MAX_DIFFERENT + 2 * self.equal - self.different;
        let run = run.min(left as usize);
        self.different += run as u64;
        let passed = self.split(run as u32);
        self.unused.push(passed);
        if self.different == MAX_DIFFERENT + 2 * self.equal {
            self.unused.extend(self.ahead.drain(..));
        }
        Ok((run, None))
    }

    /// Gives up the blocks before a place: the new file has a hole there.
    fn pass(&mut self, logical: u32) {
        while let Some(front) = self.ahead.front()
            && front.logical < logical
        {
            let count = (logical - front.logical).min(front.length);
            let passed = self.split(count);
            self.unused.push(passed);
        }
    }

    /// Takes the first blocks of the first extent.
    fn split(&mut self, count: u32) -> FileExtent {
        let front = &mut self.ahead[0];
        let taken = FileExtent { length: count, ..*front };
        front.logical += count;
        front.physical += u64::from(count);
        front.length -= count;
        if front.length == 0 {
            self.ahead.pop_front();
        }
        taken
    }

    /// Reads the first blocks of an extent, unless the window holds them.
    fn load(&mut self, front: FileExtent, count: usize) -> Result<(), BelowError> {
        let held = (self.window.len() / BLOCK) as u32;
        let (start, end) = (front.logical, front.logical + count as u32);
        if start >= self.window_at && end <= self.window_at + held {
            return Ok(());
        }
        let wide = WINDOW.min(front.length as usize);
        self.window.resize(wide * BLOCK, 0);
        self.window_at = start;
        self.below.read(front.physical, &mut self.window)
    }
}
