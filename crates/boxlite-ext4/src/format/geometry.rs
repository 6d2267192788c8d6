//! Sizes and fixed places that follow from the virtual size alone.

use super::{BLOCK, FIRST_INODE, GROUP_BLOCKS, INODES_PER_BLOCK};

/// Bytes per group descriptor (64-bit layout).
pub(crate) const DESCRIPTOR: usize = 64;
const DESCRIPTORS_PER_BLOCK: u64 = (BLOCK / DESCRIPTOR) as u64;

/// Smallest virtual size in bytes.
pub(crate) const MIN_VIRTUAL: u64 = 32 << 20;
/// Largest virtual size in bytes: block numbers stay in 32 bits.
pub(crate) const MAX_VIRTUAL: u64 = 16 << 40;

/// Growth that the resize inode prepares for, in bytes; beyond it the kernel switches to `meta_bg` by itself.
const PREPARED: u64 = 1 << 40;
/// Bytes of virtual size per inode, as mke2fs.
const BYTES_PER_INODE: u64 = 16 * 1024;
/// Free inodes that the image keeps at least, unless it is so small that [`BYTES_PER_INODE`] gives fewer in all.
const SPARE_INODES: u64 = 65_536;
/// Fewest blocks a last group must have beside its own metadata to be worth it.
const LAST_GROUP: u64 = 64;

/// The fixed layout of an image.
#[derive(Debug, Clone)]
pub(crate) struct Geometry {
    /// Blocks of the file system.
    pub(crate) blocks: u64,
    pub(crate) groups: u64,
    /// Blocks of one copy of the group descriptors.
    pub(crate) descriptor_blocks: u64,
    /// Blocks behind each copy kept for growth.
    pub(crate) reserved_descriptor_blocks: u64,
}

impl Geometry {
    /// The layout for a virtual size in bytes between [`MIN_VIRTUAL`] and [`MAX_VIRTUAL`].
    pub(crate) fn new(virtual_size: u64) -> Self {
        let mut blocks = (virtual_size / BLOCK as u64).min((1 << 32) - 1);
        loop {
            let groups = blocks.div_ceil(GROUP_BLOCKS);
            let descriptor_blocks = groups.div_ceil(DESCRIPTORS_PER_BLOCK);
            let prepared = (PREPARED / BLOCK as u64).max(blocks.saturating_mul(4)).min(1 << 32);
            let reserved = prepared
                .div_ceil(GROUP_BLOCKS)
                .div_ceil(DESCRIPTORS_PER_BLOCK)
                .saturating_sub(descriptor_blocks)
                .min(BLOCK as u64 / 4);
            let geometry = Self { blocks, groups, descriptor_blocks, reserved_descriptor_blocks: reserved };
            let last = blocks - (groups - 1) * GROUP_BLOCKS;
            if groups == 1 || last >= geometry.head(groups - 1) + LAST_GROUP {
                return geometry;
            }
            blocks -= last;
        }
    }

    /// True if a group begins with a copy of the superblock (`sparse_super`: 0, 1 and powers of 3, 5 and 7).
    pub(crate) fn has_superblock(group: u64) -> bool {
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        group <= 1 || power_of(3) || power_of(5) || power_of(7)
    }

    /// Blocks at the start of a group taken by superblock, descriptors and their reserve.
    pub(crate) fn head(&self, group: u64) -> u64 {
        if Self::has_superblock(group) {
            1 + self.descriptor_blocks + self.reserved_descriptor_blocks
        } else {
            0
        }
    }

    /// Groups that begin with a copy of the superblock, the first one included.
    pub(crate) fn superblock_groups(&self) -> impl Iterator<Item = u64> {
        (0..self.groups).filter(|&group| Self::has_superblock(group))
    }

    /// Blocks of one group; only the last may have fewer than [`GROUP_BLOCKS`].
    pub(crate) fn group_blocks(&self, group: u64) -> u64 {
        (self.blocks - group * GROUP_BLOCKS).min(GROUP_BLOCKS)
    }

    /// Inodes of each group, so that the used ones and a reserve fit; `None` if no table can be that large.
    pub(crate) fn inodes_per_group(&self, used: u64) -> Option<u32> {
        let by_size = self.blocks * BLOCK as u64 / BYTES_PER_INODE;
        let wanted = by_size
            .max(used + u64::from(FIRST_INODE) + SPARE_INODES.min(by_size))
            .div_ceil(self.groups)
            .next_multiple_of(u64::from(INODES_PER_BLOCK));
        let limit = 8 * BLOCK as u64;
        (wanted <= limit && u32::try_from(wanted * self.groups).is_ok()).then_some(wanted as u32)
    }
}
