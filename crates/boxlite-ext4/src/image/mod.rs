//! The ext4 format: the places of blocks, and the content of metadata blocks.
//!
//! Formats follow the kernel's `Documentation/filesystems/ext4`. File contents are laid out first, in the order in
//! which they arrive; once the tree is complete, the inode tables, directories and bitmaps follow behind them, which
//! `flex_bg` allows. Tables and bitmaps of groups that hold nothing are marked so and stay holes in the file.

mod checksum;
mod content;
mod descriptor;
pub(crate) mod directory;
pub(crate) mod dirhash;
pub(crate) mod extents;
mod finish;
mod geometry;
mod groups;
mod inode;
mod journal;
mod numbering;
mod predecessor;
mod records;
mod resize;
mod space;
pub(crate) mod superblock;
mod table;
mod writer;
mod xattr;

pub(crate) use checksum::Checksum;
pub(crate) use content::{FileContent, MAX_FILE};
pub(crate) use descriptor::{BLOCKS_UNINITIALISED, GroupDescriptor, INODES_UNINITIALISED};
pub(crate) use extents::{ExtentNode, FileExtent};
pub(crate) use finish::{FinishError, finish};
pub(crate) use geometry::{DESCRIPTOR, Geometry, MAX_VIRTUAL, MIN_VIRTUAL};
pub(crate) use inode::{EXTENTS_FLAG, INDEX_FLAG, InodeRecord};
pub(crate) use numbering::Numbering;
pub(crate) use predecessor::Predecessor;
pub(crate) use records::{FAST_SYMLINK, RecordWriter, links_of, type_code};
pub(crate) use space::{BlockSpace, mark};
pub(crate) use superblock::Identifiers;
pub(crate) use writer::{Allocate, ImageWriteError, ImageWriter};
pub(crate) use xattr::fit as attributes_fit;

/// Bytes per block.
pub(crate) use crate::BLOCK_SIZE as BLOCK;
/// Blocks per group: as many as one bitmap block covers.
pub(crate) const GROUP_BLOCKS: u64 = 32_768;
/// Bytes per inode record.
pub(crate) const INODE: usize = 256;
/// Inode records per block.
pub(crate) const INODES_PER_BLOCK: u32 = (BLOCK / INODE) as u32;
/// First inode number that is not reserved.
pub(crate) const FIRST_INODE: u32 = 11;
/// The root directory's inode number.
pub(crate) const ROOT_INODE: u32 = 2;

/// Writes an integer's little-endian bytes at an offset.
macro_rules! put {
    ($buffer:expr, $offset:expr, $value:expr) => {{
        let bytes = $value.to_le_bytes();
        $buffer[$offset..$offset + bytes.len()].copy_from_slice(&bytes);
    }};
}
pub(crate) use put;
