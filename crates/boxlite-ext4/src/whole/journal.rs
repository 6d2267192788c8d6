//! An empty journal: a clean superblock, and blocks that stay holes until the guest writes them.

use crate::format::{BLOCK, FileExtent, Geometry, extents};
use crate::writer::{BlockSpace, ImageWriteError, ImageWriter};

/// Blocks of the journal. A guest walks through all of it in time and so adds that much to its overlay, therefore
/// less than mke2fs would take for large file systems.
fn length(geometry: &Geometry) -> u64 {
    match geometry.blocks * BLOCK as u64 {
        0..=0x1fff_ffff => 1024,
        _ => 4096,
    }
}

/// Takes the journal's blocks and writes its superblock; its extents.
pub(crate) fn write(
    writer: &mut ImageWriter<'_, BlockSpace>,
    geometry: &Geometry,
) -> Result<Vec<FileExtent>, ImageWriteError> {
    let length = length(geometry);
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
