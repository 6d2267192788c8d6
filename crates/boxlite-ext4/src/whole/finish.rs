//! Writes the metadata of a whole image from the finished tree.

use super::groups::{self, GroupPlaces, InodeTable};
use super::reserved;
use crate::format::superblock::{self, SUPERBLOCK, SuperblockSummary};
use crate::format::{BLOCK, FIRST_INODE, GROUP_BLOCKS, Geometry, Identifiers};
use crate::metadata::{FinishError, Numbering, RecordWriter};
use crate::tree::{FileTree, InodeKind, ROOT};
use crate::writer::{BlockSpace, ImageWriteError, ImageWriter};

/// Totals of the finished image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageTotals {
    pub(crate) inodes: u64,
    pub(crate) directories: u64,
    pub(crate) content: u64,
    pub(crate) free_blocks: u64,
    pub(crate) free_inodes: u64,
}

/// Writes everything but file contents.
pub(crate) fn finish(
    writer: &mut ImageWriter<'_, BlockSpace>,
    tree: &FileTree<'_>,
    geometry: &Geometry,
    ids: &Identifiers,
) -> Result<ImageTotals, FinishError> {
    let mut next = FIRST_INODE;
    let numbering = Numbering::new(tree, &mut |_| {
        next += 1;
        Ok(next - 1)
    })?;
    let used = numbering.order.len() as u64;
    let per_group = geometry.inodes_per_group(used).ok_or(ImageWriteError::Full)?;
    let places = GroupPlaces::take(writer, geometry, per_group)?;
    let mut directories = vec![0; geometry.groups as usize];
    for (id, number) in std::iter::once(&ROOT).chain(&numbering.order).map(|&id| {
        let number = numbering.numbers[id as usize];
        (id, number)
    }) {
        if matches!(tree.inode(id).kind, InodeKind::Directory(_)) {
            directories[((number - 1) / per_group) as usize] += 1;
        }
    }
    let mut table = InodeTable::new(&places);
    let mut records = RecordWriter { writer, tree, numbering: &numbering, ids, content: 0 };
    let journal = reserved::write(&mut records, &mut table, geometry)?;
    for (index, &id) in numbering.order.iter().enumerate() {
        let number = FIRST_INODE + index as u32;
        let record = records.record(id, number)?;
        table.push(records.writer, number, &record.bytes(ids.checksum_seed().of_inode(number)))?;
    }
    let RecordWriter { writer, content, .. } = records;
    table.end(writer)?;

    let seed = ids.checksum_seed();
    let last_inode = FIRST_INODE - 1 + used as u32;
    let groups = groups::write(writer, geometry, &places, last_inode, &directories, seed)?;
    let heads: u64 = geometry.superblock_groups().map(|group| geometry.head(group)).sum();
    let overhead = heads + places.overhead() + journal.1 / BLOCK as u64;
    let summary = SuperblockSummary {
        inodes_per_group: per_group,
        free_blocks: groups.free_blocks,
        free_inodes: groups.free_inodes,
        overhead,
        journal,
        delta: [0; 32],
    };
    for group in geometry.superblock_groups().collect::<Vec<_>>().into_iter().rev() {
        let mut head = vec![0; BLOCK];
        let offset = if group == 0 { superblock::OFFSET as usize } else { 0 };
        let bytes = superblock::bytes(geometry, ids, &summary, group);
        head[offset..offset + SUPERBLOCK].copy_from_slice(&bytes);
        writer.buffered(group * GROUP_BLOCKS, &head)?;
        writer.buffered(group * GROUP_BLOCKS + 1, &groups.descriptors)?;
    }
    writer.flush()?;
    Ok(ImageTotals {
        inodes: used + 1,
        directories: directories.iter().map(|&count| u64::from(count)).sum(),
        content,
        free_blocks: groups.free_blocks,
        free_inodes: u64::from(groups.free_inodes),
    })
}
