//! A directory of the file system below: looked up by name through its index, or listed.

use std::rc::Rc;

use super::FilesystemBelow;
use crate::error::BelowError;
use crate::format::directory::{
    DirEntry, NODE_INDEX, NODE_LIMIT, ROOT_INDEX, ROOT_LIMIT, parse_index, visit_leaf,
};
use crate::format::dirhash::hash;
use crate::format::{BLOCK, FileExtent, INDEX_FLAG, InodeRecord};

/// An opened directory.
#[derive(Debug)]
pub(crate) struct DirectoryFile<'b> {
    below: &'b FilesystemBelow<'b>,
    pub(crate) number: u32,
    pub(crate) extents: Vec<FileExtent>,
    /// Blocks of the tree of extents.
    pub(crate) tree: Vec<u64>,
    /// Length in blocks.
    pub(crate) blocks: u32,
    /// `None` where one leaf holds everything.
    pub(crate) index: Option<DirectoryIndex>,
}

/// The hash index of a directory.
#[derive(Debug, Clone)]
pub(crate) struct DirectoryIndex {
    /// Logical blocks of the inner nodes; empty where the root points at the leaves.
    pub(crate) nodes: Vec<u32>,
    /// The leaves in the order of their hashes.
    pub(crate) leaves: Vec<IndexedLeaf>,
}

/// A leaf as the index knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexedLeaf {
    /// Least hash in it; the lowest bit says that the leaf before ends with the same hash.
    pub(crate) hash: u32,
    /// Logical block.
    pub(crate) block: u32,
    /// Position of its inner node in [`DirectoryIndex::nodes`], or 0.
    pub(crate) node: usize,
}

impl DirectoryIndex {
    /// Positions of the leaves in which a name of this hash can be, the one for new names first.
    pub(crate) fn candidates(&self, hash: u32) -> std::ops::Range<usize> {
        let first = self.leaves.partition_point(|leaf| leaf.hash <= hash).saturating_sub(1);
        let more = self.leaves[first + 1..].iter().take_while(|leaf| leaf.hash == hash | 1).count();
        first..first + 1 + more
    }
}

impl<'b> DirectoryFile<'b> {
    pub(crate) fn open(
        below: &'b FilesystemBelow<'b>,
        number: u32,
        record: &InodeRecord,
    ) -> Result<Self, BelowError> {
        let mapped = below.mapped(number, record)?;
        let blocks = u32::try_from(record.size / BLOCK as u64).unwrap_or(0);
        let held: u64 = mapped.data.iter().map(|extent| u64::from(extent.length)).sum();
        let mut opened = Self { below, number, extents: mapped.data, tree: mapped.tree, blocks, index: None };
        if blocks == 0 || !record.size.is_multiple_of(BLOCK as u64) || held != u64::from(blocks) {
            return Err(opened.damaged("its length and its blocks differ"));
        }
        if record.flags & INDEX_FLAG != 0 {
            opened.index = Some(opened.read_index()?);
        } else if blocks != 1 {
            return Err(opened.damaged("it has several blocks and no index"));
        }
        Ok(opened)
    }

    fn damaged(&self, reason: &'static str) -> BelowError {
        BelowError::damaged(format!("the directory of inode {}", self.number), reason)
    }

    /// The place of a logical block.
    pub(crate) fn physical(&self, logical: u32) -> Option<u64> {
        let position = self.extents.partition_point(|extent| extent.logical <= logical).checked_sub(1)?;
        let extent = &self.extents[position];
        let offset = logical - extent.logical;
        (offset < extent.length).then(|| extent.physical + u64::from(offset))
    }

    /// Reads a logical block.
    pub(crate) fn block(&self, logical: u32) -> Result<Rc<[u8]>, BelowError> {
        let physical =
            self.physical(logical).ok_or_else(|| self.damaged("its index points behind its end"))?;
        self.below.block(physical)
    }

    fn read_index(&self) -> Result<DirectoryIndex, BelowError> {
        let seed = self.below.seed(self.number);
        let root = self.block(0)?;
        let levels = root[30];
        let top = parse_index(&root, ROOT_INDEX, ROOT_LIMIT, seed).map_err(|reason| self.damaged(reason))?;
        let mut index = DirectoryIndex { nodes: Vec::new(), leaves: Vec::new() };
        match levels {
            0 => index.leaves.extend(top.iter().map(|&(hash, block)| IndexedLeaf { hash, block, node: 0 })),
            1 => {
                for (node, &(hash, block)) in top.iter().enumerate() {
                    let below = parse_index(&self.block(block)?, NODE_INDEX, NODE_LIMIT, seed)
                        .map_err(|reason| self.damaged(reason))?;
                    index.nodes.push(block);
                    index.leaves.extend(below.iter().enumerate().map(|(position, &(own, block))| {
                        IndexedLeaf { hash: if position == 0 { hash } else { own }, block, node }
                    }));
                }
            }
            _ => return Err(self.damaged("its index has more levels than this builder writes")),
        }
        let leaves = &index.leaves;
        if leaves.len() + index.nodes.len() + 1 != self.blocks as usize
            || leaves.windows(2).any(|pair| pair[0].hash & !1 > pair[1].hash)
        {
            return Err(self.damaged("its index is out of order or does not hold all of its blocks"));
        }
        Ok(index)
    }

    /// Visits the entries of one leaf, without the dots.
    pub(crate) fn visit(&self, logical: u32, visit: &mut dyn FnMut(DirEntry<'_>)) -> Result<(), BelowError> {
        let block = self.block(logical)?;
        visit_leaf(&block, self.below.seed(self.number), &mut |entry| {
            if !matches!(entry.name, b"." | b"..") {
                visit(entry);
            }
        })
        .map_err(|reason| self.damaged(reason))
    }

    /// Logical blocks of all leaves.
    pub(crate) fn leaves(&self) -> Vec<u32> {
        self.index
            .as_ref()
            .map_or_else(|| vec![0], |index| index.leaves.iter().map(|leaf| leaf.block).collect())
    }

    /// Looks a name up: inode number and file type.
    pub(crate) fn find(&self, name: &[u8]) -> Result<Option<(u32, u8)>, BelowError> {
        let leaves = match &self.index {
            None => vec![0],
            Some(index) => {
                let hash = hash(name, &self.below.ids.hash_words());
                index.candidates(hash).map(|position| index.leaves[position].block).collect()
            }
        };
        let mut found = None;
        for leaf in leaves {
            self.visit(leaf, &mut |entry| {
                if entry.name == name {
                    found = Some((entry.inode, entry.file_type));
                }
            })?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }
}
