//! Directory blocks: one linear block, or a hash index (`dx_root`, `dx_node`) over leaves.

use super::checksum::Checksum;
use super::dirhash::hash;
use super::{BLOCK, put};

/// Bytes of a checksum tail, in leaves as a fake entry.
const TAIL: usize = 12;
/// Bytes of a leaf that entries can fill.
pub(crate) const LEAF_SPACE: usize = BLOCK - TAIL;
/// Bytes of a leaf that new indexes use, so that a first insertion does not split every leaf.
pub(crate) const FILLED: usize = (BLOCK - TAIL) / 8 * 7;
const FAKE_TYPE: u8 = 0xde;
/// File type code of a directory.
pub(crate) const DIRECTORY_TYPE: u8 = 2;
const HALF_MD4: u8 = 1;

/// Offset of the index entries in their block, and how many fit.
pub(crate) const ROOT_INDEX: usize = 32;
pub(crate) const ROOT_LIMIT: usize = (BLOCK - ROOT_INDEX - 8) / 8;
pub(crate) const NODE_INDEX: usize = 8;
pub(crate) const NODE_LIMIT: usize = (BLOCK - NODE_INDEX - 8) / 8;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DirEntry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) inode: u32,
    /// File type code of the entry.
    pub(crate) file_type: u8,
}

/// All blocks of a directory, and whether they are indexed.
#[derive(Debug)]
pub(crate) struct DirectoryBlocks {
    pub(crate) bytes: Vec<u8>,
    pub(crate) indexed: bool,
}

/// Lays a directory out; `None` if it has more names than a two-level index can hold.
pub(crate) fn lay_out(
    entries: &[DirEntry<'_>],
    own: u32,
    parent: u32,
    hash_seed: &[u32; 4],
    seed: Checksum,
) -> Option<DirectoryBlocks> {
    let total: usize = 24 + entries.iter().map(|entry| record_length(entry.name)).sum::<usize>();
    if total <= BLOCK - TAIL {
        let dots = [(&b"."[..], own), (&b".."[..], parent)].map(|(name, inode)| DirEntry {
            name,
            inode,
            file_type: DIRECTORY_TYPE,
        });
        let mut bytes = vec![0; BLOCK];
        leaf(&mut bytes, dots.iter().chain(entries), seed);
        return Some(DirectoryBlocks { bytes, indexed: false });
    }
    let hashed = by_hash(entries, hash_seed);
    let leaves = split(&hashed);
    let levels: usize = match leaves.len() {
        0..=ROOT_LIMIT => 0,
        count if count <= ROOT_LIMIT * NODE_LIMIT => 1,
        _ => return None,
    };
    let nodes = if levels == 0 { 0 } else { leaves.len().div_ceil(NODE_LIMIT) };
    let mut bytes = vec![0; (1 + nodes + leaves.len()) * BLOCK];
    let mut index = Vec::with_capacity(leaves.len());
    let mut previous = None;
    let mut start = 0;
    for (number, &end) in leaves.iter().enumerate() {
        let block = 1 + nodes + number;
        let run = &hashed[start..end];
        // A leaf that begins inside a run of equal hashes says so in the lowest bit.
        let continued = previous == Some(run[0].0);
        index.push((run[0].0 | u32::from(continued), block as u32));
        leaf(&mut bytes[block * BLOCK..(block + 1) * BLOCK], run.iter().map(|(_, entry)| *entry), seed);
        previous = run.last().map(|(hash, _)| *hash);
        start = end;
    }
    if levels == 1 {
        let mut above = Vec::with_capacity(nodes);
        for (number, run) in index.chunks(NODE_LIMIT).enumerate() {
            let block = 1 + number;
            above.push((run[0].0, block as u32));
            fill_node(&mut bytes[block * BLOCK..(block + 1) * BLOCK], run, seed);
        }
        index = above;
    }
    fill_root(&mut bytes[..BLOCK], own, parent, levels as u8, &index, seed);
    Some(DirectoryBlocks { bytes, indexed: true })
}

/// Entries with the hashes of their names, in the order of an index.
pub(crate) fn by_hash<'a, 'n>(
    entries: &'a [DirEntry<'n>],
    hash_seed: &[u32; 4],
) -> Vec<(u32, &'a DirEntry<'n>)> {
    let mut hashed: Vec<_> = entries.iter().map(|entry| (hash(entry.name, hash_seed), entry)).collect();
    hashed.sort_unstable_by(|(left, a), (right, b)| left.cmp(right).then_with(|| a.name.cmp(b.name)));
    hashed
}

/// Returns the position in the list at which each leaf ends.
pub(crate) fn split(hashed: &[(u32, &DirEntry<'_>)]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut filled = 0;
    for (position, (_, entry)) in hashed.iter().enumerate() {
        let length = record_length(entry.name);
        if filled + length > FILLED {
            ends.push(position);
            filled = 0;
        }
        filled += length;
    }
    ends.push(hashed.len());
    ends
}

pub(crate) fn record_length(name: &[u8]) -> usize {
    (8 + name.len()).next_multiple_of(4)
}

fn entry(place: &mut [u8], entry: &DirEntry<'_>, length: usize) {
    put!(place, 0, entry.inode);
    put!(place, 4, length as u16);
    place[6] = entry.name.len() as u8;
    place[7] = entry.file_type;
    place[8..8 + entry.name.len()].copy_from_slice(entry.name);
}

/// Fills a zeroed leaf with entries.
pub(crate) fn leaf<'a>(block: &mut [u8], entries: impl Iterator<Item = &'a DirEntry<'a>>, seed: Checksum) {
    let end = BLOCK - TAIL;
    let mut at = 0;
    let mut last = 0;
    for item in entries {
        let length = record_length(item.name);
        entry(&mut block[at..], item, length);
        last = at;
        at += length;
    }
    put!(block, last + 4, (end - last) as u16);
    put!(block, end + 4, TAIL as u16);
    block[end + 7] = FAKE_TYPE;
    let checksum = seed.over(&block[..end]).value();
    put!(block, end + 8, checksum);
}

/// Fills a zeroed block as the root of an index: the dots, then hashes and blocks of the level below.
pub(crate) fn fill_root(
    block: &mut [u8],
    own: u32,
    parent: u32,
    levels: u8,
    index: &[(u32, u32)],
    seed: Checksum,
) {
    entry(&mut block[..12], &DirEntry { name: b".", inode: own, file_type: DIRECTORY_TYPE }, 12);
    let dots = DirEntry { name: b"..", inode: parent, file_type: DIRECTORY_TYPE };
    entry(&mut block[12..], &dots, BLOCK - 12);
    block[28] = HALF_MD4;
    block[29] = 8;
    block[30] = levels;
    fill_index(block, ROOT_INDEX, ROOT_LIMIT, index, seed);
}

/// Fills a zeroed block as an inner node of an index.
pub(crate) fn fill_node(block: &mut [u8], index: &[(u32, u32)], seed: Checksum) {
    put!(block, 4, BLOCK as u16);
    fill_index(block, NODE_INDEX, NODE_LIMIT, index, seed);
}

/// An index block: limit and count take the place of the first entry's hash, which is 0 by definition.
fn fill_index(block: &mut [u8], start: usize, limit: usize, index: &[(u32, u32)], seed: Checksum) {
    for (number, (hash, target)) in index.iter().enumerate() {
        put!(block, start + number * 8, *hash);
        put!(block, start + number * 8 + 4, *target);
    }
    put!(block, start, limit as u16);
    put!(block, start + 2, index.len() as u16);
    let checksum = seed.over(&block[..start + index.len() * 8]).over(&[0; 8]).value();
    put!(block, start + limit * 8 + 4, checksum);
}

/// Reads an index block that starts at `start` with room for `limit` entries: hash and block of each.
pub(crate) fn parse_index(
    block: &[u8],
    start: usize,
    limit: usize,
    seed: Checksum,
) -> Result<Vec<(u32, u32)>, &'static str> {
    let half = |at: usize| usize::from(u16::from_le_bytes([block[at], block[at + 1]]));
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let count = half(start + 2);
    if half(start) != limit || count == 0 || count > limit {
        return Err("the counts of a directory index are wrong");
    }
    let checksum = seed.over(&block[..start + count * 8]).over(&[0; 8]).value();
    if word(start + limit * 8 + 4) != checksum {
        return Err("the checksum of a directory index is wrong");
    }
    let entries = (0..count).map(|number| {
        let at = start + number * 8;
        (if number == 0 { 0 } else { word(at) }, word(at + 4))
    });
    Ok(entries.collect())
}

/// Visits the entries of a leaf, the dots among them.
pub(crate) fn visit_leaf<'a>(
    block: &'a [u8],
    seed: Checksum,
    visit: &mut dyn FnMut(DirEntry<'a>),
) -> Result<(), &'static str> {
    let half = |at: usize| usize::from(u16::from_le_bytes([block[at], block[at + 1]]));
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if half(LEAF_SPACE + 4) != TAIL || word(LEAF_SPACE + 8) != seed.over(&block[..LEAF_SPACE]).value() {
        return Err("the checksum of a directory leaf is wrong");
    }
    let mut at = 0;
    while at < LEAF_SPACE {
        let (inode, length, name) = (word(at), half(at + 4), usize::from(block[at + 6]));
        if length < 8 + name || length % 4 != 0 || length > LEAF_SPACE - at || LEAF_SPACE - at < 8 {
            return Err("an entry of a directory leaf has a wrong length");
        }
        if inode != 0 {
            visit(DirEntry { name: &block[at + 8..at + 8 + name], inode, file_type: block[at + 7] });
        }
        at += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Mutation tried: the bit not set; fails.
    #[test]
    fn a_leaf_that_begins_among_equal_hashes_says_so() {
        let seed = [1, 2, 3, 4];
        let mut seen = HashMap::new();
        let (first, second) = (0_u32..)
            .find_map(|number| {
                let name = format!("name-{number}");
                seen.insert(hash(name.as_bytes(), &seed), name.clone()).map(|other| (other, name))
            })
            .expect("31 bits collide soon");
        let shared = hash(first.as_bytes(), &seed);
        let mut names: Vec<_> =
            seen.into_iter().filter(|(hash, _)| *hash < shared).map(|(_, name)| name).collect();
        // Fillers of one length below the pair: one of them more or fewer moves the pair over a leaf's border.
        names.sort();
        let length = record_length(first.as_bytes());
        names.retain(|name| record_length(name.as_bytes()) == length);
        let per_leaf = FILLED / length;
        names.truncate(per_leaf * 2 - 1);
        names.extend([first, second]);
        let entries: Vec<_> =
            names.iter().map(|name| DirEntry { name: name.as_bytes(), inode: 12, file_type: 1 }).collect();
        let blocks = lay_out(&entries, 11, 2, &seed, Checksum::start()).unwrap();
        assert!(blocks.indexed);
        let at = ROOT_INDEX + 2 * 8;
        let index: [u8; 4] = blocks.bytes[at..at + 4].try_into().unwrap();
        assert_eq!(u32::from_le_bytes(index), shared | 1);
    }
}
