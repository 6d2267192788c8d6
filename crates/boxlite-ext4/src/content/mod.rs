//! One file's content as it streams by: blocks of zeros become holes, blocks that lie below already stay there.

mod predecessor;

pub(crate) use predecessor::Predecessor;

use crate::format::{BLOCK, FileExtent, extents};
use crate::writer::{Allocate, ImageWriteError, ImageWriter};

/// Largest file in bytes that extents can map.
pub(crate) const MAX_FILE: u64 = (u32::MAX as u64) * BLOCK as u64;

/// Fewest zero blocks between data that become a hole: fewer are written, to keep the extents long.
const MIN_HOLE: u64 = 16;

static ZEROS: [u8; MIN_HOLE as usize * BLOCK] = [0; MIN_HOLE as usize * BLOCK];

/// Collects a file's content; usable for one file after the other.
#[derive(Debug)]
pub(crate) struct FileContent<'b> {
    extents: Vec<FileExtent>,
    /// Block after the last one placed.
    logical: u64,
    /// Zero blocks after that, not placed.
    zeros: u64,
    /// The block being filled.
    partial: Vec<u8>,
    /// Bytes so far, holes included.
    size: u64,
    /// The file that this one replaces.
    predecessor: Option<Predecessor<'b>>,
}

/// A file's content once it is complete.
#[derive(Debug)]
pub(crate) struct FinishedContent {
    /// Length in bytes, holes included.
    pub(crate) size: u64,
    pub(crate) extents: Vec<FileExtent>,
    /// Blocks of the predecessor that this file does not use.
    pub(crate) unused: Vec<FileExtent>,
}

impl<'b> FileContent<'b> {
    pub(crate) fn new() -> Self {
        Self {
            extents: Vec::new(),
            logical: 0,
            zeros: 0,
            partial: Vec::with_capacity(BLOCK),
            size: 0,
            predecessor: None,
        }
    }

    /// Begins a file in place of another one, whose blocks it keeps where the content is the same.
    pub(crate) fn succeed(&mut self, predecessor: Predecessor<'b>) {
        self.predecessor = Some(predecessor);
    }

    /// Bytes so far, holes included.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn push<S: Allocate>(
        &mut self,
        writer: &mut ImageWriter<'_, S>,
        mut data: &[u8],
    ) -> Result<(), ImageWriteError> {
        self.size += data.len() as u64;
        if !self.partial.is_empty() {
            let count = data.len().min(BLOCK - self.partial.len());
            self.partial.extend_from_slice(&data[..count]);
            data = &data[count..];
            self.settle(writer)?;
        }
        let whole = data.len() / BLOCK * BLOCK;
        self.blocks(writer, &data[..whole])?;
        self.partial.extend_from_slice(&data[whole..]);
        Ok(())
    }

    /// Passes over bytes that the archive says are zero.
    pub(crate) fn hole<S: Allocate>(
        &mut self,
        writer: &mut ImageWriter<'_, S>,
        mut length: u64,
    ) -> Result<(), ImageWriteError> {
        self.size += length;
        if !self.partial.is_empty() {
            let count = length.min((BLOCK - self.partial.len()) as u64);
            self.partial.resize(self.partial.len() + count as usize, 0);
            length -= count;
            self.settle(writer)?;
        }
        self.zeros += length / BLOCK as u64;
        self.partial.resize(self.partial.len() + (length % BLOCK as u64) as usize, 0);
        Ok(())
    }

    /// Ends the file.
    pub(crate) fn finish<S: Allocate>(
        &mut self,
        writer: &mut ImageWriter<'_, S>,
    ) -> Result<FinishedContent, ImageWriteError> {
        if !self.partial.is_empty() {
            self.partial.resize(BLOCK, 0);
            self.settle(writer)?;
        }
        let unused = self.predecessor.take().map(Predecessor::into_unused).unwrap_or_default();
        let finished = FinishedContent { size: self.size, extents: self.extents.as_slice().to_vec(), unused };
        self.extents.clear();
        (self.logical, self.zeros, self.size) = (0, 0, 0);
        Ok(finished)
    }

    /// Places the partial block once it is full.
    fn settle<S: Allocate>(&mut self, writer: &mut ImageWriter<'_, S>) -> Result<(), ImageWriteError> {
        if self.partial.len() < BLOCK {
            return Ok(());
        }
        let block = std::mem::take(&mut self.partial);
        let placed = self.blocks(writer, &block);
        self.partial = block;
        self.partial.clear();
        placed
    }

    fn blocks<S: Allocate>(
        &mut self,
        writer: &mut ImageWriter<'_, S>,
        mut data: &[u8],
    ) -> Result<(), ImageWriteError> {
        let is_zero = |block: &[u8]| block == &ZEROS[..BLOCK];
        while !data.is_empty() {
            let zeros = data.chunks_exact(BLOCK).take_while(|block| is_zero(block)).count();
            self.zeros += zeros as u64;
            data = &data[zeros * BLOCK..];
            let count = data.chunks_exact(BLOCK).take_while(|block| !is_zero(block)).count();
            if count == 0 {
                continue;
            }
            if self.zeros < MIN_HOLE && !self.extents.is_empty() {
                self.place(writer, &ZEROS[..self.zeros as usize * BLOCK])?;
            } else {
                self.logical += self.zeros;
            }
            self.zeros = 0;
            self.place(writer, &data[..count * BLOCK])?;
            data = &data[count * BLOCK..];
        }
        debug_assert!(extents::ascending(&self.extents));
        Ok(())
    }

    /// Places blocks at the end of the file: where they lie already, or in new places.
    fn place<S: Allocate>(
        &mut self,
        writer: &mut ImageWriter<'_, S>,
        mut data: &[u8],
    ) -> Result<(), ImageWriteError> {
        while !data.is_empty() {
            let (count, kept) = match &mut self.predecessor {
                Some(predecessor) => predecessor.compare(self.logical as u32, data)?,
                None => (data.len() / BLOCK, None),
            };
            let (now, later) = data.split_at(count * BLOCK);
            match kept {
                Some(physical) => {
                    extents::push(&mut self.extents, self.logical as u32, physical, count as u32);
                }
                None => writer.append(now, self.logical as u32, &mut self.extents)?,
            }
            self.logical += count as u64;
            data = later;
        }
        Ok(())
    }
}
