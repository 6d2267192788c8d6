//! The group descriptor (`ext4_group_desc`, 64 bytes).

use super::checksum::Checksum;
use super::geometry::DESCRIPTOR;
use super::put;

/// The inode bitmap and table were never used.
pub(crate) const INODES_UNINITIALISED: u16 = 1;
/// The block bitmap was never written: only the group's head is in use.
pub(crate) const BLOCKS_UNINITIALISED: u16 = 2;
/// The unused part of the inode table is zero.
pub(crate) const TABLE_ZEROED: u16 = 4;

/// Fields with a low half and a high half: offset of each.
const WIDE: [(usize, usize); 3] = [(0x00, 0x20), (0x04, 0x24), (0x08, 0x28)];
const NARROW: [(usize, usize); 6] =
    [(0x0c, 0x2c), (0x0e, 0x2e), (0x10, 0x30), (0x1c, 0x32), (0x18, 0x38), (0x1a, 0x3a)];

/// The fields of a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupDescriptor {
    /// Block of the block bitmap.
    pub(crate) block_bitmap: u64,
    /// Block of the inode bitmap.
    pub(crate) inode_bitmap: u64,
    /// First block of the inode table.
    pub(crate) table: u64,
    pub(crate) free_blocks: u32,
    pub(crate) free_inodes: u32,
    /// Directories among the inodes in use.
    pub(crate) directories: u32,
    /// Inodes behind the last one in use.
    pub(crate) unused_inodes: u32,
    pub(crate) flags: u16,
    pub(crate) block_checksum: u32,
    pub(crate) inode_checksum: u32,
}

impl GroupDescriptor {
    /// The descriptor's bytes; `seed` is the file system's.
    pub(crate) fn bytes(&self, group: u64, seed: Checksum) -> [u8; DESCRIPTOR] {
        let mut bytes = [0; DESCRIPTOR];
        let wide = [self.block_bitmap, self.inode_bitmap, self.table];
        for ((low, high), value) in WIDE.into_iter().zip(wide) {
            put!(bytes, low, value as u32);
            put!(bytes, high, (value >> 32) as u32);
        }
        let narrow = [
            self.free_blocks,
            self.free_inodes,
            self.directories,
            self.unused_inodes,
            self.block_checksum,
            self.inode_checksum,
        ];
        for ((low, high), value) in NARROW.into_iter().zip(narrow) {
            put!(bytes, low, value as u16);
            put!(bytes, high, (value >> 16) as u16);
        }
        put!(bytes, 0x12, self.flags);
        let checksum = seed.over(&(group as u32).to_le_bytes()).over(&bytes).value();
        put!(bytes, 0x1e, checksum as u16);
        bytes
    }

    /// Reads a descriptor back; `None` unless it is exactly what [`Self::bytes`] gives, its checksum included.
    pub(crate) fn parse(bytes: &[u8], group: u64, seed: Checksum) -> Option<Self> {
        let half = |at: usize| u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let word = |at: usize| u64::from(half(at) | half(at + 2) << 16);
        let [block_bitmap, inode_bitmap, table] = WIDE.map(|(low, high)| word(low) | word(high) << 32);
        let [free_blocks, free_inodes, directories, unused_inodes, block_checksum, inode_checksum] =
            NARROW.map(|(low, high)| half(low) | half(high) << 16);
        let descriptor = Self {
            block_bitmap,
            inode_bitmap,
            table,
            free_blocks,
            free_inodes,
            directories,
            unused_inodes,
            flags: half(0x12) as u16,
            block_checksum,
            inode_checksum,
        };
        (descriptor.bytes(group, seed) == bytes).then_some(descriptor)
    }
}
