//! Builds ext4 disk images, and deltas over them, from OCI layers: deterministic, streamed, without privileges.
//!
//! | function | takes | gives |
//! | --- | --- | --- |
//! | [`build`](build()) | the layers of an image, lowest first | a whole disk image |
//! | [`build_delta`] | further layers, and the file system below them | the blocks that they change on it |
//! | [`segment_ends`] | the sizes of an image's layers | the cuts between image and deltas |
//! | [`list_files`] | a disk image, or a chain of deltas | its files as their inodes describe them |
//! | [`read_identity`], [`read_chain_identity`] | a disk image, a chain of deltas | the identity that it was built with |
//!
//! # Whole images
//!
//! [`build`](build()) writes file contents to their place as they decompress; nothing is extracted elsewhere, and the
//! metadata follows once the last layer has been merged. Whiteouts, hard links across layers, extended attributes,
//! devices and names of any bytes mean what they mean to `umoci unpack`.
//!
//! # Deltas
//!
//! Images that share layers can share disk: [`build_delta`] applies the further layers of one to the file system that
//! the common ones make. It reads directories, inodes and bitmaps where the layers reach into them, keeps the blocks
//! and inode numbers of everything else, and passes on the blocks that change. Time and memory follow the new layers.
//! The result is what [`build`](build()) makes of all layers, but for places: of blocks, of inodes, of names in large
//! directories. Deltas can stand on deltas.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::io::{self, Cursor};
//! use std::ops::ControlFlow;
//!
//! use boxlite_ext4::{
//!     BLOCK_SIZE, BlockSink, BuildOptions, DeltaOptions, LayerSource, build, build_delta, expected_uuid, read_identity,
//! };
//! use sha2::{Digest, Sha256};
//!
//! /// Changed blocks by number; a real sink makes a file of them.
//! #[derive(Default)]
//! struct Changed(BTreeMap<u64, Vec<u8>>);
//!
//! impl BlockSink for Changed {
//!     fn write_blocks(&mut self, first: u64, blocks: &[u8]) -> io::Result<()> {
//!         self.0.extend((first..).zip(blocks.chunks(BLOCK_SIZE).map(<[u8]>::to_vec)));
//!         Ok(())
//!     }
//!
//!     fn discard_blocks(&mut self, first: u64, count: u64) -> io::Result<()> {
//!         self.0.retain(|block, _| !(first..first + count).contains(block));
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // An empty archive: two blocks of zeros. A real layer comes from a registry, mostly as gzip.
//! let layer = |label: &str| {
//!     let tar = vec![0; 1024];
//!     let diff_id = Sha256::digest(&tar).into();
//!     LayerSource { reader: Box::new(Cursor::new(tar)), label: label.to_owned(), diff_id, blob_digest: None }
//! };
//! let image = tempfile::tempfile()?;
//! let identity = [7; 32];
//! let options = BuildOptions { virtual_size: 64 << 20, ..BuildOptions::new(identity) };
//! let report = build(vec![layer("1 of 2")], &image, &options, &mut |_| ControlFlow::Continue(()))?;
//! assert_eq!(report.inodes, 1);
//! assert_eq!(read_identity(&image)?.uuid, expected_uuid(&identity));
//!
//! let mut changed = Changed::default();
//! let options = DeltaOptions::new(identity, [8; 32]);
//! build_delta(&image, vec![layer("2 of 2")], &mut changed, &options, &mut |_| ControlFlow::Continue(()))?;
//! // An empty layer changes nothing but the identity in the superblock.
//! assert_eq!(changed.0.into_keys().collect::<Vec<_>>(), [0]);
//! # Ok(())
//! # }
//! ```
//!
//! # Determinism
//!
//! The same layers with the same [`BuildOptions`] give the same bytes, on any machine and at any speed; the same layers
//! over the same file system with the same [`DeltaOptions`] give the same calls of the [`BlockSink`].
//! [`BUILDER_VERSION`] changes whenever the bytes would.
//!
//! # Limits
//!
//! Layers are hostile input. [`BuildError`] lists every cause of refusal; [`LayerLimits`] bounds what they may ask for. The file
//! system below a delta is verified as far as it is read: [`BelowError`].
//!
//! # I/O
//!
//! The crate reads layers and blocks from what it is given and writes to what it is given, and does no other I/O. Names,
//! durability and publishing are the caller's.

mod below;
mod block_sum;
mod build;
mod change;
mod content;
mod delta;
mod error;
mod format;
mod identity;
mod listing;
mod merge;
mod metadata;
mod segments;
mod source;
mod stream;
mod tar;
mod tree;
mod whole;
mod writer;

use std::io::Read;

pub use block_sum::BlockSum;
pub use build::{build, estimate_allocated};
pub use delta::{DeltaOptions, DeltaReport, build_delta};
pub use error::{BelowError, BuildError, BuildErrorKind, IdentityError};
pub use identity::{FilesystemIdentity, expected_uuid, read_chain_identity, read_identity};
pub use listing::{ListedFile, list_files};
pub use segments::{SEGMENT_RULE, segment_ends};
pub use source::{BlockSink, BlockSource};

/// Bytes per block of the file systems that this builder makes.
pub const BLOCK_SIZE: usize = 4096;

/// Version of the bytes that this builder makes, of images and of deltas: it changes whenever the same layers would give
/// other bytes. [`SEGMENT_RULE`] is the version of the cuts.
///
/// The UUID of the file system is derived from it, so an image of another version has another identity.
pub const BUILDER_VERSION: u32 = 1;

/// One layer of an image: a tar archive, plain or compressed with gzip or zstd, told apart by its first bytes.
pub struct LayerSource {
    /// The blob's bytes, from its start.
    pub reader: Box<dyn Read + Send>,
    /// Names the layer in messages: its place and digest.
    pub label: String,
    /// SHA-256 that the uncompressed tar must have.
    pub diff_id: [u8; 32],
    /// SHA-256 that the blob itself must have; `None` leaves the blob unverified.
    pub blob_digest: Option<[u8; 32]>,
}

impl std::fmt::Debug for LayerSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LayerSource")
            .field("label", &self.label)
            .field("diff_id", &hex::encode(self.diff_id))
            .field("blob_digest", &self.blob_digest.map(hex::encode))
            .finish_non_exhaustive()
    }
}

/// Size and identity of a disk image, and limits on its layers.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Virtual size of the block device in bytes, from 32 MiB to 16 TiB; most of it stays a hole.
    pub virtual_size: u64,
    /// Limits on the layers.
    pub limits: LayerLimits,
    /// Digest of everything the image is made of: UUID and hash seed of the file system are derived from it.
    pub identity: [u8; 32],
}

impl BuildOptions {
    /// Options with a virtual size of 10 GiB and the default limits.
    pub fn new(identity: [u8; 32]) -> Self {
        Self { virtual_size: 10 << 30, limits: LayerLimits::default(), identity }
    }
}

/// Limits on what the layers of one build may ask for.
#[derive(Debug, Clone)]
pub struct LayerLimits {
    /// Most bytes that all layers together may decompress to.
    pub max_expanded: u64,
    /// Most entries of all layers together, implied directories included.
    pub max_entries: u64,
    /// Most bytes of names, links, attributes and extents that may be held in memory until the end.
    pub max_metadata: u64,
}

/// 64 GiB expanded, 2 million entries, 512 MiB of metadata.
impl Default for LayerLimits {
    fn default() -> Self {
        Self { max_expanded: 64 << 30, max_entries: 2_000_000, max_metadata: 512 << 20 }
    }
}

/// Progress of a build, for its observer.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BuildProgress {
    /// Layers finished.
    pub layers: usize,
    /// Bytes read so far, uncompressed, of all layers.
    pub expanded: u64,
    /// Bytes written so far: an upper bound of the bytes allocated.
    pub written: u64,
}

/// Figures of a finished build.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuildReport {
    /// UUID of the file system.
    pub uuid: [u8; 16],
    /// Entries read from all layers, whiteouts included.
    pub entries: u64,
    /// Inodes in the image, the root included.
    pub inodes: u64,
    /// Directories among them.
    pub directories: u64,
    /// Inodes that are free.
    pub free_inodes: u64,
    /// Length of all files in bytes, holes included.
    pub content: u64,
    /// Bytes read from all layers, uncompressed.
    pub expanded: u64,
    /// Bytes read from each layer, uncompressed, lowest first: what [`segment_ends`] takes.
    pub layers: Vec<u64>,
    /// Bytes written to the image, those given back since included: an upper bound of the bytes it has allocated,
    /// except for the metadata of the file system that stores it.
    pub written: u64,
    /// Free space inside the file system in bytes.
    pub free: u64,
}

/// Test code that is shared with the integration tests names the crate from outside.
#[cfg(test)]
extern crate self as boxlite_ext4;
