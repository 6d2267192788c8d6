//! Bitmaps and descriptors of all groups.

use super::checksum::Checksum;
use super::geometry::DESCRIPTOR;
use super::space::mark;
use super::volume::{ImageWriteError, ImageWriter};
use super::{BLOCK, Geometry, INODES_PER_BLOCK, put};

const INODES_UNINITIALISED: u16 = 1;
const BLOCKS_UNINITIALISED: u16 = 2;
const TABLE_ZEROED: u16 = 4;

/// Where each group's bitmaps and table are.
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
        volume: &mut ImageWriter<'_>,
        geometry: &Geometry,
        inodes_per_group: u32,
    ) -> Result<Self, ImageWriteError> {
        let mut one_each =
            || (0..geometry.groups).map(|_| volume.reserve_one()).collect::<Result<Vec<_>, _>>();
        let (block_bitmaps, inode_bitmaps) = (one_each()?, one_each()?);
        let table_blocks = Self::table_blocks(inodes_per_group);
        let tables = (0..geometry.groups)
            .map(|_| volume.space_mut().take_contiguous(table_blocks).ok_or(ImageWriteError::Full))
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

/// What the groups add up to.
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
    volume: &mut ImageWriter<'_>,
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
        if volume.space().untouched(group) && group + 1 < geometry.groups {
            flags |= BLOCKS_UNINITIALISED;
            free_blocks = blocks - geometry.head(group);
        } else {
            let (bitmap, free) = volume.space().bitmap(group, blocks);
            volume.buffered(places.block_bitmaps[index], &bitmap)?;
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
            volume.buffered(places.inode_bitmaps[index], &bitmap)?;
            inode_checksum = seed.over(&bitmap[..per_group as usize / 8]).value();
        }
        let free_inodes = per_group - used_inodes;
        all_free_blocks += free_blocks;
        all_free_inodes += free_inodes;

        let descriptor = &mut descriptors[index * DESCRIPTOR..(index + 1) * DESCRIPTOR];
        // Low halves, then high halves 32 bytes further on.
        for (place, value) in [
            (0x00, places.block_bitmaps[index]),
            (0x04, places.inode_bitmaps[index]),
            (0x08, places.tables[index]),
        ] {
            put!(descriptor, place, value as u32);
            put!(descriptor, place + 0x20, (value >> 32) as u32);
        }
        for (low, high, value) in [
            (0x0c, 0x2c, free_blocks as u32),
            (0x0e, 0x2e, free_inodes),
            (0x10, 0x30, directories.get(index).copied().unwrap_or(0)),
            (0x1c, 0x32, free_inodes),
            (0x18, 0x38, block_checksum),
            (0x1a, 0x3a, inode_checksum),
        ] {
            put!(descriptor, low, value as u16);
            put!(descriptor, high, (value >> 16) as u16);
        }
        put!(descriptor, 0x12, flags);
        let checksum = seed.over(&(group as u32).to_le_bytes()).over(descriptor).value();
        put!(descriptor, 0x1e, checksum as u16);
    }
    Ok(WrittenGroups { descriptors, free_blocks: all_free_blocks, free_inodes: all_free_inodes })
}
