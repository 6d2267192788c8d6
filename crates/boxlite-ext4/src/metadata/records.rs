//! From an inode of the tree to its record; writes the blocks that the record points at.

use super::{FinishError, Numbering};
use crate::error::EntryRefusal;
use crate::format::directory::{self, DirEntry, DirectoryBlocks};
use crate::format::{
    BLOCK, EXTENTS_FLAG, FAST_SYMLINK, FileExtent, INDEX_FLAG, Identifiers, InodeRecord, device, type_code,
    xattr,
};
use crate::tree::{Directory, FileTree, Inode, InodeId, InodeKind};
use crate::writer::{Allocate, ImageWriter, write_extents};

/// Subdirectories from which on a directory's link count says nothing (`dir_nlink`).
const MAX_DIRECTORY_LINKS: u32 = 65_000;
/// Makes records, and writes directories, long links, attributes and trees of extents.
pub(crate) struct RecordWriter<'a, 'w, 'b, S> {
    pub(crate) writer: &'a mut ImageWriter<'w, S>,
    pub(crate) tree: &'a FileTree<'b>,
    pub(crate) numbering: &'a Numbering,
    pub(crate) ids: &'a Identifiers,
    /// Bytes of file content, by length.
    pub(crate) content: u64,
}

impl<S: Allocate> RecordWriter<'_, '_, '_, S> {
    /// The record of an inode that is new.
    pub(crate) fn record(&mut self, id: InodeId, number: u32) -> Result<InodeRecord, FinishError> {
        let inode = self.tree.inode(id);
        let mut record = InodeRecord::empty();
        self.describe(&mut record, id)?;
        record.links = inode.links as u16;
        let mut mapped = Vec::new();
        let extents = match &inode.kind {
            InodeKind::File { size, extents } => {
                record.size = *size;
                self.content += size;
                Some(extents.as_slice())
            }
            InodeKind::Directory(directory) => {
                let blocks = self.directory(id, number, directory)?;
                record.size = blocks.bytes.len() as u64;
                if blocks.indexed {
                    record.flags |= INDEX_FLAG;
                }
                record.links = self.directory_links(directory);
                self.writer.append(&blocks.bytes, 0, &mut mapped)?;
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
                    self.writer.append(&block, 0, &mut mapped)?;
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
            self.map(&mut record, number, extents)?;
        }
        Ok(record)
    }

    /// Sets type, permissions, owner, time and attributes; an attribute block below is used again.
    pub(crate) fn describe(&mut self, record: &mut InodeRecord, id: InodeId) -> Result<(), FinishError> {
        let inode = self.tree.inode(id);
        record.mode = inode.mode | type_bits(&inode.kind);
        record.uid = inode.uid;
        record.gid = inode.gid;
        record.mtime = inode.mtime;
        let stored = xattr::store(&inode.xattrs).map_err(|refusal| FinishError::Refused {
            path: self.numbering.path_of(self.tree, id),
            refusal,
        })?;
        record.inline = stored.inline;
        match stored.block {
            Some(mut block) => {
                if record.attributes == 0 {
                    record.attributes = self.writer.reserve_one()?;
                    record.blocks += 1;
                }
                xattr::seal(&mut block, record.attributes, self.ids.checksum_seed());
                self.writer.buffered(record.attributes, &block)?;
            }
            None if record.attributes != 0 => {
                let extent = FileExtent { logical: 0, length: 1, physical: record.attributes };
                self.writer.give_back(&[extent])?;
                record.attributes = 0;
                record.blocks -= 1;
            }
            None => {}
        }
        Ok(())
    }

    /// Maps the content; adds its blocks and those of the tree to the count.
    pub(crate) fn map(
        &mut self,
        record: &mut InodeRecord,
        number: u32,
        extents: &[FileExtent],
    ) -> Result<(), FinishError> {
        let seed = self.ids.checksum_seed().of_inode(number);
        let (block, tree_blocks) = write_extents(extents, seed, self.writer)?;
        record.flags |= EXTENTS_FLAG;
        record.block = block;
        record.blocks += tree_blocks + extents.iter().map(|extent| u64::from(extent.length)).sum::<u64>();
        Ok(())
    }

    /// Lays a directory out from the entries in the tree.
    pub(crate) fn directory(
        &self,
        id: InodeId,
        number: u32,
        directory: &Directory<'_>,
    ) -> Result<DirectoryBlocks, FinishError> {
        let entries: Vec<_> = directory.entries.iter().map(|(name, to)| self.entry(name, to.inode)).collect();
        self.lay_out(id, number, directory, &entries)
    }

    /// Lays a directory out.
    pub(crate) fn lay_out(
        &self,
        id: InodeId,
        number: u32,
        directory: &Directory<'_>,
        entries: &[DirEntry<'_>],
    ) -> Result<DirectoryBlocks, FinishError> {
        let parent = self.numbering.numbers[directory.parent as usize];
        let seed = self.ids.checksum_seed().of_inode(number);
        directory::lay_out(entries, number, parent, &self.ids.hash_words(), seed).ok_or_else(|| {
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

    /// The entry for a name in the tree.
    pub(crate) fn entry<'n>(&self, name: &'n [u8], id: InodeId) -> DirEntry<'n> {
        let inode = self.numbering.numbers[id as usize];
        DirEntry { name, inode, file_type: file_type(&self.tree.inode(id).kind) }
    }

    /// The link count of a directory all of whose names are in the tree.
    pub(crate) fn directory_links(&self, directory: &Directory<'_>) -> u16 {
        let is_directory = |inode: &Inode<'_>| matches!(inode.kind, InodeKind::Directory(_));
        let names = directory.entries.values();
        links_of(names.filter(|name| is_directory(self.tree.inode(name.inode))).count() as u32)
    }
}

/// The link count of a directory with this many subdirectories.
pub(crate) fn links_of(subdirectories: u32) -> u16 {
    if subdirectories + 2 >= MAX_DIRECTORY_LINKS { 1 } else { subdirectories as u16 + 2 }
}

fn type_bits(kind: &InodeKind<'_>) -> u16 {
    match kind {
        InodeKind::File { .. } => 0o100_000,
        InodeKind::Directory(_) => 0o040_000,
        InodeKind::Symlink(_) => 0o120_000,
        InodeKind::Char(..) => 0o020_000,
        InodeKind::Block(..) => 0o060_000,
        InodeKind::Fifo => 0o010_000,
    }
}

fn file_type(kind: &InodeKind<'_>) -> u8 {
    type_code(type_bits(kind)).unwrap_or(0)
}
