//! Reads a file system of this builder's own making, as far as it is asked for.
//!
//! Everything read is verified: superblock, descriptors and inodes must be byte for byte what this builder would write
//! for the same fields; bitmaps, directories and trees of extents must have the right checksum. So whatever another
//! program or a fault has changed is refused where it matters, and nothing else is read.

mod directory;
mod groups;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

pub(crate) use directory::{DirectoryFile, DirectoryIndex, IndexedLeaf};
pub(crate) use groups::BelowGroups;

use crate::error::BelowError;
use crate::format::superblock::{self, OFFSET, SUPERBLOCK, SuperblockSummary};
use crate::format::{
    BLOCK, Checksum, DESCRIPTOR, EXTENTS_FLAG, ExtentNode, FAST_SYMLINK, FileExtent, Geometry,
    GroupDescriptor, INODE, INODES_PER_BLOCK, Identifiers, InodeRecord, extents,
};
use crate::source::BlockSource;

/// Blocks kept in memory.
const MAX_CACHED: usize = 1024;

/// A file system to build upon.
pub(crate) struct FilesystemBelow<'s> {
    source: &'s dyn BlockSource,
    pub(crate) geometry: Geometry,
    pub(crate) ids: Identifiers,
    pub(crate) summary: SuperblockSummary,
    cache: RefCell<BlockCache>,
}

impl std::fmt::Debug for FilesystemBelow<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FilesystemBelow").field("ids", &self.ids).finish_non_exhaustive()
    }
}

/// The blocks of an inode, data and tree apart.
#[derive(Debug, Default)]
pub(crate) struct MappedBlocks {
    pub(crate) data: Vec<FileExtent>,
    /// Blocks of the tree of extents.
    pub(crate) tree: Vec<u64>,
}

impl<'s> FilesystemBelow<'s> {
    /// Reads the superblock, and requires the identity that the caller expects.
    pub(crate) fn open(source: &'s dyn BlockSource, expected: &[u8; 32]) -> Result<Self, BelowError> {
        let mut block = [0; BLOCK];
        source.read_blocks(0, &mut block).map_err(|source| BelowError::Read { block: 0, source })?;
        let mut bytes = [0; SUPERBLOCK];
        bytes.copy_from_slice(&block[OFFSET as usize..OFFSET as usize + SUPERBLOCK]);
        let (geometry, ids, summary) =
            superblock::parse(&bytes).map_err(|reason| BelowError::Foreign { reason })?;
        let found = if summary.delta == [0; 32] {
            ids == Identifiers::derive(expected)
        } else {
            summary.delta == *expected
        };
        if !found {
            return Err(BelowError::OtherIdentity { expected: hex::encode(expected) });
        }
        Ok(Self { source, geometry, ids, summary, cache: RefCell::default() })
    }

    /// Reads blocks past the cache.
    pub(crate) fn read(&self, first: u64, blocks: &mut [u8]) -> Result<(), BelowError> {
        if first + (blocks.len() / BLOCK) as u64 > self.geometry.blocks {
            return Err(BelowError::damaged(format!("block {first}"), "it lies behind the end"));
        }
        self.source.read_blocks(first, blocks).map_err(|source| BelowError::Read { block: first, source })
    }

    /// Reads one block of metadata.
    pub(crate) fn block(&self, number: u64) -> Result<Rc<[u8]>, BelowError> {
        if let Some(block) = self.cache.borrow().blocks.get(&number) {
            return Ok(Rc::clone(block));
        }
        let mut block = vec![0; BLOCK];
        self.read(number, &mut block)?;
        let block: Rc<[u8]> = block.into();
        self.cache.borrow_mut().insert(number, &block);
        Ok(block)
    }

    /// Reads the descriptor of a group.
    pub(crate) fn descriptor(&self, group: u64) -> Result<GroupDescriptor, BelowError> {
        let damaged = |reason| BelowError::damaged(format!("the descriptor of group {group}"), reason);
        let (block, at) = descriptor_place(group);
        let block = self.block(block)?;
        let descriptor = GroupDescriptor::parse(&block[at..at + DESCRIPTOR], group, self.ids.checksum_seed())
            .ok_or_else(|| damaged("it has other fields or another checksum than this builder writes"))?;
        let tables = u64::from(self.summary.inodes_per_group / INODES_PER_BLOCK);
        let last = [descriptor.block_bitmap, descriptor.inode_bitmap, descriptor.table + tables - 1];
        if last.into_iter().any(|block| block == 0 || block >= self.geometry.blocks) {
            return Err(damaged("it points behind the end"));
        }
        Ok(descriptor)
    }

    /// Block and offset in it of an inode's record.
    pub(crate) fn record_place(&self, number: u32) -> Result<(u64, usize), BelowError> {
        let per_group = self.summary.inodes_per_group;
        if number == 0 || u64::from(number) > u64::from(per_group) * self.geometry.groups {
            return Err(BelowError::damaged(format!("inode {number}"), "there is no inode of this number"));
        }
        let (group, index) = ((number - 1) / per_group, (number - 1) % per_group);
        let table = self.descriptor(group.into())?.table;
        Ok((table + u64::from(index / INODES_PER_BLOCK), (index % INODES_PER_BLOCK) as usize * INODE))
    }

    /// Reads an inode in use.
    pub(crate) fn inode(&self, number: u32) -> Result<InodeRecord, BelowError> {
        let (block, at) = self.record_place(number)?;
        let mut bytes = [0; INODE];
        bytes.copy_from_slice(&self.block(block)?[at..at + INODE]);
        let record = InodeRecord::parse(&bytes, self.seed(number));
        record.filter(|record| record.links > 0 && record.mode != 0).ok_or_else(|| {
            BelowError::damaged(
                format!("inode {number}"),
                "it is not in use, or has other fields or another checksum than this builder writes",
            )
        })
    }

    /// The checksum seed of an inode.
    pub(crate) fn seed(&self, number: u32) -> Checksum {
        self.ids.checksum_seed().of_inode(number)
    }

    /// Reads which blocks an inode maps.
    pub(crate) fn mapped(&self, number: u32, record: &InodeRecord) -> Result<MappedBlocks, BelowError> {
        let damaged = |reason| BelowError::damaged(format!("inode {number}"), reason);
        let mut mapped = MappedBlocks::default();
        if record.flags & EXTENTS_FLAG == 0 {
            return Ok(mapped);
        }
        let mut pending = vec![extents::parse(&record.block, None).map_err(damaged)?];
        while let Some(node) = pending.pop() {
            match node {
                ExtentNode::Leaf(extents) => mapped.data.extend(extents),
                ExtentNode::Index { depth, children } => {
                    // The last node pushed is read first, so that extents come out in order.
                    for place in children.into_iter().rev() {
                        if mapped.tree.len() as u64 > record.blocks {
                            return Err(damaged("its tree of extents has more blocks than it says"));
                        }
                        let block = self.block(place)?;
                        if !extents::intact(&block, self.seed(number)) {
                            return Err(damaged("a block of its tree of extents has a wrong checksum"));
                        }
                        mapped.tree.push(place);
                        pending.push(extents::parse(&block[..BLOCK - 4], Some(depth - 1)).map_err(damaged)?);
                    }
                }
            }
        }
        let inside = |extent: &FileExtent| {
            extent.physical > 0 && extent.physical + u64::from(extent.length) <= self.geometry.blocks
        };
        if !extents::ascending(&mapped.data) || !mapped.data.iter().all(inside) {
            return Err(damaged("its extents overlap or lie behind the end"));
        }
        Ok(mapped)
    }

    /// Reads the target of a symbolic link.
    pub(crate) fn link_target(&self, number: u32, record: &InodeRecord) -> Result<Box<[u8]>, BelowError> {
        let damaged = |reason| BelowError::damaged(format!("inode {number}"), reason);
        let length = record.size as usize;
        if record.flags & EXTENTS_FLAG == 0 {
            let target = record.block.get(..length).filter(|_| length < FAST_SYMLINK);
            return Ok(target.ok_or_else(|| damaged("its link is longer than its place"))?.into());
        }
        let mapped = self.mapped(number, record)?;
        let first = mapped.data.first().ok_or_else(|| damaged("its link has no block"))?;
        let block = self.block(first.physical)?;
        Ok(block.get(..length).ok_or_else(|| damaged("its link is longer than its block"))?.into())
    }
}

/// Block and offset in it of a group's descriptor.
pub(crate) fn descriptor_place(group: u64) -> (u64, usize) {
    let per_block = (BLOCK / DESCRIPTOR) as u64;
    (1 + group / per_block, (group % per_block) as usize * DESCRIPTOR)
}

/// The blocks read last.
#[derive(Default)]
struct BlockCache {
    blocks: HashMap<u64, Rc<[u8]>>,
    order: VecDeque<u64>,
}

impl BlockCache {
    fn insert(&mut self, number: u64, block: &Rc<[u8]>) {
        if self.blocks.insert(number, Rc::clone(block)).is_none() {
            self.order.push_back(number);
        }
        while self.order.len() > MAX_CACHED {
            let oldest = self.order.pop_front();
            oldest.and_then(|number| self.blocks.remove(&number));
        }
    }
}
