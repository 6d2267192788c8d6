//! Applies layers to a file system that exists, and writes what they change.

use std::ops::ControlFlow;

use crate::below::{BelowGroups, FilesystemBelow};
use crate::change;
use crate::error::EntryRefusal;
use crate::format::BLOCK;
use crate::merge::Merge;
use crate::source::{BlockSink, BlockSource};
use crate::tree::FileTree;
use crate::writer::ImageWriter;
use crate::{BuildError, BuildProgress, LayerLimits, LayerSource};

/// Identities of a delta and of the file system below it, and limits on its layers.
#[derive(Debug, Clone)]
pub struct DeltaOptions {
    /// Identity of the file system below, as its own build was given it: of a whole image, or of the topmost delta.
    pub below: [u8; 32],
    /// Digest of everything that the result is made of; it must not be zero.
    pub identity: [u8; 32],
    /// Limits on the layers of this delta.
    pub limits: LayerLimits,
}

impl DeltaOptions {
    /// Options with the default limits.
    pub fn new(below: [u8; 32], identity: [u8; 32]) -> Self {
        Self { below, identity, limits: LayerLimits::default() }
    }
}

/// Figures of a finished delta.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeltaReport {
    /// Entries read from all layers, whiteouts included.
    pub entries: u64,
    /// Inodes that are new or have new content or metadata.
    pub inodes: u64,
    /// Inodes of the file system below that are gone.
    pub removed: u64,
    /// Length in bytes of all files that the layers bring, holes included.
    pub content: u64,
    /// Bytes read from all layers, uncompressed.
    pub expanded: u64,
    /// Bytes read from each layer, uncompressed, lowest first: what [`segment_ends`](crate::segment_ends) takes.
    pub layers: Vec<u64>,
    /// Bytes passed to the sink, those discarded since included.
    pub written: u64,
    /// Free space inside the file system in bytes.
    pub free: u64,
    /// Inodes that are free.
    pub free_inodes: u64,
}

/// Applies `layers`, lowest first, to the file system `below`, and writes every block that changes into `out`.
///
/// `below` must be a file system that [`build`](crate::build()) made, or what the deltas over one make of it, and
/// never mounted read-write since; it is read as far as the layers reach into it. Laying the written blocks over it
/// gives a file system with the content of all layers: it keeps UUID, size, and the inode numbers and blocks of
/// everything that the layers leave alone, and has [`DeltaOptions::identity`] in its superblock.
///
/// A file that replaces one with partly the same content keeps the equal blocks, so that a layer which changes
/// nothing but owners or modes writes no content.
///
/// The same file system below, layers and options give the same calls of `out`. After an error what was written is
/// worthless. `observer` is called and two threads run as in [`build`](crate::build()).
///
/// # Errors
///
/// As [`build`](crate::build()), and [`BuildError::Below`] where the file system below cannot be read, is damaged, or
/// is not the one that [`DeltaOptions::below`] names.
pub fn build_delta(
    below: &dyn BlockSource,
    layers: Vec<LayerSource>,
    out: &mut dyn BlockSink,
    options: &DeltaOptions,
    observer: &mut dyn FnMut(&BuildProgress) -> ControlFlow<()>,
) -> Result<DeltaReport, BuildError> {
    if options.identity == [0; 32] {
        return Err(BuildError::InvalidOptions { reason: "the identity of a delta is zero".to_owned() });
    }
    let below = FilesystemBelow::open(below, &options.below)?;
    let virtual_size = below.geometry.blocks * BLOCK as u64;
    let writer = ImageWriter::new(out, BelowGroups::new(&below)?, observer);
    let tree = FileTree::above(&below).map_err(|refusal| match refusal {
        EntryRefusal::Below(error) => error.into(),
        other => other.at("", b""),
    })?;
    let mut merge = Merge::new(options.limits.clone(), virtual_size, writer, tree, Some(&below));
    let totals = merge
        .run(layers, |merge| change::finish(&mut merge.writer, &merge.tree, &below, &options.identity))?;
    let space = &merge.writer.space;
    Ok(DeltaReport {
        entries: merge.entries,
        inodes: totals.inodes,
        removed: totals.removed,
        content: totals.content,
        expanded: merge.writer.progress.expanded,
        layers: merge.layers,
        written: merge.writer.progress.written,
        free: space.free_blocks * BLOCK as u64,
        free_inodes: space.free_inodes.into(),
    })
}
