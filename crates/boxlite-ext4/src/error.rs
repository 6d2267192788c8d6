//! Errors of a build, and of reading an image's identity.

use std::io;

/// Stable cause of a [`BuildError`], for callers that must decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BuildErrorKind {
    /// An entry tries something no honest layer does.
    Hostile,
    /// The content needs more than a limit or than ext4 allows.
    TooLarge,
    /// A layer is not a well-formed tar, gzip or zstd stream, or it is cut off.
    Corrupt,
    /// An entry is well-formed but of a kind that cannot be represented.
    Unsupported,
    /// A layer's bytes are not the ones that were promised.
    DigestMismatch,
    /// The observer asked to stop.
    Aborted,
    /// The options contradict themselves or what the format allows.
    InvalidOptions,
    /// Reading a layer failed.
    Read,
    /// Writing the image failed.
    Write,
    /// The file system below a delta could not be read.
    ReadBelow,
    /// The file system below a delta is damaged, not of this builder's making, or not the one expected.
    DamagedBelow,
}

/// A failed build. Every message names the layer, and the entry where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An entry tries something no honest layer does.
    #[error("layer {layer}: entry {entry:?} is refused: {reason}")]
    Hostile {
        /// Label of the layer.
        layer: String,
        /// Path of the entry as the archive spells it, lossy where it is not UTF-8.
        entry: String,
        /// The fault, in words.
        reason: String,
    },
    /// The content needs more than a limit or than ext4 allows.
    #[error("layer {layer}: {what} at entry {entry:?} needs {need}, the limit is {limit}")]
    TooLarge {
        /// Label of the layer.
        layer: String,
        /// Path of the entry that crossed the limit, or that came last before it was crossed.
        entry: String,
        /// The quantity that is limited, with its unit.
        what: &'static str,
        /// Least amount that the content needs.
        need: u64,
        /// Greatest amount that is allowed.
        limit: u64,
    },
    /// A layer is not a well-formed tar, gzip or zstd stream, or it is cut off.
    #[error("layer {layer}: corrupt at or after entry {entry:?}: {reason}")]
    Corrupt {
        /// Label of the layer.
        layer: String,
        /// Path of the entry being read, or of the last one that could be.
        entry: String,
        /// The fault, in words.
        reason: String,
    },
    /// An entry is well-formed but of a kind that cannot be represented.
    #[error("layer {layer}: entry {entry:?} is not supported: {reason}")]
    Unsupported {
        /// Label of the layer.
        layer: String,
        /// Path of the entry.
        entry: String,
        /// The feature that cannot be represented.
        reason: String,
    },
    /// A layer's bytes are not the ones that were promised.
    #[error("layer {layer}: {what} is sha256:{actual}, expected sha256:{expected}")]
    DigestMismatch {
        /// Label of the layer.
        layer: String,
        /// Which digest: of the blob, or of the uncompressed tar.
        what: &'static str,
        /// The promised digest in hex.
        expected: String,
        /// The digest of what was read, in hex.
        actual: String,
    },
    /// The observer asked to stop.
    #[error("the build was stopped by its caller after {written} bytes were written")]
    Aborted {
        /// Bytes written to the image until then.
        written: u64,
    },
    /// The options contradict themselves or what the format allows.
    #[error("cannot build an image with these options: {reason}")]
    InvalidOptions {
        /// Which option, with figures.
        reason: String,
    },
    /// Reading a layer failed.
    #[error("layer {layer}: reading the blob failed")]
    Read {
        /// Label of the layer.
        layer: String,
        /// The reader's error.
        source: io::Error,
    },
    /// Writing the image failed.
    #[error("writing the disk image at byte {offset} failed")]
    Write {
        /// Byte offset in the image.
        offset: u64,
        /// The file's error.
        source: io::Error,
    },
    /// The file system below a delta cannot be built upon.
    #[error("the file system below cannot be built upon")]
    Below(#[from] BelowError),
}

impl BuildError {
    /// The stable cause, to decide by.
    pub fn kind(&self) -> BuildErrorKind {
        match self {
            Self::Hostile { .. } => BuildErrorKind::Hostile,
            Self::TooLarge { .. } => BuildErrorKind::TooLarge,
            Self::Corrupt { .. } => BuildErrorKind::Corrupt,
            Self::Unsupported { .. } => BuildErrorKind::Unsupported,
            Self::DigestMismatch { .. } => BuildErrorKind::DigestMismatch,
            Self::Aborted { .. } => BuildErrorKind::Aborted,
            Self::InvalidOptions { .. } => BuildErrorKind::InvalidOptions,
            Self::Read { .. } => BuildErrorKind::Read,
            Self::Write { .. } => BuildErrorKind::Write,
            Self::Below(BelowError::Read { .. }) => BuildErrorKind::ReadBelow,
            Self::Below(_) => BuildErrorKind::DamagedBelow,
        }
    }
}

/// Reason why one entry cannot be applied, before layer and path are known.
#[derive(Debug)]
pub(crate) enum EntryRefusal {
    Hostile(String),
    Unsupported(String),
    TooLarge {
        what: &'static str,
        need: u64,
        limit: u64,
    },
    /// Not the entry's fault: the file system below failed.
    Below(BelowError),
}

impl From<BelowError> for EntryRefusal {
    fn from(error: BelowError) -> Self {
        Self::Below(error)
    }
}

impl EntryRefusal {
    pub(crate) fn hostile(reason: impl Into<String>) -> Self {
        Self::Hostile(reason.into())
    }

    /// Adds the layer and the path of the entry.
    pub(crate) fn at(self, layer: &str, entry: &[u8]) -> BuildError {
        let (layer, entry) = (layer.to_owned(), shown(entry));
        match self {
            Self::Hostile(reason) => BuildError::Hostile { layer, entry, reason },
            Self::Unsupported(reason) => BuildError::Unsupported { layer, entry, reason },
            Self::TooLarge { what, need, limit } => BuildError::TooLarge { layer, entry, what, need, limit },
            Self::Below(error) => error.into(),
        }
    }
}

/// A path for a message: lossy, and cut where it would flood a terminal.
pub(crate) fn shown(path: &[u8]) -> String {
    const LONGEST: usize = 512;
    let mut text = String::from_utf8_lossy(&path[..path.len().min(LONGEST)]).into_owned();
    if path.len() > LONGEST {
        text.push('…');
    }
    text
}

/// Reason why a delta cannot be built on a file system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BelowError {
    /// A block cannot be read.
    #[error("reading block {block} failed")]
    Read {
        /// Number of the first block of the failed read.
        block: u64,
        /// The source's error.
        source: io::Error,
    },
    /// The superblock is not one that this builder writes.
    #[error("not a file system of this builder: {reason}")]
    Foreign {
        /// The first fault that was found.
        reason: &'static str,
    },
    /// It is a file system of this builder, but of another identity than the caller expects.
    #[error("it is not the file system with the identity {expected}")]
    OtherIdentity {
        /// The identity that was expected, in hex.
        expected: String,
    },
    /// Metadata contradicts its checksum or other metadata.
    #[error("{place} is damaged: {reason}")]
    Damaged {
        /// The structure: a group, an inode, a directory's block.
        place: String,
        /// The fault, in words.
        reason: &'static str,
    },
}

impl BelowError {
    pub(crate) fn damaged(place: impl Into<String>, reason: &'static str) -> Self {
        Self::Damaged { place: place.into(), reason }
    }
}

/// Reason why a file is not an image that this builder could have made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("reading the superblock failed")]
    Read(#[from] io::Error),
    /// The file is shorter than a superblock, or shorter than the file system it announces.
    #[error("the file is cut off: it has {has} bytes, the file system needs {needs}")]
    Truncated {
        /// Length of the file in bytes.
        has: u64,
        /// Bytes that the superblock announces.
        needs: u64,
    },
    /// The superblock is not one that this builder writes.
    #[error("not a disk image of this builder: {reason}")]
    Foreign {
        /// The first field that does not fit.
        reason: &'static str,
    },
}
