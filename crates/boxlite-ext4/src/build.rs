//! Builds a whole disk image.

use std::fs::File;
use std::ops::ControlFlow;

use crate::format::{BLOCK, Geometry, Identifiers, MAX_VIRTUAL, MIN_VIRTUAL};
use crate::merge::Merge;
use crate::tree::FileTree;
use crate::whole;
use crate::writer::{BlockSpace, ImageWriter};
use crate::{BuildError, BuildOptions, BuildProgress, BuildReport, LayerSource};

/// Builds the image of `layers`, lowest first, into `out`.
///
/// `out` must be an empty regular file open for writing; it gets the virtual size as its length and is written by
/// position. After an error its content is worthless and the caller removes it. Nothing is synced.
///
/// `observer` is called at least once per 8 MiB written; when it breaks, the build ends with
/// [`BuildError::Aborted`]. Two threads run beside the caller's while the build lasts.
///
/// # Errors
///
/// See [`BuildError`]: every cause has its kind, and names layer and entry.
pub fn build(
    layers: Vec<LayerSource>,
    out: &File,
    options: &BuildOptions,
    observer: &mut dyn FnMut(&BuildProgress) -> ControlFlow<()>,
) -> Result<BuildReport, BuildError> {
    let virtual_size = options.virtual_size;
    if !(MIN_VIRTUAL..=MAX_VIRTUAL).contains(&virtual_size) {
        let reason = format!(
            "a virtual size of {virtual_size} bytes, from {MIN_VIRTUAL} to {MAX_VIRTUAL} is possible"
        );
        return Err(BuildError::InvalidOptions { reason });
    }
    let metadata = out.metadata().map_err(|source| BuildError::Write { offset: 0, source })?;
    if !metadata.is_file() || metadata.len() != 0 {
        let reason = "the output is not an empty regular file".to_owned();
        return Err(BuildError::InvalidOptions { reason });
    }
    out.set_len(virtual_size).map_err(|source| BuildError::Write { offset: virtual_size, source })?;
    let geometry = Geometry::new(virtual_size);
    let ids = Identifiers::derive(&options.identity);
    let mut sink = out;
    let writer = ImageWriter::new(&mut sink, BlockSpace::new(&geometry), observer);
    let mut merge = Merge::new(options.limits.clone(), virtual_size, writer, FileTree::new(), None);
    let totals = merge.run(layers, |merge| whole::finish(&mut merge.writer, &merge.tree, &geometry, &ids))?;
    Ok(BuildReport {
        uuid: ids.uuid,
        entries: merge.entries,
        inodes: totals.inodes,
        directories: totals.directories,
        free_inodes: totals.free_inodes,
        content: totals.content,
        expanded: merge.writer.progress.expanded,
        layers: merge.layers,
        written: merge.writer.progress.written,
        free: totals.free_blocks * BLOCK as u64,
    })
}

/// Estimates the bytes that a disk image allocates, from the size of the compressed layers in bytes: for admission
/// before a build. It is not a bound: a hostile layer expands further, which the observer of the build can see.
pub fn estimate_allocated(compressed: u64) -> u64 {
    const FACTOR: u64 = 4;
    const FIXED: u64 = 8 << 20;
    compressed.saturating_mul(FACTOR).saturating_add(FIXED)
}
