//! Changes the names of a directory below: leaf by leaf, so that the other leaves stay as they are.

use std::collections::BTreeMap;

use crate::below::{Below, DirectoryFile, DirectoryIndex};
use crate::error::BelowError;
use crate::image::directory::{
    DIRECTORY_TYPE, DirEntry, DirectoryBlocks, LEAF_SPACE, NODE_LIMIT, ROOT_LIMIT, by_hash, fill_node,
    fill_root, leaf, record_length, split,
};
use crate::image::dirhash::hash;
use crate::image::{BLOCK, Checksum};

/// A name that is to mean an inode of a type, or nothing.
pub(super) struct NameChange<'a> {
    pub(super) name: &'a [u8],
    pub(super) to: Option<(u32, u8)>,
}

/// New blocks of a directory, by their logical number, ascending.
#[derive(Debug)]
pub(super) struct ChangedDirectory {
    pub(super) blocks: Vec<(u32, Vec<u8>)>,
    /// Length in blocks.
    pub(super) length: u32,
    pub(super) indexed: bool,
    /// Subdirectories that came, less those that went.
    pub(super) subdirectories: i64,
}

impl ChangedDirectory {
    /// A directory laid out anew.
    pub(super) fn whole(laid_out: &DirectoryBlocks, subdirectories: i64) -> Self {
        let blocks: Vec<_> = (0..).zip(laid_out.bytes.chunks_exact(BLOCK).map(<[u8]>::to_vec)).collect();
        Self { length: blocks.len() as u32, blocks, indexed: laid_out.indexed, subdirectories }
    }
}

/// An entry that owns its name.
#[derive(Debug, Clone)]
pub(super) struct OwnedEntry {
    pub(super) name: Vec<u8>,
    inode: u32,
    file_type: u8,
}

impl OwnedEntry {
    pub(super) fn borrowed(&self) -> DirEntry<'_> {
        DirEntry { name: &self.name, inode: self.inode, file_type: self.file_type }
    }
}

/// A leaf being changed.
#[derive(Default)]
struct OpenLeaf {
    entries: Vec<OwnedEntry>,
    changed: bool,
}

impl OpenLeaf {
    fn read(file: &DirectoryFile<'_>, block: u32) -> Result<Self, BelowError> {
        let mut entries = Vec::new();
        file.visit(block, &mut |entry| {
            let DirEntry { name, inode, file_type } = entry;
            entries.push(OwnedEntry { name: name.to_vec(), inode, file_type });
        })?;
        Ok(Self { entries, changed: false })
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        self.entries.iter().position(|entry| entry.name == name)
    }

    /// Applies a change to the name at a position, or adds it; returns the change in subdirectories.
    fn set(&mut self, position: Option<usize>, change: &NameChange<'_>) -> i64 {
        let directory = |file_type: u8| i64::from(file_type == DIRECTORY_TYPE);
        let before = position.map(|at| (self.entries[at].inode, self.entries[at].file_type));
        if before == change.to {
            return 0;
        }
        self.changed = true;
        match (position, change.to) {
            (Some(at), None) => {
                self.entries.remove(at);
            }
            (Some(at), Some((inode, file_type))) => {
                (self.entries[at].inode, self.entries[at].file_type) = (inode, file_type);
            }
            (None, Some((inode, file_type))) => {
                self.entries.push(OwnedEntry { name: change.name.to_vec(), inode, file_type });
            }
            (None, None) => {}
        }
        change.to.map_or(0, |(_, file_type)| directory(file_type))
            - before.map_or(0, |(_, file_type)| directory(file_type))
    }
}

/// All entries of a directory with changes applied, and the change in subdirectories.
pub(super) fn all_entries(
    file: &DirectoryFile<'_>,
    changes: &[NameChange<'_>],
) -> Result<(Vec<OwnedEntry>, i64), BelowError> {
    let mut by_name = BTreeMap::new();
    for block in file.leaves() {
        by_name.extend(
            OpenLeaf::read(file, block)?.entries.into_iter().map(|entry| (entry.name.clone(), entry)),
        );
    }
    let mut subdirectories = 0;
    for change in changes {
        let entries = by_name.remove(change.name).into_iter().collect::<Vec<_>>();
        let position = (!entries.is_empty()).then_some(0);
        let mut single = OpenLeaf { entries, changed: false };
        subdirectories += single.set(position, change);
        by_name.extend(single.entries.into_iter().map(|entry| (entry.name.clone(), entry)));
    }
    Ok((by_name.into_values().collect(), subdirectories))
}

/// Changes an indexed directory in place; `None` if its index has no room left and it must be laid out anew.
pub(super) fn change_indexed(
    below: &Below<'_>,
    file: &DirectoryFile<'_>,
    index: &DirectoryIndex,
    parent: u32,
    changes: &[NameChange<'_>],
) -> Result<Option<ChangedDirectory>, BelowError> {
    let seed = below.seed(file.number);
    let hash_seed = below.ids.hash_words();
    let mut open: BTreeMap<usize, OpenLeaf> = BTreeMap::new();
    let mut subdirectories = 0;
    for change in changes {
        let candidates = index.candidates(hash(change.name, &hash_seed));
        let mut place = (candidates.start, None);
        for position in candidates {
            let leaf = match open.entry(position) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(OpenLeaf::read(file, index.leaves[position].block)?)
                }
            };
            if let Some(found) = leaf.position(change.name) {
                place = (position, Some(found));
                break;
            }
        }
        subdirectories += open.entry(place.0).or_default().set(place.1, change);
    }
    let mut layout = NewLayout { seed, next: file.blocks, blocks: BTreeMap::new(), leaves: Vec::new() };
    for (position, known) in index.leaves.iter().enumerate() {
        match open.get(&position).filter(|leaf| leaf.changed) {
            None => layout.leaves.push((known.hash, known.block, known.node)),
            Some(leaf) => layout.leaf(leaf, (known.hash, known.block, known.node), &hash_seed),
        }
    }
    if layout.index(&index.nodes, file.number, parent).is_none() {
        return Ok(None);
    }
    Ok(Some(ChangedDirectory {
        length: layout.next,
        blocks: layout.blocks.into_iter().collect(),
        indexed: true,
        subdirectories,
    }))
}

/// The blocks of a directory as its leaves change and split.
struct NewLayout {
    seed: Checksum,
    /// Next logical block.
    next: u32,
    blocks: BTreeMap<u32, Vec<u8>>,
    /// Hash, block and inner node of every leaf.
    leaves: Vec<(u32, u32, usize)>,
}

impl NewLayout {
    fn block(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    /// Writes a leaf back, split where it does not fit its block any more.
    fn leaf(&mut self, open: &OpenLeaf, (least, block, node): (u32, u32, usize), hash_seed: &[u32; 4]) {
        let entries: Vec<_> = open.entries.iter().map(OwnedEntry::borrowed).collect();
        let hashed = by_hash(&entries, hash_seed);
        let total: usize = entries.iter().map(|entry| record_length(entry.name)).sum();
        let ends = if total <= LEAF_SPACE { vec![hashed.len()] } else { split(&hashed) };
        let mut start = 0;
        for (number, end) in ends.into_iter().enumerate() {
            let run = &hashed[start..end];
            let (hash, place) = if number == 0 {
                (least, block)
            } else {
                // A leaf that begins inside a run of equal hashes says so in the lowest bit.
                let continued = hashed[start - 1].0 == run[0].0;
                (run[0].0 | u32::from(continued), self.block())
            };
            let mut bytes = vec![0; BLOCK];
            leaf(&mut bytes, run.iter().map(|(_, entry)| *entry), self.seed);
            self.blocks.insert(place, bytes);
            self.leaves.push((hash, place, node));
            start = end;
        }
    }

    /// Writes root and inner nodes; `None` if they cannot hold all leaves.
    fn index(&mut self, nodes: &[u32], own: u32, parent: u32) -> Option<()> {
        let mut top: Vec<(u32, u32)> = Vec::new();
        let leaves = std::mem::take(&mut self.leaves);
        let levels = u8::from(!nodes.is_empty() || leaves.len() > ROOT_LIMIT);
        if levels == 0 {
            top.extend(leaves.iter().map(|&(hash, block, _)| (hash, block)));
        } else {
            let groups = leaves.chunk_by(|left, right| left.2 == right.2);
            for group in groups {
                // Halves, so that both have room for more.
                let most = if group.len() > NODE_LIMIT {
                    group.len().div_ceil(2).min(NODE_LIMIT)
                } else {
                    NODE_LIMIT
                };
                for (number, run) in group.chunks(most).enumerate() {
                    let place = match nodes.get(run[0].2) {
                        Some(&place) if number == 0 => place,
                        _ => self.block(),
                    };
                    let run: Vec<_> = run.iter().map(|&(hash, block, _)| (hash, block)).collect();
                    let mut bytes = vec![0; BLOCK];
                    fill_node(&mut bytes, &run, self.seed);
                    self.blocks.insert(place, bytes);
                    top.push((run[0].0, place));
                }
            }
        }
        if top.len() > ROOT_LIMIT {
            return None;
        }
        let mut root = vec![0; BLOCK];
        fill_root(&mut root, own, parent, levels, &top, self.seed);
        self.blocks.insert(0, root);
        Some(())
    }
}
