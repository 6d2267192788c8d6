//! The superblock: what this builder writes, and the few fields by which an image is recognised.

use sha2::{Digest, Sha256};

use super::checksum::Checksum;
use super::{
    BLOCK, FIRST_INODE, GROUP_BLOCKS, Geometry, INODE, INODES_PER_BLOCK, MAX_VIRTUAL, MIN_VIRTUAL, put,
};
use crate::BUILDER_VERSION;

/// Bytes of a superblock, and where the first one is in the image.
pub(crate) const SUPERBLOCK: usize = 1024;
/// Byte offset of the primary superblock.
pub(crate) const OFFSET: u64 = 1024;

pub(crate) const MAGIC: u16 = 0xef53;
pub(crate) const MAGIC_AT: usize = 0x38;
pub(crate) const BLOCKS_LOW_AT: usize = 0x04;
pub(crate) const LOG_BLOCK_SIZE_AT: usize = 0x18;
pub(crate) const INCOMPATIBLE_AT: usize = 0x60;
pub(crate) const READ_ONLY_AT: usize = 0x64;
pub(crate) const UUID_AT: usize = 0x68;
pub(crate) const BLOCKS_HIGH_AT: usize = 0x150;
/// Identity of the last delta, in the reserved end of the superblock, which the kernel keeps and does not read.
pub(crate) const DELTA_AT: usize = 0x3dc;
pub(crate) const CHECKSUM_AT: usize = 0x3fc;

/// `has_journal`, `ext_attr`, `resize_inode`, `dir_index`.
const COMPATIBLE: u32 = 0x4 | 0x8 | 0x10 | 0x20;
/// `filetype`, `extents`, `64bit`, `flex_bg`.
pub(crate) const INCOMPATIBLE: u32 = 0x2 | 0x40 | 0x80 | 0x200;
/// `sparse_super`, `large_file`, `huge_file`, `dir_nlink`, `extra_isize`, `metadata_csum`.
pub(crate) const READ_ONLY: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;

/// UUID and hash seed of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identifiers {
    pub(crate) uuid: [u8; 16],
    pub(crate) hash_seed: [u8; 16],
}

impl Identifiers {
    /// Derived from the image's identity and this builder's version, as random (version 4) UUIDs by form.
    pub(crate) fn derive(identity: &[u8; 32]) -> Self {
        let of = |purpose: &str| {
            let mut hasher = Sha256::new();
            hasher.update(b"boxlite-ext4\0");
            hasher.update(BUILDER_VERSION.to_le_bytes());
            hasher.update(purpose.as_bytes());
            hasher.update(identity);
            let digest: [u8; 32] = hasher.finalize().into();
            let mut uuid = [0; 16];
            uuid.copy_from_slice(&digest[..16]);
            uuid[6] = uuid[6] & 0x0f | 0x40;
            uuid[8] = uuid[8] & 0x3f | 0x80;
            uuid
        };
        Self { uuid: of("uuid"), hash_seed: of("hash seed") }
    }

    /// The seed of all checksums.
    pub(crate) fn checksum_seed(&self) -> Checksum {
        Checksum::start().over(&self.uuid)
    }

    /// The hash seed as the words that the directory hash takes.
    pub(crate) fn hash_words(&self) -> [u32; 4] {
        std::array::from_fn(|word| {
            let at = word * 4;
            u32::from_le_bytes([
                self.hash_seed[at],
                self.hash_seed[at + 1],
                self.hash_seed[at + 2],
                self.hash_seed[at + 3],
            ])
        })
    }
}

/// The figures that a superblock sums up.
#[derive(Debug, Clone)]
pub(crate) struct SuperblockSummary {
    pub(crate) inodes_per_group: u32,
    pub(crate) free_blocks: u64,
    pub(crate) free_inodes: u32,
    /// Blocks of metadata with a fixed place, the journal included.
    pub(crate) overhead: u64,
    /// `i_block` and size of the journal's inode.
    pub(crate) journal: ([u8; 60], u64),
    /// Identity of the last delta applied; zero in a whole image.
    pub(crate) delta: [u8; 32],
}

/// The superblock of one group.
pub(crate) fn bytes(
    geometry: &Geometry,
    ids: &Identifiers,
    summary: &SuperblockSummary,
    group: u64,
) -> [u8; SUPERBLOCK] {
    const LOG_BLOCK_SIZE: u32 = (BLOCK as u32 / 1024).ilog2();
    let mut block = [0; SUPERBLOCK];
    put!(block, 0x00, (u64::from(summary.inodes_per_group) * geometry.groups) as u32);
    put!(block, BLOCKS_LOW_AT, geometry.blocks as u32);
    put!(block, 0x0c, summary.free_blocks as u32);
    put!(block, 0x10, summary.free_inodes);
    put!(block, LOG_BLOCK_SIZE_AT, LOG_BLOCK_SIZE);
    put!(block, 0x1c, LOG_BLOCK_SIZE);
    put!(block, 0x20, GROUP_BLOCKS as u32);
    put!(block, 0x24, GROUP_BLOCKS as u32);
    put!(block, 0x28, summary.inodes_per_group);
    // No check by mount count; clean; continue on errors; revision 1.
    put!(block, 0x36, u16::MAX);
    put!(block, MAGIC_AT, MAGIC);
    put!(block, 0x3a, 1_u16);
    put!(block, 0x3c, 1_u16);
    put!(block, 0x4c, 1_u32);
    put!(block, 0x54, FIRST_INODE);
    put!(block, 0x58, INODE as u16);
    put!(block, 0x5a, group as u16);
    put!(block, 0x5c, COMPATIBLE);
    put!(block, INCOMPATIBLE_AT, INCOMPATIBLE);
    put!(block, READ_ONLY_AT, READ_ONLY);
    block[UUID_AT..UUID_AT + 16].copy_from_slice(&ids.uuid);
    put!(block, 0xce, geometry.reserved_descriptor_blocks as u16);
    put!(block, 0xe0, 8_u32);
    block[0xec..0xfc].copy_from_slice(&ids.hash_seed);
    // Half MD4; a backup of the journal's inode follows; 64-byte descriptors; user_xattr and acl by default.
    block[0xfc] = 1;
    block[0xfd] = 1;
    put!(block, 0xfe, super::geometry::DESCRIPTOR as u16);
    put!(block, 0x100, 0x000c_u32);
    let (journal, journal_size) = &summary.journal;
    block[0x10c..0x148].copy_from_slice(journal);
    put!(block, 0x148, (journal_size >> 32) as u32);
    put!(block, 0x14c, *journal_size as u32);
    put!(block, BLOCKS_HIGH_AT, (geometry.blocks >> 32) as u32);
    put!(block, 0x158, (summary.free_blocks >> 32) as u32);
    put!(block, 0x15c, 32_u16);
    put!(block, 0x15e, 32_u16);
    // Names are hashed as unsigned characters.
    put!(block, 0x160, 2_u32);
    // 16 groups per flex group; checksums are CRC-32C.
    block[0x174] = 4;
    block[0x175] = 1;
    put!(block, 0x248, summary.overhead as u32);
    block[DELTA_AT..DELTA_AT + 32].copy_from_slice(&summary.delta);
    let checksum = Checksum::start().over(&block[..CHECKSUM_AT]).value();
    put!(block, CHECKSUM_AT, checksum);
    block
}

/// Reads a primary superblock back: geometry, identifiers and figures.
///
/// # Errors
///
/// Any byte that differs from what [`bytes`] gives for the same values: a superblock that was damaged, made by
/// another program, or changed by a kernel.
pub(crate) fn parse(
    block: &[u8; SUPERBLOCK],
) -> Result<(Geometry, Identifiers, SuperblockSummary), &'static str> {
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let wide = |low: usize, high: usize| u64::from(word(high)) << 32 | u64::from(word(low));
    if block[MAGIC_AT..MAGIC_AT + 2] != MAGIC.to_le_bytes() {
        return Err("no ext4 magic");
    }
    if word(CHECKSUM_AT) != Checksum::start().over(&block[..CHECKSUM_AT]).value() {
        return Err("the superblock's checksum is wrong");
    }
    let blocks = wide(BLOCKS_LOW_AT, BLOCKS_HIGH_AT);
    if !(MIN_VIRTUAL..=MAX_VIRTUAL).contains(&blocks.saturating_mul(BLOCK as u64)) {
        return Err("another size than this builder makes");
    }
    let (mut uuid, mut hash_seed, mut delta, mut journal) = ([0; 16], [0; 16], [0; 32], [0; 60]);
    uuid.copy_from_slice(&block[UUID_AT..UUID_AT + 16]);
    hash_seed.copy_from_slice(&block[0xec..0xfc]);
    delta.copy_from_slice(&block[DELTA_AT..DELTA_AT + 32]);
    journal.copy_from_slice(&block[0x10c..0x148]);
    let (geometry, ids) = (Geometry::new(blocks * BLOCK as u64), Identifiers { uuid, hash_seed });
    let summary = SuperblockSummary {
        inodes_per_group: word(0x28),
        free_blocks: wide(0x0c, 0x158),
        free_inodes: word(0x10),
        overhead: word(0x248).into(),
        journal: (journal, wide(0x14c, 0x148)),
        delta,
    };
    let per_group = summary.inodes_per_group;
    let possible = per_group > 0
        && per_group.is_multiple_of(INODES_PER_BLOCK)
        && u64::from(per_group) <= 8 * BLOCK as u64
        && u32::try_from(u64::from(per_group) * geometry.groups).is_ok();
    if !possible || bytes(&geometry, &ids, &summary, 0) != *block {
        return Err("the superblock has other fields than this builder writes");
    }
    Ok((geometry, ids, summary))
}
