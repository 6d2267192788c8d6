//! The allocator of a whole build: a cursor that runs through the image, and the free stretches behind it.

use std::collections::BTreeMap;

use super::Allocate;
use crate::error::BelowError;
use crate::format::{BLOCK, GROUP_BLOCKS, Geometry, mark};

/// The allocator. Blocks given back are used again only once the cursor has reached the end, so that files stay
/// contiguous and in the order in which they were written.
#[derive(Debug)]
pub(crate) struct BlockSpace {
    blocks: u64,
    /// Superblock copies and descriptors: start and end, ascending.
    heads: Vec<(u64, u64)>,
    cursor: u64,
    /// Free stretches behind the cursor: start to length.
    free: BTreeMap<u64, u64>,
}

impl BlockSpace {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        let heads = geometry
            .superblock_groups()
            .map(|group| (group * GROUP_BLOCKS, group * GROUP_BLOCKS + geometry.head(group)))
            .collect();
        Self { blocks: geometry.blocks, heads, cursor: 0, free: BTreeMap::new() }
    }

    /// Exactly `want` blocks in one stretch.
    pub(crate) fn take_contiguous(&mut self, want: u64) -> Option<u64> {
        while let Some(end) = self.region() {
            if end - self.cursor >= want {
                let start = self.cursor;
                self.cursor += want;
                return Some(start);
            }
            self.add_free(self.cursor, end - self.cursor);
            self.cursor = end;
        }
        let (&start, &length) = self.free.iter().find(|&(_, &length)| length >= want)?;
        self.free.remove(&start);
        if length > want {
            self.free.insert(start + want, length - want);
        }
        Some(start)
    }

    /// Moves the cursor past a head; the end of the stretch it is in, or `None` at the end of the image.
    fn region(&mut self) -> Option<u64> {
        for &(start, end) in &self.heads {
            if (start..end).contains(&self.cursor) {
                self.cursor = end;
            } else if self.cursor < start {
                return Some(start);
            }
        }
        (self.cursor < self.blocks).then_some(self.blocks)
    }

    fn add_free(&mut self, start: u64, length: u64) {
        let (mut start, mut length) = (start, length);
        if let Some((&before, &size)) = self.free.range(..start).next_back()
            && before + size == start
        {
            self.free.remove(&before);
            (start, length) = (before, length + size);
        }
        if let Some(size) = self.free.remove(&(start + length)) {
            length += size;
        }
        self.free.insert(start, length);
    }

    /// True if nothing in a group was ever taken but its head.
    pub(crate) fn untouched(&self, group: u64) -> bool {
        group * GROUP_BLOCKS >= self.cursor
    }

    /// The block bitmap of a group of `blocks` blocks, and how many of them are free.
    pub(crate) fn bitmap(&self, group: u64, blocks: u64) -> (Vec<u8>, u64) {
        let (first, end) = (group * GROUP_BLOCKS, group * GROUP_BLOCKS + blocks);
        let mut bitmap = vec![0; BLOCK];
        mark(&mut bitmap, 0..self.cursor.clamp(first, end) - first, true);
        for &(start, stop) in &self.heads {
            mark(&mut bitmap, start.clamp(first, end) - first..stop.clamp(first, end) - first, true);
        }
        let overlapping = self.free.range(..first).next_back().into_iter().chain(self.free.range(first..end));
        for (&start, &length) in overlapping {
            let stop = (start + length).clamp(first, end);
            mark(&mut bitmap, start.clamp(first, end) - first..stop - first, false);
        }
        let used: u64 = bitmap.iter().map(|byte| u64::from(byte.count_ones())).sum();
        mark(&mut bitmap, blocks..GROUP_BLOCKS, true);
        (bitmap, blocks - used)
    }
}

impl Allocate for BlockSpace {
    fn take(&mut self, want: u64) -> Result<Option<(u64, u64)>, BelowError> {
        if let Some(end) = self.region() {
            let start = self.cursor;
            let count = want.min(end - start);
            self.cursor += count;
            return Ok(Some((start, count)));
        }
        let Some((start, length)) = self.free.pop_first() else { return Ok(None) };
        let count = want.min(length);
        if count < length {
            self.free.insert(start + count, length - count);
        }
        Ok(Some((start, count)))
    }

    fn give_back(&mut self, start: u64, length: u64) -> Result<(), BelowError> {
        self.add_free(start, length);
        Ok(())
    }

    fn lies_below(&self, _block: u64) -> bool {
        false
    }
}
