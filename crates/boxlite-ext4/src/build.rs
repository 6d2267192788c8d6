//! The build itself: layers in, tree and blocks out.

use std::fs::File;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::thread;

use crate::error::{EntryRefusal, shown};
use crate::image::{
    self, FileContent, Geometry, Identifiers, ImageWriteError, ImageWriter, MAX_FILE, MAX_VIRTUAL,
    MIN_VIRTUAL,
};
use crate::stream::{self, AHEAD, LayerBytes, LayerDigests, LayerPiece, StreamFailure};
use crate::tar::{TarEntry, TarError, TarReader};
use crate::tree::{Applied, FileTree};
use crate::{BuildError, BuildOptions, BuildProgress, BuildReport, LayerSource};

/// Uncompressed bytes between two calls of the observer, at most, where little is written.
const REPORT_EVERY: u64 = 32 << 20;

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
    if !(MIN_VIRTUAL..=MAX_VIRTUAL).contains(&options.virtual_size) {
        let reason = format!(
            "a virtual size of {} bytes, from {MIN_VIRTUAL} to {MAX_VIRTUAL} is possible",
            options.virtual_size
        );
        return Err(BuildError::InvalidOptions { reason });
    }
    let metadata = out.metadata().map_err(|source| BuildError::Write { offset: 0, source })?;
    if !metadata.is_file() || metadata.len() != 0 {
        let reason = "the output is not an empty regular file".to_owned();
        return Err(BuildError::InvalidOptions { reason });
    }
    out.set_len(options.virtual_size)
        .map_err(|source| BuildError::Write { offset: options.virtual_size, source })?;
    let geometry = Geometry::new(options.virtual_size);
    let promises = layers.iter().map(LayerPromise::of).collect();
    thread::scope(|scope| {
        let (pieces_in, pieces) = sync_channel(AHEAD);
        let (hashed_in, hashed) = sync_channel(AHEAD);
        let (digests_in, digests) = channel();
        scope.spawn(move || stream::hash(hashed, digests_in));
        let max_expanded = options.max_expanded;
        scope.spawn(move || stream::decompress(layers, max_expanded, &pieces_in, &hashed_in));
        let mut build = Build {
            options,
            promises,
            verified: 0,
            volume: ImageWriter::new(out, &geometry, observer),
            tree: FileTree::new(),
            content: FileContent::new(),
            entries: 0,
            held: 0,
            entry: Vec::new(),
        };
        let report = build.run(&pieces, &digests, &geometry);
        // Lets the threads end: nobody listens any more.
        drop((pieces, digests));
        report
    })
}

/// Bytes that a disk image is likely to allocate, from the size of the compressed layers in bytes: for admission
/// before a build, not a bound. A hostile layer expands further; the observer is there for that.
pub fn estimate_allocated(compressed: u64) -> u64 {
    const FACTOR: u64 = 4;
    const FIXED: u64 = 8 << 20;
    compressed.saturating_mul(FACTOR).saturating_add(FIXED)
}

/// What a layer must turn out to be.
struct LayerPromise {
    label: String,
    diff_id: [u8; 32],
    blob_digest: Option<[u8; 32]>,
}

impl LayerPromise {
    fn of(layer: &LayerSource) -> Self {
        Self { label: layer.label.clone(), diff_id: layer.diff_id, blob_digest: layer.blob_digest }
    }

    fn check(&self, found: &LayerDigests) -> Result<(), BuildError> {
        let blob = self.blob_digest.map(|expected| ("the digest of the blob", expected, found.blob));
        let tar = Some(("the digest of the uncompressed tar", self.diff_id, found.tar));
        for (what, expected, actual) in [blob, tar].into_iter().flatten() {
            if expected != actual {
                return Err(BuildError::DigestMismatch {
                    layer: self.label.clone(),
                    what,
                    expected: hex::encode(expected),
                    actual: hex::encode(actual),
                });
            }
        }
        Ok(())
    }
}

struct Build<'a> {
    options: &'a BuildOptions,
    promises: Vec<LayerPromise>,
    /// Layers whose digests have been checked.
    verified: usize,
    volume: ImageWriter<'a>,
    tree: FileTree,
    content: FileContent,
    entries: u64,
    /// Bytes of metadata taken in, what was replaced since included.
    held: u64,
    /// Path of the entry under way, for messages.
    entry: Vec<u8>,
}

impl Build<'_> {
    fn run(
        &mut self,
        pieces: &Receiver<LayerPiece>,
        digests: &Receiver<LayerDigests>,
        geometry: &Geometry,
    ) -> Result<BuildReport, BuildError> {
        for index in 0..self.promises.len() {
            let label = self.promises[index].label.clone();
            self.entry.clear();
            self.layer(&label, pieces)?;
            self.volume.progress.layers = index + 1;
            while let Ok(found) = digests.try_recv() {
                self.verify(&found)?;
            }
        }
        while self.verified < self.promises.len() {
            let Ok(found) = digests.recv() else {
                let source = std::io::Error::other("the hashing thread ended early");
                return Err(BuildError::Read { layer: self.promises[self.verified].label.clone(), source });
            };
            self.verify(&found)?;
        }
        let ids = Identifiers::derive(&self.options.identity);
        let label = self.promises.last().map(|promise| promise.label.clone()).unwrap_or_default();
        let totals =
            image::finish(&mut self.volume, &self.tree, geometry, &ids).map_err(|error| match error {
                image::FinishError::Writer(error) => self.volume_error(error, &label),
                image::FinishError::Refused { path, refusal } => refusal.at(&label, &path),
            })?;
        Ok(BuildReport {
            uuid: ids.uuid,
            entries: self.entries,
            inodes: totals.inodes,
            directories: totals.directories,
            free_inodes: totals.free_inodes,
            content: totals.content,
            expanded: self.volume.progress.expanded,
            written: self.volume.progress.written,
            free: totals.free_blocks * image::BLOCK as u64,
        })
    }

    fn verify(&mut self, found: &LayerDigests) -> Result<(), BuildError> {
        self.promises[self.verified].check(found)?;
        self.verified += 1;
        Ok(())
    }

    fn layer(&mut self, label: &str, pieces: &Receiver<LayerPiece>) -> Result<(), BuildError> {
        self.tree.next_layer();
        let before = self.volume.progress.expanded;
        let mut reported = before;
        let mut reader = TarReader::new(LayerBytes::new(pieces));
        loop {
            let entry = match reader.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) => return Err(self.tar_error(error, label, reader.stream_mut())),
            };
            self.apply(entry, &mut reader, label)?;
            self.volume.progress.expanded = before + reader.stream_mut().read;
            if self.volume.progress.expanded - reported >= REPORT_EVERY {
                reported = self.volume.progress.expanded;
                self.volume.report().map_err(|error| self.volume_error(error, label))?;
            }
        }
        let mut stream = reader.into_inner();
        if let Err(error) = stream.drain() {
            return Err(self.tar_error(TarError::Io(error), label, &mut stream));
        }
        self.volume.progress.expanded = before + stream.read;
        Ok(())
    }

    fn apply(
        &mut self,
        mut entry: TarEntry,
        reader: &mut TarReader<LayerBytes<'_>>,
        label: &str,
    ) -> Result<(), BuildError> {
        self.entries += 1;
        self.entry.clone_from(&entry.name);
        image::attributes_fit(&entry.xattrs).map_err(|refusal| refusal.at(label, &self.entry))?;
        let attributes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.hold((entry.name.len() + entry.link.len() + attributes) as u64, label)?;
        let applied = self.tree.apply(&mut entry).map_err(|refusal| refusal.at(label, &self.entry))?;
        let freed = self.tree.take_freed();
        self.volume.give_back(&freed).map_err(|error| self.volume_error(error, label))?;
        // Implied directories count as well: one long name can make thousands.
        let need = self.entries.max(self.tree.created());
        if need > self.options.max_entries {
            let limit = self.options.max_entries;
            return Err(
                EntryRefusal::TooLarge { what: "the number of entries", need, limit }.at(label, &self.entry)
            );
        }
        let Applied::File(id) = applied else { return Ok(()) };
        if entry.size > MAX_FILE {
            let what = "the length of a file in bytes";
            return Err(
                EntryRefusal::TooLarge { what, need: entry.size, limit: MAX_FILE }.at(label, &self.entry)
            );
        }
        for segment in entry.segments.as_deref().unwrap_or_default() {
            let hole = segment.offset - self.content.size();
            self.content.hole(&mut self.volume, hole).map_err(|error| self.volume_error(error, label))?;
            self.copy(reader, segment.length, label)?;
        }
        if entry.segments.is_none() {
            self.copy(reader, entry.size, label)?;
        }
        let tail = entry.size - self.content.size();
        self.content.hole(&mut self.volume, tail).map_err(|error| self.volume_error(error, label))?;
        let (size, extents) =
            self.content.finish(&mut self.volume).map_err(|error| self.volume_error(error, label))?;
        self.hold(size_of_val(extents.as_slice()) as u64, label)?;
        self.tree.set_content(id, size, extents);
        Ok(())
    }

    /// Counts what stays in memory until the end.
    fn hold(&mut self, bytes: u64, label: &str) -> Result<(), BuildError> {
        self.held += bytes;
        let (need, limit) = (self.held, self.options.max_metadata);
        if need <= limit {
            return Ok(());
        }
        Err(EntryRefusal::TooLarge { what: "the size of all metadata in bytes", need, limit }
            .at(label, &self.entry))
    }

    /// Moves stored bytes of the current entry into the current file.
    fn copy(
        &mut self,
        reader: &mut TarReader<LayerBytes<'_>>,
        mut length: u64,
        label: &str,
    ) -> Result<(), BuildError> {
        while length > 0 {
            let data = match reader.data() {
                Ok(data) => data,
                Err(error) => return Err(self.tar_error(error, label, reader.stream_mut())),
            };
            let count = usize::try_from(length).map_or(data.len(), |length| length.min(data.len()));
            if let Err(error) = self.content.push(&mut self.volume, &data[..count]) {
                return Err(self.volume_error(error, label));
            }
            reader.consume(count);
            length -= count as u64;
        }
        Ok(())
    }

    fn tar_error(&self, error: TarError, label: &str, stream: &mut LayerBytes<'_>) -> BuildError {
        let corrupt = |reason: String| BuildError::Corrupt {
            layer: label.to_owned(),
            entry: shown(&self.entry),
            reason,
        };
        match error {
            TarError::Io(error) => match stream.failure.take() {
                Some(StreamFailure::Read(source)) => BuildError::Read { layer: label.to_owned(), source },
                Some(StreamFailure::Decompress(error)) => corrupt(format!("decompression failed: {error}")),
                Some(StreamFailure::TooLarge { need, limit }) => {
                    EntryRefusal::TooLarge { what: "the number of uncompressed bytes", need, limit }
                        .at(label, &self.entry)
                }
                None => BuildError::Read { layer: label.to_owned(), source: error },
            },
            TarError::Truncated(_) | TarError::Corrupt { .. } => corrupt(error.to_string()),
            TarError::Unsupported { name, reason } => EntryRefusal::Unsupported(reason).at(label, &name),
        }
    }

    fn volume_error(&self, error: ImageWriteError, label: &str) -> BuildError {
        match error {
            ImageWriteError::Full => EntryRefusal::TooLarge {
                what: "the content of the image in bytes",
                need: self.options.virtual_size + 1,
                limit: self.options.virtual_size,
            }
            .at(label, &self.entry),
            ImageWriteError::Write { offset, source } => BuildError::Write { offset, source },
            ImageWriteError::Aborted => BuildError::Aborted { written: self.volume.progress.written },
        }
    }
}
