//! Bitmaps and descriptors of all groups of a whole build.

use crate::format::{
    BLOCK, BLOCKS_UNINITIALISED, Checksum, DESCRIPTOR, Geometry, GroupDescriptor, INODE, INODES_PER_BLOCK,
    INODES_UNINITIALISED, TABLE_ZEROED, mark,
};
use crate::writer::{BlockSpace, ImageWriteError, ImageWriter};

/// Places of each group's bitmaps and inode table.
#[derive(Debug)]
pub(crate) struct GroupPlaces {
    pub(crate) inodes_per_group: u32,
    block_bitmaps: Vec<u64>,
    inode_bitmaps: Vec<u64>,
    tables: Vec<u64>,
}

impl GroupPlaces {
    /// Takes the blocks for all groups.
    pub(crate) fn take(
        writer: &mut ImageWriter<'_, BlockSpace>,
        geometry: &Geometry,
        inodes_per_group: u32,
    ) -> Result<Self, ImageWriteError> {
        let mut one_each =
            || (0..geometry.groups).map(|_| writer.reserve_one()).collect::<Result<Vec<_>, _>>();
        let (block_bitmaps, inode_bitmaps) = (one_each()?, one_each()?);
        let table_blocks = Self::table_blocks(inodes_per_group);
        let tables = (0..geometry.groups)
            .map(|_| writer.space.take_contiguous(table_blocks).ok_or(ImageWriteError::Full))
            .collect::<Result<_, _>>()?;
        Ok(Self { inodes_per_group, block_bitmaps, inode_bitmaps, tables })
    }

    fn table_blocks(inodes_per_group: u32) -> u64 {
        u64::from(inodes_per_group / INODES_PER_BLOCK)
    }

    /// Blocks that bitmaps and tables of all groups take.
    pub(crate) fn overhead(&self) -> u64 {
        self.tables.len() as u64 * (2 + Self::table_blocks(self.inodes_per_group))
    }

    /// Block and slot in it of an inode's record.
    pub(crate) fn record(&self, number: u32) -> (u64, u32) {
        let (group, index) = ((number - 1) / self.inodes_per_group, (number - 1) % self.inodes_per_group);
        (self.tables[group as usize] + u64::from(index / INODES_PER_BLOCK), index % INODES_PER_BLOCK)
    }
}

/// Descriptors and totals of all groups.
#[derive(Debug)]
pub(crate) struct WrittenGroups {
    /// One copy of the descriptors, padded to whole blocks.
    pub(crate) descriptors: Vec<u8>,
    pub(crate) free_blocks: u64,
    pub(crate) free_inodes: u32,
}

/// Writes the bitmaps that hold anything and makes the descriptors.
///
/// Inodes up to `last_inode` are in use; `directories` holds how many of them are directories, by group.
pub(crate) fn write(
    writer: &mut ImageWriter<'_, BlockSpace>,
    geometry: &Geometry,
    places: &GroupPlaces,
    last_inode: u32,
    directories: &[u32],
    seed: Checksum,
) -> Result<WrittenGroups, ImageWriteError> {
    let per_group = places.inodes_per_group;
    let mut descriptors = vec![0; geometry.descriptor_blocks as usize * BLOCK];
    let (mut all_free_blocks, mut all_free_inodes) = (0, 0);
    for group in 0..geometry.groups {
        let index = group as usize;
        let blocks = geometry.group_blocks(group);
        let used_inodes = last_inode.saturating_sub(index as u32 * per_group).min(per_group);
        let mut flags = TABLE_ZEROED;
        let mut block_checksum = 0;
        let free_blocks;
        if writer.space.untouched(group) && group + 1 < geometry.groups {
            flags |= BLOCKS_UNINITIALISED;
            free_blocks = blocks - geometry.head(group);
        } else {
            let (bitmap, free) = writer.space.bitmap(group, blocks);
            writer.buffered(places.block_bitmaps[index], &bitmap)?;
            block_checksum = seed.over(&bitmap).value();
            free_blocks = free;
        }
        let mut inode_checksum = 0;
        if used_inodes == 0 {
            flags |= INODES_UNINITIALISED;
        } else {
            let mut bitmap = vec![0; BLOCK];
            mark(&mut bitmap, 0..u64::from(used_inodes), true);
            mark(&mut bitmap, u64::from(per_group)..8 * BLOCK as u64, true);
            writer.buffered(places.inode_bitmaps[index], &bitmap)?;
            inode_checksum = seed.over(&bitmap[..per_group as usize / 8]).value();
        }
        let free_inodes = per_group - used_inodes;
        all_free_blocks += free_blocks;
        all_free_inodes += free_inodes;

        let descriptor = GroupDescriptor {
            block_bitmap: places.block_bitmaps[index],
            inode_bitmap: places.inode_bitmaps[index],
            table: places.tables[index],
            free_blocks: free_blocks as u32,
            free_inodes,
            directories: directories.get(index).copied().unwrap_or(0),
            unused_inodes: free_inodes,
            flags,
            block_checksum,
            inode_checksum,
        };
        descriptors[index * DESCRIPTOR..(index + 1) * DESCRIPTOR]
            .copy_from_slice(&descriptor.bytes(group, seed));
    }
    Ok(WrittenGroups { descriptors, free_blocks: all_free_blocks, free_inodes: all_free_inodes })
}

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
