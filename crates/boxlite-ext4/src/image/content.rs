//! One file's content as it streams by: blocks of zeros become holes.

use super::extents::FileExtent;
use super::volume::{ImageWriteError, ImageWriter};
use super::{BLOCK, extents};

/// Largest file in bytes that extents can map.
pub(crate) const MAX_FILE: u64 = (u32::MAX as u64) * BLOCK as u64;

/// Zero blocks between data that are worth a hole: fewer are written, to keep the extents long.
const MIN_HOLE: u64 = 16;

static ZEROS: [u8; MIN_HOLE as usize * BLOCK] = [0; MIN_HOLE as usize * BLOCK];

/// Collects a file's content; usable for one file after the other.
#[derive(Debug)]
pub(crate) struct FileContent {
    extents: Vec<FileExtent>,
    /// Block after the last one placed.
    logical: u64,
    /// Zero blocks after that, not placed.
    zeros: u64,
    /// The block being filled.
    partial: Vec<u8>,
    /// Bytes so far, holes included.
    size: u64,
}

impl FileContent {
    pub(crate) fn new() -> Self {
        Self { extents: Vec::new(), logical: 0, zeros: 0, partial: Vec::with_capacity(BLOCK), size: 0 }
    }

    /// Bytes so far, holes included.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn push(
        &mut self,
        volume: &mut ImageWriter<'_>,
        mut data: &[u8],
    ) -> Result<(), ImageWriteError> {
        self.size += data.len() as u64;
        if !self.partial.is_empty() {
            let count = data.len().min(BLOCK - self.partial.len());
            self.partial.extend_from_slice(&data[..count]);
            data = &data[count..];
            self.settle(volume)?;
        }
        let whole = data.len() / BLOCK * BLOCK;
        self.blocks(volume, &data[..whole])?;
        self.partial.extend_from_slice(&data[whole..]);
        Ok(())
    }

    /// Passes over bytes that the archive says are zero.
    pub(crate) fn hole(
        &mut self,
        volume: &mut ImageWriter<'_>,
        mut length: u64,
    ) -> Result<(), ImageWriteError> {
        self.size += length;
        if !self.partial.is_empty() {
            let count = length.min((BLOCK - self.partial.len()) as u64);
            self.partial.resize(self.partial.len() + count as usize, 0);
            length -= count;
            self.settle(volume)?;
        }
        self.zeros += length / BLOCK as u64;
        self.partial.resize(self.partial.len() + (length % BLOCK as u64) as usize, 0);
        Ok(())
    }

    /// Ends the file: its length in bytes and its extents.
    pub(crate) fn finish(
        &mut self,
        volume: &mut ImageWriter<'_>,
    ) -> Result<(u64, Vec<FileExtent>), ImageWriteError> {
        if !self.partial.is_empty() {
            self.partial.resize(BLOCK, 0);
            self.settle(volume)?;
        }
        let finished = (self.size, self.extents.as_slice().to_vec());
        self.extents.clear();
        (self.logical, self.zeros, self.size) = (0, 0, 0);
        Ok(finished)
    }

    /// Places the partial block once it is full.
    fn settle(&mut self, volume: &mut ImageWriter<'_>) -> Result<(), ImageWriteError> {
        if self.partial.len() < BLOCK {
            return Ok(());
        }
        let block = std::mem::take(&mut self.partial);
        let placed = self.blocks(volume, &block);
        self.partial = block;
        self.partial.clear();
        placed
    }

    fn blocks(&mut self, volume: &mut ImageWriter<'_>, mut data: &[u8]) -> Result<(), ImageWriteError> {
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
                let filler = &ZEROS[..self.zeros as usize * BLOCK];
                volume.append(filler, self.logical as u32, &mut self.extents)?;
            }
            self.logical += self.zeros;
            self.zeros = 0;
            volume.append(&data[..count * BLOCK], self.logical as u32, &mut self.extents)?;
            self.logical += count as u64;
            data = &data[count * BLOCK..];
        }
        debug_assert!(extents::ascending(&self.extents));
        Ok(())
    }
}
