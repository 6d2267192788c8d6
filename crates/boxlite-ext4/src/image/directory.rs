//! Directory blocks: one linear block, or a hash index (`dx_root`, `dx_node`) over leaves.

use super::checksum::Checksum;
use super::dirhash::hash;
use super::{BLOCK, put};

/// Bytes of a checksum tail, in leaves as a fake entry.
const TAIL: usize = 12;
/// Bytes of a leaf that new indexes use, so that a first insertion does not split every leaf.
const FILLED: usize = (BLOCK - TAIL) / 8 * 7;
const FAKE_TYPE: u8 = 0xde;
const DIRECTORY_TYPE: u8 = 2;
const HALF_MD4: u8 = 1;

/// Where the entries of the index start, and how many fit.
const ROOT_INDEX: usize = 32;
const ROOT_LIMIT: usize = (BLOCK - ROOT_INDEX - 8) / 8;
const NODE_INDEX: usize = 8;
const NODE_LIMIT: usize = (BLOCK - NODE_INDEX - 8) / 8;

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
    let mut hashed: Vec<_> = entries.iter().map(|entry| (hash(entry.name, hash_seed), entry)).collect();
    hashed.sort_unstable_by(|(left, a), (right, b)| left.cmp(right).then_with(|| a.name.cmp(b.name)));
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
            let node = &mut bytes[block * BLOCK..(block + 1) * BLOCK];
            put!(node, 4, BLOCK as u16);
            fill_index(node, NODE_INDEX, NODE_LIMIT, run, seed);
        }
        index = above;
    }
    let root = &mut bytes[..BLOCK];
    entry(&mut root[..12], &DirEntry { name: b".", inode: own, file_type: DIRECTORY_TYPE }, 12);
    let dots = DirEntry { name: b"..", inode: parent, file_type: DIRECTORY_TYPE };
    entry(&mut root[12..], &dots, BLOCK - 12);
    root[28] = HALF_MD4;
    root[29] = 8;
    root[30] = levels as u8;
    fill_index(root, ROOT_INDEX, ROOT_LIMIT, &index, seed);
    Some(DirectoryBlocks { bytes, indexed: true })
}

/// Where each leaf ends in the list.
fn split(hashed: &[(u32, &DirEntry<'_>)]) -> Vec<usize> {
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

fn record_length(name: &[u8]) -> usize {
    (8 + name.len()).next_multiple_of(4)
}

fn entry(place: &mut [u8], entry: &DirEntry<'_>, length: usize) {
    put!(place, 0, entry.inode);
    put!(place, 4, length as u16);
    place[6] = entry.name.len() as u8;
    place[7] = entry.file_type;
    place[8..8 + entry.name.len()].copy_from_slice(entry.name);
}

fn leaf<'a>(block: &mut [u8], entries: impl Iterator<Item = &'a DirEntry<'a>>, seed: Checksum) {
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
