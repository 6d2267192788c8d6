//! Writes the tree of extents of one inode.

use super::{Allocate, ImageWriteError, ImageWriter};
use crate::format::extents::{IN_BLOCK, IN_INODE, RECORD, fill, index_record, leaf_record};
use crate::format::{BLOCK, Checksum, FileExtent, put};

/// The `i_block` field for a list of extents, and how many blocks of tree had to be written for it.
pub(crate) fn write_extents<S: Allocate>(
    extents: &[FileExtent],
    seed: Checksum,
    writer: &mut ImageWriter<'_, S>,
) -> Result<([u8; 60], u64), ImageWriteError> {
    let mut records: Vec<(u32, [u8; RECORD])> = extents.iter().map(leaf_record).collect();
    let mut depth = 0;
    let mut written = 0;
    while records.len() > IN_INODE {
        let mut above = Vec::with_capacity(records.len().div_ceil(IN_BLOCK));
        for node in records.chunks(IN_BLOCK) {
            let mut block = vec![0; BLOCK];
            fill(&mut block, node, IN_BLOCK, depth);
            let tail = RECORD + IN_BLOCK * RECORD;
            let checksum = seed.over(&block[..tail]).value();
            put!(block, tail, checksum);
            above.push((node[0].0, index_record(node[0].0, writer.append_one(&block)?)));
            written += 1;
        }
        records = above;
        depth += 1;
    }
    let mut field = [0; 60];
    fill(&mut field, &records, IN_INODE, depth);
    Ok((field, written))
}
