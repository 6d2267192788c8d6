//! Deltas: qcow2 files that hold the blocks which an image's further layers change on the filesystem below.
//!
//! # Layout
//!
//! ```text
//! cluster 0        header, extensions, name of the file below
//! 1 …              data, in the order in which it was first written; holes where it was discarded since
//! metadata_at …    L2 tables by position, L1 table, refcount table, refcount blocks, to the end of the file
//! ```
//!
//! A cluster is one block of the filesystem, so that a change of a few bytes costs 4 KiB and nothing needs to be
//! copied up from below. Blocks of zeros take an entry and no cluster.
//!
//! # Damage
//!
//! An extension of the header that qcow2 readers skip holds the length of the file, the SHA-256 of the header and of all
//! metadata, and that of the contents. Opening a delta verifies all but the contents, and the superblock that every
//! delta holds has a checksum of its own. The contents are verified at the first use after the file may have changed
//! ([`Delta::verify_contents`]).
//!
//! # Determinism
//!
//! The bytes are a function of the calls of the [`BlockSink`](boxlite_ext4::BlockSink) and of the name below, which is
//! relative, so that they are the same in every home.

mod contents;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use sha2::{Digest as _, Sha256};

pub(crate) use reader::{ChainSource, DataCursor, Delta, DeltaTables};
pub(crate) use writer::DeltaWriter;

/// Bytes per cluster: those of a block.
pub(crate) const CLUSTER: u64 = boxlite_ext4::BLOCK_SIZE as u64;

/// Entries of an L2 table, which fills a cluster.
const PER_TABLE: u64 = CLUSTER / 8;

/// The longest disk, in bytes, for which QEMU reads an L1 table in clusters of this size.
pub(crate) const MAX_VIRTUAL: u64 = 8 << 40;

/// The cluster is reached through this entry alone (refcount 1).
const COPIED: u64 = 1 << 63;
/// The block reads as zeros.
const ZERO: u64 = 1;
/// The bits of an entry that are an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Where the header ends and its extensions begin.
const EXTENSIONS_AT: usize = 104;
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// Our extension: "blxd".
const SEAL: u32 = 0x626c_7864;
/// Where the extension's data lies: first comes the backing format, padded to 8 bytes.
const SEAL_AT: usize = EXTENSIONS_AT + 16 + 8;
/// Offset of the metadata, length of the file, SHA-256 of header and metadata, SHA-256 of the contents.
const SEAL_LENGTH: usize = 8 + 8 + 32 + 32;
/// The same in deltas that were made before they held a sum of their contents.
const SEAL_LENGTH_WITHOUT_CONTENTS: usize = SEAL_LENGTH - 32;
/// Where the sum of header and metadata lies.
const SUM_AT: usize = SEAL_AT + 16;
/// Where the sum of the contents lies.
const CONTENT_SUM_AT: usize = SUM_AT + 32;

/// The SHA-256 of the first cluster, with the place of the sum itself zeroed, and of the metadata.
fn seal(head: &[u8], metadata: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(&head[..SUM_AT]);
    hasher.update([0; 32]);
    hasher.update(&head[SUM_AT + 32..]);
    hasher.update(metadata);
    hasher.finalize().into()
}

/// The number of L1 entries for a disk of `blocks` blocks.
fn l1_entries(blocks: u64) -> u64 {
    blocks.div_ceil(PER_TABLE)
}
