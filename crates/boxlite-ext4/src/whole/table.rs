//! The inode tables as a stream of records.

use super::groups::GroupPlaces;
use crate::format::{BLOCK, INODE};
use crate::writer::{BlockSpace, ImageWriteError, ImageWriter};

/// The inode tables, written in the order of numbers.
pub(super) struct InodeTable<'a> {
    pub(super) places: &'a GroupPlaces,
    /// Block that the collected records belong to.
    at: u64,
    records: Vec<u8>,
}

impl<'a> InodeTable<'a> {
    pub(super) fn new(places: &'a GroupPlaces) -> Self {
        Self { places, at: 0, records: Vec::new() }
    }

    pub(super) fn push(
        &mut self,
        writer: &mut ImageWriter<'_, BlockSpace>,
        number: u32,
        record: &[u8; INODE],
    ) -> Result<(), ImageWriteError> {
        const FULL: usize = 64 * BLOCK;
        let (block, slot) = self.places.record(number);
        let follows = self.at + (self.records.len() / BLOCK) as u64 == block;
        if slot == 0 && (!follows || self.records.len() >= FULL) {
            self.write(writer)?;
            self.at = block;
        }
        if self.records.is_empty() {
            self.at = block;
        }
        self.records.extend_from_slice(record);
        Ok(())
    }

    fn write(&mut self, writer: &mut ImageWriter<'_, BlockSpace>) -> Result<(), ImageWriteError> {
        self.records.resize(self.records.len().next_multiple_of(BLOCK), 0);
        writer.write(self.at, &self.records)?;
        self.records.clear();
        Ok(())
    }

    pub(super) fn end(mut self, writer: &mut ImageWriter<'_, BlockSpace>) -> Result<(), ImageWriteError> {
        self.write(writer)
    }
}
