//! The ext4 format: the fields of every structure, as bytes and back.
//!
//! Formats follow the kernel's `Documentation/filesystems/ext4`. Nothing here reads or writes a file.

mod bitmap;
mod checksum;
mod descriptor;
pub(crate) mod directory;
pub(crate) mod dirhash;
pub(crate) mod extents;
mod geometry;
mod inode;
pub(crate) mod superblock;
pub(crate) mod xattr;

pub(crate) use bitmap::{first_clear, is_set, mark};
pub(crate) use checksum::Checksum;
pub(crate) use descriptor::{BLOCKS_UNINITIALISED, GroupDescriptor, INODES_UNINITIALISED, TABLE_ZEROED};
pub(crate) use extents::{ExtentNode, FileExtent};
pub(crate) use geometry::{DESCRIPTOR, Geometry, MAX_VIRTUAL, MIN_VIRTUAL};
pub(crate) use inode::{EXTENTS_FLAG, FAST_SYMLINK, INDEX_FLAG, InodeRecord, device, type_code};
pub(crate) use superblock::Identifiers;

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
