//! Extents and the nodes of the tree that holds them (`ext4_extent`, `ext4_extent_idx`).

use super::checksum::Checksum;
use super::{BLOCK, put};

/// Most blocks of one initialised extent.
const MAX_LENGTH: u32 = 32_768;
const MAGIC: u16 = 0xf30a;
pub(crate) const RECORD: usize = 12;
/// Levels above the leaves that the kernel accepts.
const MAX_DEPTH: u16 = 5;
/// Records that fit an inode, and a block of the tree.
pub(crate) const IN_INODE: usize = 4;
pub(crate) const IN_BLOCK: usize = (BLOCK - RECORD - 4) / RECORD;

/// A run of blocks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileExtent {
    /// First block within the file.
    pub(crate) logical: u32,
    /// Number of blocks.
    pub(crate) length: u32,
    /// First block within the image.
    pub(crate) physical: u64,
}

/// Adds blocks at the end of a file, longer extents first.
pub(crate) fn push(extents: &mut Vec<FileExtent>, mut logical: u32, mut physical: u64, mut length: u32) {
    if let Some(last) = extents.last_mut()
        && last.logical + last.length == logical
        && last.physical + u64::from(last.length) == physical
    {
        let more = length.min(MAX_LENGTH - last.length);
        last.length += more;
        logical += more;
        physical += u64::from(more);
        length -= more;
    }
    while length > 0 {
        let now = length.min(MAX_LENGTH);
        extents.push(FileExtent { logical, length: now, physical });
        logical += now;
        physical += u64::from(now);
        length -= now;
    }
}

/// True if extents are in order and disjoint.
pub(crate) fn ascending(extents: &[FileExtent]) -> bool {
    extents
        .windows(2)
        .all(|pair| u64::from(pair[0].logical) + u64::from(pair[0].length) <= u64::from(pair[1].logical))
}

/// Reads one node of a tree of extents: the extents of a leaf, or the blocks of the nodes below it.
pub(crate) fn parse(node: &[u8], depth: Option<u16>) -> Result<ExtentNode, &'static str> {
    let half = |at: usize| u16::from_le_bytes([node[at], node[at + 1]]);
    let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
    let (count, most, found) = (usize::from(half(2)), usize::from(half(4)), half(6));
    if half(0) != MAGIC || count > most || most > node.len() / RECORD - 1 {
        return Err("the header of an extent node is wrong");
    }
    if found > MAX_DEPTH || depth.is_some_and(|depth| depth != found) {
        return Err("an extent node is at another depth than its parent says");
    }
    let records = (1..=count).map(|number| number * RECORD);
    if found > 0 {
        let children = records.map(|at| u64::from(word(at + 4)) | u64::from(half(at + 8)) << 32);
        return Ok(ExtentNode::Index { depth: found, children: children.collect() });
    }
    let extents: Vec<_> = records
        .map(|at| FileExtent {
            logical: word(at),
            length: half(at + 4).into(),
            physical: u64::from(half(at + 6)) << 32 | u64::from(word(at + 8)),
        })
        .collect();
    if extents.iter().any(|extent| extent.length == 0 || extent.length > MAX_LENGTH) {
        return Err("an extent has a length that this builder does not write");
    }
    Ok(ExtentNode::Leaf(extents))
}

/// True if the checksum of a tree block is right; `seed` is the inode's.
pub(crate) fn intact(block: &[u8], seed: Checksum) -> bool {
    let tail = RECORD + IN_BLOCK * RECORD;
    block[tail..tail + 4] == seed.over(&block[..tail]).value().to_le_bytes()
}

/// A node of a tree of extents.
#[derive(Debug)]
pub(crate) enum ExtentNode {
    Leaf(Vec<FileExtent>),
    Index { depth: u16, children: Vec<u64> },
}

/// Fills a zeroed node with records.
pub(crate) fn fill(node: &mut [u8], records: &[(u32, [u8; RECORD])], most: usize, depth: u16) {
    put!(node, 0, MAGIC);
    put!(node, 2, records.len() as u16);
    put!(node, 4, most as u16);
    put!(node, 6, depth);
    for (place, (_, record)) in node[RECORD..].chunks_exact_mut(RECORD).zip(records) {
        place.copy_from_slice(record);
    }
}

/// The record of an extent, after its first block.
pub(crate) fn leaf_record(extent: &FileExtent) -> (u32, [u8; RECORD]) {
    let mut record = [0; RECORD];
    put!(record, 0, extent.logical);
    put!(record, 4, extent.length as u16);
    put!(record, 6, (extent.physical >> 32) as u16);
    put!(record, 8, extent.physical as u32);
    (extent.logical, record)
}

/// The record of a node below, by its first block.
pub(crate) fn index_record(logical: u32, block: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    put!(record, 0, logical);
    put!(record, 4, block as u32);
    put!(record, 8, (block >> 32) as u16);
    record
}
