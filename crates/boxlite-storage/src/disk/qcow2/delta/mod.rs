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
//! An extension of the header that qcow2 readers skip, the seal, holds the length of the file, the sum of the header and
//! of all metadata, and that of the contents. Opening a delta verifies all but the contents, and the superblock that every
//! delta holds has a checksum of its own. The contents are verified at the first use after the file may have changed
//! ([`Delta::verify_contents`]). The type of the extension says by which function the sums are made ([`Seal`]).
//!
//! # Determinism
//!
//! The bytes are a function of the calls of the [`BlockSink`](boxlite_ext4::BlockSink) and of the name below, which is
//! relative, so that they are the same in every home. A delta that an earlier boxlite made differs in its seal, and in
//! nothing that a reader of the disk sees.

mod contents;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use reader::{ChainSource, DataCursor, Delta, DeltaTables};
pub(crate) use writer::DeltaWriter;

use crate::disk::damage_sum::{DamageSum, SumKind, Summer};

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
/// Where the seal's data lies: first comes the backing format, padded to 8 bytes.
const SEAL_AT: usize = EXTENSIONS_AT + 16 + 8;
/// Where the sum of header and metadata lies, behind the offset of the metadata and the length of the file.
const SUM_AT: usize = SEAL_AT + 16;
/// The most bytes of a seal's data.
const MAX_SEAL: usize = 16 + 2 * SumKind::Sha256.length();

/// Which sums a delta has of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seal {
    /// XXH3 of header and metadata, and of the contents.
    Current,
    /// SHA-256 of both, as an earlier boxlite wrote them.
    Sha256,
    /// SHA-256 of header and metadata alone, as the first deltas had it.
    WithoutContents,
}

impl Seal {
    const ALL: [Self; 3] = [Self::Current, Self::Sha256, Self::WithoutContents];

    /// The seal of a delta with this header.
    fn of(head: &[u8]) -> Option<Self> {
        let found = head.get(SEAL_AT - 8..SEAL_AT)?;
        Self::ALL.into_iter().find(|seal| {
            found == [seal.extension().to_be_bytes(), (seal.length() as u32).to_be_bytes()].as_flattened()
        })
    }

    /// The type of the extension.
    fn extension(self) -> u32 {
        match self {
            Self::Current => u32::from_be_bytes(*b"blxs"),
            Self::Sha256 | Self::WithoutContents => u32::from_be_bytes(*b"blxd"),
        }
    }

    fn kind(self) -> SumKind {
        match self {
            Self::Current => SumKind::Xxh3,
            Self::Sha256 | Self::WithoutContents => SumKind::Sha256,
        }
    }

    /// Bytes of the extension's data.
    fn length(self) -> usize {
        let sums = if self == Self::WithoutContents { 1 } else { 2 };
        16 + sums * self.kind().length()
    }

    /// Where the sum of the contents lies, if there is one.
    fn content_sum_at(self) -> Option<usize> {
        (self != Self::WithoutContents).then_some(SUM_AT + self.kind().length())
    }

    /// The sum of the first cluster, with the place of the sum itself zeroed, and of the metadata.
    fn sum(self, head: &[u8], metadata: &[u8]) -> DamageSum {
        let (mut summer, length) = (Summer::new(self.kind()), self.kind().length());
        summer.update(&head[..SUM_AT]);
        summer.update(&[0; MAX_SEAL][..length]);
        summer.update(&head[SUM_AT + length..]);
        summer.update(metadata);
        summer.finish()
    }
}

/// The number of L1 entries for a disk of `blocks` blocks.
fn l1_entries(blocks: u64) -> u64 {
    blocks.div_ceil(PER_TABLE)
}
