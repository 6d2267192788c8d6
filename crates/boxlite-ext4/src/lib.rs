//! OCI layers to one deterministic ext4 disk image, streamed and without privileges.
//!
//! [`build`] reads the layers of an image lowest first and writes one file: contents go straight to their place as
//! they decompress, nothing is extracted elsewhere, and the metadata follows once the last layer has been merged.
//! The same layers with the same [`BuildOptions`] give the same bytes, on any machine and at any speed.
//!
//! The crate does no I/O but reading the layers and writing the file it is given. Names, durability and publishing
//! are the caller's. Layers are hostile input: see [`BuildError`] for what is refused.

mod build;
mod error;
mod identity;
mod image;
mod stream;
mod tar;
mod tree;

use std::io::Read;

pub use build::{build, estimate_allocated};
pub use error::{BuildError, BuildErrorKind, IdentityError};
pub use identity::{Identity, expected_uuid, read_identity};

/// Version of the bytes this builder makes: it changes whenever the same layers would give other bytes.
///
/// It is part of what the file system's UUID is derived from, so an image of another version has another identity.
pub const BUILDER_VERSION: u32 = 1;

/// One layer of an image: a tar archive, plain or compressed by gzip or zstd, which its first bytes tell.
pub struct Layer {
    /// The blob's bytes, from its start.
    pub reader: Box<dyn Read + Send>,
    /// Names the layer in messages: its place and digest.
    pub label: String,
    /// SHA-256 that the uncompressed tar must have.
    pub diff_id: [u8; 32],
    /// SHA-256 that the blob itself must have, if it is to be verified too.
    pub blob_digest: Option<[u8; 32]>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Layer")
            .field("label", &self.label)
            .field("diff_id", &hex::encode(self.diff_id))
            .field("blob_digest", &self.blob_digest.map(hex::encode))
            .finish_non_exhaustive()
    }
}

/// What an image is to be, and how much its layers may ask for.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Size of the block device in bytes, virtual: most of it stays a hole. From 32 MiB to 16 TiB.
    pub virtual_size: u64,
    /// Most bytes that all layers together may decompress to.
    pub max_expanded: u64,
    /// Most entries of all layers together, directories that had to be implied included.
    pub max_entries: u64,
    /// Most bytes of names, links, attributes and extents that may have to be held in memory until the end.
    pub max_metadata: u64,
    /// What the image is made of, as a digest: UUID and hash seed of the file system are derived from it.
    pub identity: [u8; 32],
}

impl BuildOptions {
    /// Options with the default limits: 10 GiB of virtual size, 64 GiB expanded, 2 million entries, 512 MiB metadata.
    pub fn new(identity: [u8; 32]) -> Self {
        Self {
            virtual_size: 10 << 30,
            max_expanded: 64 << 30,
            max_entries: 2_000_000,
            max_metadata: 512 << 20,
            identity,
        }
    }
}

/// How far a build is.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Layers finished.
    pub layers: usize,
    /// Bytes read so far, uncompressed, of all layers.
    pub expanded: u64,
    /// Bytes written to the image so far: what it has allocated, but for what was given back.
    pub written: u64,
}

/// What a finished build has made.
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
    /// Bytes written to the image, those given back since included: an upper bound of what it has allocated, but
    /// for the metadata that its own file system adds.
    pub written: u64,
    /// Free space inside the file system in bytes.
    pub free: u64,
}
