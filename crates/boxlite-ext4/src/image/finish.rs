//! From the finished tree to the metadata of the image.

use super::directory::{self, DirEntry};
use super::groups::{self, GroupPlaces};
use super::inode::{EXTENTS_FLAG, INDEX_FLAG, InodeRecord, device};
use super::numbering::Numbering;
use super::superblock::{self, Identifiers, SuperblockSummary};
use super::table::InodeTable;
use super::volume::{ImageWriteError, ImageWriter};
use super::{BLOCK, FIRST_INODE, GROUP_BLOCKS, Geometry, ROOT_INODE, extents, journal, resize, xattr};
use crate::error::EntryRefusal;
use crate::tree::{FileTree, Inode, InodeId, InodeKind, ROOT};

const RESIZE_INODE: u32 = 7;
const JOURNAL_INODE: u32 = 8;
/// Subdirectories from which on a directory's link count says nothing (`dir_nlink`).
const MAX_DIRECTORY_LINKS: u32 = 65_000;
/// Longest symbolic link that fits the inode, exclusive.
const FAST_SYMLINK: usize = 60;

/// Why the metadata cannot be written.
#[derive(Debug)]
pub(crate) enum FinishError {
    Writer(ImageWriteError),
    /// One path has metadata that ext4 cannot hold.
    Refused {
        path: Vec<u8>,
        refusal: EntryRefusal,
    },
}

impl From<ImageWriteError> for FinishError {
    fn from(error: ImageWriteError) -> Self {
        Self::Writer(error)
    }
}

/// What the image holds.
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
    volume: &mut ImageWriter<'_>,
    tree: &FileTree,
    geometry: &Geometry,
    ids: &Identifiers,
) -> Result<ImageTotals, FinishError> {
    let numbering = Numbering::new(tree);
    let used = numbering.order.len() as u64;
    let per_group = geometry.inodes_per_group(used).ok_or(ImageWriteError::Full)?;
    let places = GroupPlaces::take(volume, geometry, per_group)?;
    let mut image = MetadataWriter {
        volume,
        tree,
        numbering: &numbering,
        ids,
        table: InodeTable::new(&places),
        directories: vec![0; geometry.groups as usize],
        content: 0,
    };
    let journal = image.reserved(geometry)?;
    for (index, &id) in numbering.order.iter().enumerate() {
        let number = FIRST_INODE + index as u32;
        let record = image.record(id, number)?;
        image.write(number, &record)?;
    }
    let MetadataWriter { table, directories, content, volume, .. } = image;
    table.end(volume)?;

    let seed = ids.checksum_seed();
    let last_inode = FIRST_INODE - 1 + used as u32;
    let groups = groups::write(volume, geometry, &places, last_inode, &directories, seed)?;
    let heads: u64 = geometry.superblock_groups().map(|group| geometry.head(group)).sum();
    let overhead = heads + places.overhead() + journal.1 / BLOCK as u64;
    let summary = SuperblockSummary {
        inodes_per_group: per_group,
        free_blocks: groups.free_blocks,
        free_inodes: groups.free_inodes,
        overhead,
        journal,
    };
    for group in geometry.superblock_groups().collect::<Vec<_>>().into_iter().rev() {
        volume.buffered(group * GROUP_BLOCKS + 1, &groups.descriptors)?;
        volume.flush()?;
        let offset = if group == 0 { superblock::OFFSET } else { group * GROUP_BLOCKS * BLOCK as u64 };
        volume.write_at(offset, &superblock::bytes(geometry, ids, &summary, group))?;
    }
    Ok(ImageTotals {
        inodes: used + 1,
        directories: directories.iter().map(|&count| u64::from(count)).sum(),
        content,
        free_blocks: groups.free_blocks,
        free_inodes: u64::from(groups.free_inodes),
    })
}

struct MetadataWriter<'a, 'v> {
    volume: &'a mut ImageWriter<'v>,
    tree: &'a FileTree,
    numbering: &'a Numbering,
    ids: &'a Identifiers,
    table: InodeTable<'a>,
    /// Directories by group.
    directories: Vec<u32>,
    /// Bytes of file content, by length.
    content: u64,
}

impl MetadataWriter<'_, '_> {
    /// Inodes 1 to 10; the journal's `i_block` and size.
    fn reserved(&mut self, geometry: &Geometry) -> Result<([u8; 60], u64), FinishError> {
        let resize = resize::write(self.volume, geometry)?;
        let extents = journal::write(self.volume, geometry)?;
        let mut journal = InodeRecord::empty();
        let blocks: u64 = extents.iter().map(|extent| u64::from(extent.length)).sum();
        journal.mode = 0o100_600;
        journal.links = 1;
        journal.size = blocks * BLOCK as u64;
        journal.flags = EXTENTS_FLAG;
        let seed = self.ids.checksum_seed().of_inode(JOURNAL_INODE);
        let (block, tree_blocks) = extents::root(&extents, seed, self.volume)?;
        journal.block = block;
        journal.blocks = blocks + tree_blocks;
        for number in 1..FIRST_INODE {
            let record = match number {
                ROOT_INODE => &self.record(ROOT, ROOT_INODE)?,
                RESIZE_INODE => &resize,
                JOURNAL_INODE => &journal,
                _ => &InodeRecord::empty(),
            };
            self.write(number, record)?;
        }
        Ok((journal.block, journal.size))
    }

    fn write(&mut self, number: u32, record: &InodeRecord) -> Result<(), ImageWriteError> {
        let bytes = record.bytes(self.ids.checksum_seed().of_inode(number));
        self.table.push(self.volume, number, &bytes)
    }

    /// The record of an inode of the tree; writes the blocks it needs.
    fn record(&mut self, id: InodeId, number: u32) -> Result<InodeRecord, FinishError> {
        let inode = self.tree.inode(id);
        let seed = self.ids.checksum_seed().of_inode(number);
        let mut record = InodeRecord::empty();
        record.mode = inode.mode | type_bits(&inode.kind);
        record.uid = inode.uid;
        record.gid = inode.gid;
        record.mtime = inode.mtime;
        record.links = inode.links as u16;
        let stored = xattr::store(&inode.xattrs).map_err(|refusal| FinishError::Refused {
            path: self.numbering.path_of(self.tree, id),
            refusal,
        })?;
        record.inline = stored.inline;
        if let Some(mut block) = stored.block {
            let place = self.volume.reserve_one()?;
            xattr::seal(&mut block, place, self.ids.checksum_seed());
            self.volume.buffered(place, &block)?;
            record.attributes = place;
            record.blocks += 1;
        }
        let mut mapped = Vec::new();
        let extents = match &inode.kind {
            InodeKind::File { size, extents } => {
                record.size = *size;
                self.content += size;
                Some(extents.as_slice())
            }
            InodeKind::Directory(_) => {
                let blocks = self.directory(id, number)?;
                record.size = blocks.bytes.len() as u64;
                if blocks.indexed {
                    record.flags |= INDEX_FLAG;
                }
                record.links = self.directory_links(inode);
                let group = (number - 1) / self.table.places.inodes_per_group;
                self.directories[group as usize] += 1;
                self.volume.append(&blocks.bytes, 0, &mut mapped)?;
                Some(mapped.as_slice())
            }
            InodeKind::Symlink(target) => {
                record.size = target.len() as u64;
                if target.len() < FAST_SYMLINK {
                    record.block[..target.len()].copy_from_slice(target);
                    None
                } else {
                    let mut block = target.to_vec();
                    block.resize(BLOCK, 0);
                    self.volume.append(&block, 0, &mut mapped)?;
                    Some(mapped.as_slice())
                }
            }
            InodeKind::Char(major, minor) | InodeKind::Block(major, minor) => {
                record.block = device(*major, *minor);
                None
            }
            InodeKind::Fifo => None,
        };
        if let Some(extents) = extents {
            let (block, tree_blocks) = extents::root(extents, seed, self.volume)?;
            record.flags |= EXTENTS_FLAG;
            record.block = block;
            record.blocks += tree_blocks + extents.iter().map(|extent| u64::from(extent.length)).sum::<u64>();
        }
        Ok(record)
    }

    fn directory(&self, id: InodeId, number: u32) -> Result<directory::DirectoryBlocks, FinishError> {
        let InodeKind::Directory(directory) = &self.tree.inode(id).kind else {
            unreachable!("callers pass directories only")
        };
        let entries: Vec<_> = directory
            .entries
            .iter()
            .map(|(name, to)| DirEntry {
                name,
                inode: self.numbering.numbers[to.inode as usize],
                file_type: file_type(&self.tree.inode(to.inode).kind),
            })
            .collect();
        let parent = self.numbering.numbers[directory.parent as usize];
        let seed = self.ids.checksum_seed().of_inode(number);
        directory::lay_out(&entries, number, parent, &self.ids.hash_words(), seed).ok_or_else(|| {
            FinishError::Refused {
                path: self.numbering.path_of(self.tree, id),
                refusal: EntryRefusal::TooLarge {
                    what: "the number of names in one directory",
                    need: entries.len() as u64,
                    limit: entries.len() as u64 - 1,
                },
            }
        })
    }

    fn directory_links(&self, inode: &Inode) -> u16 {
        let InodeKind::Directory(directory) = &inode.kind else { return 1 };
        let subdirectories = directory
            .entries
            .values()
            .filter(|name| matches!(self.tree.inode(name.inode).kind, InodeKind::Directory(_)))
            .count() as u32;
        if subdirectories + 2 >= MAX_DIRECTORY_LINKS { 1 } else { subdirectories as u16 + 2 }
    }
}

fn type_bits(kind: &InodeKind) -> u16 {
    match kind {
        InodeKind::File { .. } => 0o100_000,
        InodeKind::Directory(_) => 0o040_000,
        InodeKind::Symlink(_) => 0o120_000,
        InodeKind::Char(..) => 0o020_000,
        InodeKind::Block(..) => 0o060_000,
        InodeKind::Fifo => 0o010_000,
    }
}

fn file_type(kind: &InodeKind) -> u8 {
    match kind {
        InodeKind::File { .. } => 1,
        InodeKind::Directory(_) => 2,
        InodeKind::Char(..) => 3,
        InodeKind::Block(..) => 4,
        InodeKind::Fifo => 5,
        InodeKind::Symlink(_) => 7,
    }
}
