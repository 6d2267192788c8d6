//! The resize inode: it owns the blocks kept behind every copy of the group descriptors, so that the kernel can
//! grow a mounted file system.

use crate::format::{BLOCK, GROUP_BLOCKS, Geometry, InodeRecord, put};
use crate::writer::{BlockSpace, ImageWriteError, ImageWriter};

/// Slot of the double-indirect block in `i_block`.
const DOUBLE_INDIRECT: usize = 13;
/// Block numbers per indirect block.
const POINTERS: u64 = BLOCK as u64 / 4;

/// Writes the inode's indirect blocks; its record.
///
/// The double-indirect block points at the reserved blocks behind the first copy, by their position among all
/// descriptor blocks; each of those lists its counterparts behind the other copies.
pub(crate) fn write(
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
