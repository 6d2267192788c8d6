//! From the finished tree to the changed metadata.

use super::directory::{ChangedDirectory, NameChange, all_names, change_indexed, entries};
use super::table::{ChangedTable, unchanged};
use crate::below::{BelowGroups, DirectoryFile, FilesystemBelow};
use crate::format::superblock::{self, OFFSET, SUPERBLOCK};
use crate::format::{BLOCK, FileExtent, INDEX_FLAG, INODE, InodeRecord, extents};
use crate::metadata::{FinishError, Numbering, RecordWriter, links_of};
use crate::tree::{Directory, FileTree, InodeId, InodeKind, ROOT};
use crate::writer::{ImageWriteError, ImageWriter};

/// Figures of the finished delta.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeltaTotals {
    pub(crate) inodes: u64,
    pub(crate) removed: u64,
    pub(crate) content: u64,
}

/// Writes everything but file contents.
pub(crate) fn finish<'b>(
    writer: &mut ImageWriter<'_, BelowGroups<'b>>,
    tree: &FileTree<'b>,
    below: &'b FilesystemBelow<'b>,
    identity: &[u8; 32],
) -> Result<DeltaTotals, FinishError> {
    for (&number, &directory) in &tree.removed {
        writer.space.free_inode(number, directory)?;
    }
    let numbering = Numbering::new(tree, &mut |inode| {
        let directory = matches!(inode.kind, InodeKind::Directory(_));
        writer.space.take_inode(directory)?.ok_or(FinishError::Writer(ImageWriteError::Full))
    })?;
    let mut touched: Vec<(u32, Option<InodeId>)> = std::iter::once(&ROOT)
        .chain(&numbering.order)
        .map(|&id| (numbering.numbers[id as usize], Some(id)))
        .chain(tree.linked().map(|(number, id)| (number, Some(id))))
        .chain(tree.removed.keys().map(|&number| (number, None)))
        .collect();
    // Of a number that is free and taken again, the inode comes first and the empty record is dropped.
    touched.sort_unstable_by_key(|&(number, id)| (number, id.is_none()));
    touched.dedup_by_key(|&mut (number, _)| number);

    let mut table = ChangedTable::new(below);
    let mut records = RecordWriter { writer, tree, numbering: &numbering, ids: &below.ids, content: 0 };
    let mut inodes = 0;
    for (number, id) in touched {
        let bytes = match id {
            None => [0; INODE],
            Some(id) => {
                let seed = below.seed(number);
                let record = match tree.inode(id).record.as_deref() {
                    None => records.record(id, number)?,
                    Some(known) => changed_record(&mut records, below, id, known)?,
                };
                let bytes = record.bytes(seed);
                let same = tree.inode(id).record.as_deref().is_some_and(|known| known.bytes(seed) == bytes);
                inodes += u64::from(!same);
                bytes
            }
        };
        table.set(records.writer, number, &bytes)?;
    }
    let RecordWriter { writer, content, .. } = records;
    table.flush(writer)?;

    for (place, block) in writer.space.changed_blocks()? {
        writer.buffered(place, &block)?;
    }
    let summary = superblock::SuperblockSummary {
        free_blocks: writer.space.free_blocks,
        free_inodes: writer.space.free_inodes,
        delta: *identity,
        ..below.summary.clone()
    };
    let mut head = below.block(0)?.to_vec();
    head[OFFSET as usize..OFFSET as usize + SUPERBLOCK].copy_from_slice(&superblock::bytes(
        &below.geometry,
        &below.ids,
        &summary,
        0,
    ));
    writer.buffered(0, &head)?;
    writer.flush()?;
    Ok(DeltaTotals { inodes, removed: tree.removed.len() as u64, content })
}

/// The record of an inode from below after its changes; writes the blocks of a directory that change.
fn changed_record(
    records: &mut RecordWriter<'_, '_, '_, BelowGroups<'_>>,
    below: &FilesystemBelow<'_>,
    id: InodeId,
    known: &InodeRecord,
) -> Result<InodeRecord, FinishError> {
    let tree = records.tree;
    let inode = tree.inode(id);
    let mut record = known.clone();
    if inode.described {
        records.describe(&mut record, id)?;
    }
    let InodeKind::Directory(directory) = &inode.kind else {
        record.links = inode.links as u16;
        return Ok(record);
    };
    if let Some(standing) = &directory.standing
        && let Some(changed) = changed_directory(records, below, id, directory)?
    {
        record.links = if standing.emptied {
            records.directory_links(directory)
        } else if record.links == 1 {
            // The count has overflowed: as under a kernel, it says nothing from then on.
            1
        } else {
            links_of((i64::from(record.links) - 2 + changed.subdirectories) as u32)
        };
        write_directory(records, below, &standing.file, &changed, &mut record)?;
    }
    Ok(record)
}

/// The new blocks of a directory from below; `None` if it keeps all of its names.
fn changed_directory(
    records: &RecordWriter<'_, '_, '_, BelowGroups<'_>>,
    below: &FilesystemBelow<'_>,
    id: InodeId,
    directory: &Directory<'_>,
) -> Result<Option<ChangedDirectory>, FinishError> {
    let Some(standing) = &directory.standing else { return Ok(None) };
    let file = &standing.file;
    if standing.emptied {
        let laid_out = records.directory(id, file.number, directory)?;
        return Ok(Some(ChangedDirectory::whole(&laid_out, 0)));
    }
    let gone = standing.removed.iter().filter(|name| !directory.entries.contains_key(*name));
    let here = directory.entries.iter().filter(|(_, to)| to.layer != 0).map(|(name, to)| {
        let entry = records.entry(name, to.inode);
        NameChange { name, to: Some((entry.inode, entry.file_type)) }
    });
    let changes: Vec<_> = gone.map(|name| NameChange { name, to: None }).chain(here).collect();
    if changes.is_empty() {
        return Ok(None);
    }
    if let Some(index) = &file.index {
        let parent = records.numbering.numbers[directory.parent as usize];
        if let Some(changed) = change_indexed(below, file, index, parent, &changes)? {
            return Ok(Some(changed));
        }
    }
    let (names, subdirectories) = all_names(file, &changes)?;
    let laid_out = records.lay_out(id, file.number, directory, &entries(&names))?;
    Ok(Some(ChangedDirectory::whole(&laid_out, subdirectories)))
}

/// Writes the blocks of a directory that differ from those below, and maps the directory anew if its length changes.
fn write_directory(
    records: &mut RecordWriter<'_, '_, '_, BelowGroups<'_>>,
    below: &FilesystemBelow<'_>,
    file: &DirectoryFile<'_>,
    changed: &ChangedDirectory,
    record: &mut InodeRecord,
) -> Result<(), FinishError> {
    let mut mapped = file.extents.clone();
    for (logical, block) in &changed.blocks {
        match file.physical(*logical) {
            Some(place) if unchanged(below, place, block)? => {}
            Some(place) => records.writer.buffered(place, block)?,
            None => records.writer.append(block, *logical, &mut mapped)?,
        }
    }
    record.flags = record.flags & !INDEX_FLAG | if changed.indexed { INDEX_FLAG } else { 0 };
    if changed.length == file.blocks {
        return Ok(());
    }
    let (kept, cut) = truncate(mapped, changed.length);
    records.writer.give_back(&cut)?;
    let tree: Vec<_> =
        file.tree.iter().map(|&physical| FileExtent { logical: 0, length: 1, physical }).collect();
    records.writer.give_back(&tree)?;
    record.blocks = record.blocks - file.tree.len() as u64 - u64::from(file.blocks);
    record.size = u64::from(changed.length) * BLOCK as u64;
    records.map(record, file.number, &kept)
}

/// Splits extents at a length in blocks.
fn truncate(mapped: Vec<FileExtent>, length: u32) -> (Vec<FileExtent>, Vec<FileExtent>) {
    let (mut kept, mut cut) = (Vec::new(), Vec::new());
    for extent in mapped {
        let inside = length.saturating_sub(extent.logical).min(extent.length);
        if inside > 0 {
            extents::push(&mut kept, extent.logical, extent.physical, inside);
        }
        if inside < extent.length {
            cut.push(FileExtent {
                logical: extent.logical + inside,
                length: extent.length - inside,
                physical: extent.physical + u64::from(inside),
            });
        }
    }
    (kept, cut)
}
