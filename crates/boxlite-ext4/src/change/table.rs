//! The inode tables below, changed record by record.

use crate::below::{BelowGroups, FilesystemBelow};
use crate::error::BelowError;
use crate::format::{BLOCK, INODE};
use crate::writer::{ImageWriteError, ImageWriter};

/// Collects the records of one block at a time; blocks that stay the same are not written.
pub(super) struct ChangedTable<'b> {
    below: &'b FilesystemBelow<'b>,
    /// The block that the collected records belong to; 0 before the first one.
    at: u64,
    block: Vec<u8>,
}

impl<'b> ChangedTable<'b> {
    pub(super) fn new(below: &'b FilesystemBelow<'b>) -> Self {
        Self { below, at: 0, block: Vec::new() }
    }

    /// Sets a record; numbers must come in ascending order.
    pub(super) fn set(
        &mut self,
        writer: &mut ImageWriter<'_, BelowGroups<'_>>,
        number: u32,
        record: &[u8; INODE],
    ) -> Result<(), ImageWriteError> {
        let (block, at) = self.below.record_place(number)?;
        if block != self.at {
            self.flush(writer)?;
            self.block = self.below.block(block)?.to_vec();
            self.at = block;
        }
        self.block[at..at + INODE].copy_from_slice(record);
        Ok(())
    }

    /// Writes the last block.
    pub(super) fn flush(
        &mut self,
        writer: &mut ImageWriter<'_, BelowGroups<'_>>,
    ) -> Result<(), ImageWriteError> {
        if self.at == 0 || unchanged(self.below, self.at, &self.block)? {
            return Ok(());
        }
        debug_assert_eq!(self.block.len(), BLOCK);
        writer.buffered(self.at, &self.block)
    }
}

/// True if a block below has this content already.
pub(super) fn unchanged(below: &FilesystemBelow<'_>, place: u64, block: &[u8]) -> Result<bool, BelowError> {
    Ok(*below.block(place)? == *block)
}
