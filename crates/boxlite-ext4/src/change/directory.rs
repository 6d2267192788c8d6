//! Changes the names of a directory below: leaf by leaf, so that the other leaves stay as they are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::below::{DirectoryFile, DirectoryIndex, FilesystemBelow, IndexedLeaf};
use crate::error::BelowError;
use crate::format::directory::{
    DIRECTORY_TYPE, DirEntry, DirectoryBlocks, LEAF_SPACE, NODE_LIMIT, ROOT_LIMIT, by_hash, fill_node,
    fill_root, leaf, record_length, split,
};
use crate::format::dirhash::hash;
use crate::format::{BLOCK, Checksum};

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

/// Names of a leaf or of a directory: inode and file type of each.
type NameMap = BTreeMap<Vec<u8>, (u32, u8)>;

fn read_leaf(file: &DirectoryFile<'_>, block: u32, names: &mut NameMap) -> Result<(), BelowError> {
    file.visit(block, &mut |entry| {
        names.insert(entry.name.to_vec(), (entry.inode, entry.file_type));
    })
}

/// Makes a name mean what it is to mean; returns the change in subdirectories, or `None` if it meant that already.
fn apply(names: &mut NameMap, change: &NameChange<'_>) -> Option<i64> {
    let before = match change.to {
        Some(to) => names.insert(change.name.to_vec(), to),
        None => names.remove(change.name),
    };
    let directories =
        |to: Option<(u32, u8)>| i64::from(to.is_some_and(|(_, file_type)| file_type == DIRECTORY_TYPE));
    (before != change.to).then(|| directories(change.to) - directories(before))
}

/// The entries for names.
pub(super) fn entries(names: &NameMap) -> Vec<DirEntry<'_>> {
    names.iter().map(|(name, &(inode, file_type))| DirEntry { name, inode, file_type }).collect()
}

/// All names of a directory with changes applied, and the change in subdirectories.
pub(super) fn all_names(
    file: &DirectoryFile<'_>,
    changes: &[NameChange<'_>],
) -> Result<(NameMap, i64), BelowError> {
    let mut names = NameMap::new();
    for block in file.leaves() {
        read_leaf(file, block, &mut names)?;
    }
    let subdirectories = changes.iter().filter_map(|change| apply(&mut names, change)).sum();
    Ok((names, subdirectories))
}

/// A leaf being changed.
#[derive(Default)]
struct OpenLeaf {
    names: NameMap,
    changed: bool,
}

/// Changes an indexed directory in place; `None` if its index has no room left and it must be laid out anew.
pub(super) fn change_indexed(
    below: &FilesystemBelow<'_>,
    file: &DirectoryFile<'_>,
    index: &DirectoryIndex,
    parent: u32,
    changes: &[NameChange<'_>],
) -> Result<Option<ChangedDirectory>, BelowError> {
    let hash_seed = below.ids.hash_words();
    let mut open: BTreeMap<usize, OpenLeaf> = BTreeMap::new();
    let mut subdirectories = 0;
    for change in changes {
        let candidates = index.candidates(hash(change.name, &hash_seed));
        let mut place = candidates.start;
        for position in candidates {
            let leaf = match open.entry(position) {
                Entry::Occupied(leaf) => leaf.into_mut(),
                Entry::Vacant(vacant) => {
                    let mut leaf = OpenLeaf::default();
                    read_leaf(file, index.leaves[position].block, &mut leaf.names)?;
                    vacant.insert(leaf)
                }
            };
            if leaf.names.contains_key(change.name) {
                place = position;
                break;
            }
        }
        let leaf = open.entry(place).or_default();
        if let Some(came) = apply(&mut leaf.names, change) {
            subdirectories += came;
            leaf.changed = true;
        }
    }
    let mut layout = NewLayout {
        seed: below.seed(file.number),
        next: file.blocks,
        blocks: BTreeMap::new(),
        leaves: Vec::new(),
    };
    for (position, &known) in index.leaves.iter().enumerate() {
        match open.get(&position).filter(|leaf| leaf.changed) {
            None => layout.leaves.push(known),
            Some(leaf) => layout.leaf(&leaf.names, known, &hash_seed),
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
    leaves: Vec<IndexedLeaf>,
}

impl NewLayout {
    fn block(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    /// Writes a leaf back, split where it does not fit its block any more.
    fn leaf(&mut self, names: &NameMap, known: IndexedLeaf, hash_seed: &[u32; 4]) {
        let entries = entries(names);
        let hashed = by_hash(&entries, hash_seed);
        let total: usize = entries.iter().map(|entry| record_length(entry.name)).sum();
        let ends = if total <= LEAF_SPACE { vec![hashed.len()] } else { split(&hashed) };
        let mut start = 0;
        for end in ends {
            let run = &hashed[start..end];
            let mut place = known;
            if start > 0 {
                // A leaf that begins inside a run of equal hashes says so in the lowest bit.
                let continued = hashed[start - 1].0 == run[0].0;
                place.hash = run[0].0 | u32::from(continued);
                place.block = self.block();
            }
            let mut bytes = vec![0; BLOCK];
            leaf(&mut bytes, run.iter().map(|(_, entry)| *entry), self.seed);
            self.blocks.insert(place.block, bytes);
            self.leaves.push(place);
            start = end;
        }
    }

    /// Writes root and inner nodes; `None` if they cannot hold all leaves.
    fn index(&mut self, nodes: &[u32], own: u32, parent: u32) -> Option<()> {
        let mut top: Vec<(u32, u32)> = Vec::new();
        let leaves = std::mem::take(&mut self.leaves);
        let levels = u8::from(!nodes.is_empty() || leaves.len() > ROOT_LIMIT);
        if levels == 0 {
            top.extend(leaves.iter().map(|leaf| (leaf.hash, leaf.block)));
        } else {
            let groups = leaves.chunk_by(|left, right| left.node == right.node);
            for group in groups {
                // Halves, so that both have room for more.
                let fits = group.len() <= NODE_LIMIT;
                let most = if fits { NODE_LIMIT } else { group.len().div_ceil(2).min(NODE_LIMIT) };
                for (number, run) in group.chunks(most).enumerate() {
                    let place = match nodes.get(run[0].node) {
                        Some(&place) if number == 0 => place,
                        _ => self.block(),
                    };
                    let run: Vec<_> = run.iter().map(|leaf| (leaf.hash, leaf.block)).collect();
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
