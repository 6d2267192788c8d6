//! Inodes 1 to 10: the root directory, the resize inode and the journal.
//!
//! The resize inode owns the blocks kept behind every copy of the group descriptors, so that the kernel can grow a
//! mounted file system. The journal is empty: a clean superblock, and blocks that stay holes until the guest writes them.

use super::groups::InodeTable;
use crate::format::{
    BLOCK, FIRST_INODE, FileExtent, GROUP_BLOCKS, Geometry, InodeRecord, ROOT_INODE, extents, put,
};
use crate::metadata::{FinishError, RecordWriter};
use crate::tree::ROOT;
use crate::writer::{BlockSpace, ImageWriteError, ImageWriter};

const RESIZE_INODE: u32 = 7;
const JOURNAL_INODE: u32 = 8;

/// Writes inodes 1 to 10; returns the journal's `i_block` and size.
pub(super) fn write(
    records: &mut RecordWriter<'_, '_, '_, BlockSpace>,
    table: &mut InodeTable<'_>,
    geometry: &Geometry,
) -> Result<([u8; 60], u64), FinishError> {
    let resize = write_resize(records.writer, geometry)?;
    let extents = write_journal(records.writer, geometry)?;
    let mut journal = InodeRecord::empty();
    journal.mode = 0o100_600;
    journal.links = 1;
    journal.size = extents.iter().map(|extent| u64::from(extent.length)).sum::<u64>() * BLOCK as u64;
    records.map(&mut journal, JOURNAL_INODE, &extents)?;
    for number in 1..FIRST_INODE {
        let record = match number {
            ROOT_INODE => &records.record(ROOT, ROOT_INODE)?,
            RESIZE_INODE => &resize,
            JOURNAL_INODE => &journal,
            _ => &InodeRecord::empty(),
        };
        let seed = records.ids.checksum_seed().of_inode(number);
        table.push(records.writer, number, &record.bytes(seed))?;
    }
    Ok((journal.block, journal.size))
}

/// Blocks of the journal. A guest walks through all of it in time and so adds that much to its overlay, therefore
/// less than mke2fs would take for large file systems.
fn journal_length(geometry: &Geometry) -> u64 {
    match geometry.blocks * BLOCK as u64 {
        0..=0x1fff_ffff => 1024,
        _ => 4096,
    }
}

/// Takes the journal's blocks and writes its superblock; its extents.
fn write_journal(
    writer: &mut ImageWriter<'_, BlockSpace>,
    geometry: &Geometry,
) -> Result<Vec<FileExtent>, ImageWriteError> {
    let length = journal_length(geometry);
    let start = writer.space.take_contiguous(length).ok_or(ImageWriteError::Full)?;
    let mut block = vec![0; BLOCK];
    // Big-endian, as all of jbd2: magic, type 4 (superblock v2), then block size, length, first block, sequence.
    for (offset, value) in [
        (0, 0xc03b_3998_u32),
        (4, 4),
        (0xc, BLOCK as u32),
        (0x10, length as u32),
        (0x14, 1),
        (0x18, 1),
        (0x40, 1),
    ] {
        block[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
    }
    writer.buffered(start, &block)?;
    let mut extents = Vec::new();
    extents::push(&mut extents, 0, start, length as u32);
    Ok(extents)
}

/// Slot of the double-indirect block in `i_block`.
const DOUBLE_INDIRECT: usize = 13;
/// Block numbers per indirect block.
const POINTERS: u64 = BLOCK as u64 / 4;

/// Writes the inode's indirect blocks; its record.
///
/// The double-indirect block points at the reserved blocks behind the first copy, by their position among all
/// descriptor blocks; each of those lists its counterparts behind the other copies.
fn write_resize(
    writer: &mut ImageWriter<'_, BlockSpace>,
    geometry: &Geometry,
) -> Result<InodeRecord, ImageWriteError> {
    let copies: Vec<u64> = geometry.superblock_groups().skip(1).map(|group| group * GROUP_BLOCKS).collect();
    let mut double = vec![0; BLOCK];
    for position in 0..geometry.reserved_descriptor_blocks {
        let slot = geometry.descriptor_blocks + position;
        let first = 1 + slot;
        put!(double, (slot % POINTERS) as usize * 4, first as u32);
        let mut list = vec![0; BLOCK];
        for (number, start) in copies.iter().enumerate() {
            put!(list, number * 4, (start + first) as u32);
        }
        writer.buffered(first, &list)?;
    }
    let place = writer.append_one(&double)?;
    let mut record = InodeRecord::empty();
    record.mode = 0o100_600;
    record.links = 1;
    record.size = (POINTERS * POINTERS + POINTERS + 12) * BLOCK as u64;
    record.blocks = 1 + geometry.reserved_descriptor_blocks * (1 + copies.len() as u64);
    put!(record.block, DOUBLE_INDIRECT * 4, place as u32);
    Ok(record)
}
