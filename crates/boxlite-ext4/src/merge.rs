//! Layers merged into a tree, their contents written as they stream by. Whole builds and deltas share this.

use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::thread;

use crate::below::FilesystemBelow;
use crate::content::{FileContent, MAX_FILE, Predecessor};
use crate::error::{EntryRefusal, shown};
use crate::format::{FileExtent, xattr};
use crate::metadata::FinishError;
use crate::stream::{self, AHEAD, LayerBytes, LayerDigests, LayerPiece, StreamFailure};
use crate::tar::{TarEntry, TarError, TarReader};
use crate::tree::{Applied, FileTree};
use crate::writer::{Allocate, ImageWriteError, ImageWriter};
use crate::{BuildError, LayerLimits, LayerSource};

/// Uncompressed bytes between two calls of the observer, at most, where little is written.
const REPORT_EVERY: u64 = 32 << 20;

/// A build under way.
pub(crate) struct Merge<'a, 'b, S> {
    pub(crate) limits: LayerLimits,
    /// Bytes of the file system, for messages.
    pub(crate) virtual_size: u64,
    pub(crate) writer: ImageWriter<'a, S>,
    pub(crate) tree: FileTree<'b>,
    /// The file system that the tree stands on.
    pub(crate) below: Option<&'b FilesystemBelow<'b>>,
    /// Entries read so far.
    pub(crate) entries: u64,
    /// Uncompressed bytes of each layer that was merged.
    pub(crate) layers: Vec<u64>,
    content: FileContent<'b>,
    /// Bytes of metadata taken in, those replaced since included.
    held: u64,
    /// Path of the entry being applied, for messages.
    entry: Vec<u8>,
    /// Label of the layer being applied, for messages.
    label: String,
}

impl<'a, 'b, S: Allocate> Merge<'a, 'b, S> {
    pub(crate) fn new(
        limits: LayerLimits,
        virtual_size: u64,
        writer: ImageWriter<'a, S>,
        tree: FileTree<'b>,
        below: Option<&'b FilesystemBelow<'b>>,
    ) -> Self {
        Self {
            limits,
            virtual_size,
            writer,
            tree,
            below,
            entries: 0,
            layers: Vec::new(),
            content: FileContent::new(),
            held: 0,
            entry: Vec::new(),
            label: String::new(),
        }
    }

    /// Applies all layers, lowest first, completes the file system by `finish`, and verifies the digests of the layers. Two
    /// threads run beside the caller's meanwhile; the hashing one need not have caught up when `finish` is called.
    pub(crate) fn run<T>(
        &mut self,
        layers: Vec<LayerSource>,
        finish: impl FnOnce(&mut Self) -> Result<T, FinishError>,
    ) -> Result<T, BuildError> {
        let promises: Vec<_> = layers.iter().map(LayerPromise::of).collect();
        let max_expanded = self.limits.max_expanded;
        thread::scope(|scope| {
            let (pieces_in, pieces) = sync_channel(AHEAD);
            let (hashed_in, hashed) = sync_channel(AHEAD);
            let (digests_in, digests) = channel();
            scope.spawn(move || stream::hash(hashed, digests_in));
            scope.spawn(move || stream::decompress(layers, max_expanded, &pieces_in, &hashed_in));
            // Both ends are dropped with the closure, which ends the threads.
            let (pieces, digests) = (pieces, digests);
            let mut unverified = promises.iter();
            self.layers(&promises, &mut unverified, &pieces, &digests)?;
            let finished = finish(self).map_err(|error| self.finish_error(error));
            // A layer that is not what it should be explains what `finish` has met.
            for promise in unverified {
                let found = digests.recv().map_err(|_| BuildError::Read {
                    layer: promise.label.clone(),
                    source: std::io::Error::other("the hashing thread ended early"),
                })?;
                promise.check(&found)?;
            }
            finished
        })
    }

    fn layers(
        &mut self,
        promises: &[LayerPromise],
        unverified: &mut std::slice::Iter<'_, LayerPromise>,
        pieces: &Receiver<LayerPiece>,
        digests: &Receiver<LayerDigests>,
    ) -> Result<(), BuildError> {
        for (index, promise) in promises.iter().enumerate() {
            self.entry.clear();
            self.label.clone_from(&promise.label);
            self.layer(pieces)?;
            self.writer.progress.layers = index + 1;
            while let Ok(found) = digests.try_recv() {
                unverified.next().map_or(Ok(()), |promise| promise.check(&found))?;
            }
        }
        Ok(())
    }

    fn layer(&mut self, pieces: &Receiver<LayerPiece>) -> Result<(), BuildError> {
        self.tree.next_layer();
        let before = self.writer.progress.expanded;
        let mut reported = before;
        let mut reader = TarReader::new(LayerBytes::new(pieces));
        loop {
            let entry = match reader.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) => return Err(self.tar_error(error, reader.stream_mut())),
            };
            self.apply(entry, &mut reader)?;
            self.writer.progress.expanded = before + reader.stream_mut().read;
            if self.writer.progress.expanded - reported >= REPORT_EVERY {
                reported = self.writer.progress.expanded;
                self.writer.report().map_err(|error| self.write_error(error))?;
            }
        }
        let mut stream = reader.into_inner();
        if let Err(error) = stream.drain() {
            return Err(self.tar_error(TarError::Io(error), &mut stream));
        }
        self.writer.progress.expanded = before + stream.read;
        self.layers.push(stream.read);
        Ok(())
    }

    fn apply(
        &mut self,
        mut entry: TarEntry,
        reader: &mut TarReader<LayerBytes<'_>>,
    ) -> Result<(), BuildError> {
        self.entries += 1;
        self.entry.clone_from(&entry.name);
        xattr::fit(&entry.xattrs).map_err(|refusal| self.refuse(refusal))?;
        let attributes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.hold((entry.name.len() + entry.link.len() + attributes) as u64)?;
        let applied = self.tree.apply(&mut entry).map_err(|refusal| self.refuse(refusal))?;
        self.give_back_freed()?;
        // Implied directories count as well: one long name can make thousands.
        let need = self.entries.max(self.tree.created());
        if need > self.limits.max_entries {
            let limit = self.limits.max_entries;
            return Err(self.refuse(EntryRefusal::TooLarge { what: "the number of entries", need, limit }));
        }
        let Applied::File { id, replaced } = applied else { return Ok(()) };
        if entry.size > MAX_FILE {
            let what = "the length of a file in bytes";
            return Err(self.refuse(EntryRefusal::TooLarge { what, need: entry.size, limit: MAX_FILE }));
        }
        self.succeed(replaced)?;
        for segment in entry.segments.as_deref().unwrap_or_default() {
            let hole = segment.offset - self.content.size();
            self.content.hole(&mut self.writer, hole).map_err(|error| self.write_error(error))?;
            self.copy(reader, segment.length)?;
        }
        if entry.segments.is_none() {
            self.copy(reader, entry.size)?;
        }
        let tail = entry.size - self.content.size();
        self.content.hole(&mut self.writer, tail).map_err(|error| self.write_error(error))?;
        let finished = self.content.finish(&mut self.writer).map_err(|error| self.write_error(error))?;
        self.writer.give_back(&finished.unused).map_err(|error| self.write_error(error))?;
        self.hold(size_of_val(finished.extents.as_slice()) as u64)?;
        self.tree.set_content(id, finished.size, finished.extents);
        Ok(())
    }

    /// Gives back what the tree does not need any more.
    fn give_back_freed(&mut self) -> Result<(), BuildError> {
        let freed = self.tree.take_freed();
        self.writer.give_back(&freed).map_err(|error| self.write_error(error))
    }

    /// Lets the file that begins keep blocks of the one that it replaces, as far as those lie below.
    fn succeed(&mut self, replaced: Vec<FileExtent>) -> Result<(), BuildError> {
        let (kept, gone): (Vec<_>, Vec<_>) =
            replaced.into_iter().partition(|extent| self.writer.space.lies_below(extent.physical));
        self.writer.give_back(&gone).map_err(|error| self.write_error(error))?;
        if let Some(below) = self.below
            && !kept.is_empty()
        {
            self.content.succeed(Predecessor::new(below, kept));
        }
        Ok(())
    }

    /// Counts metadata that stays in memory until the end.
    fn hold(&mut self, bytes: u64) -> Result<(), BuildError> {
        self.held += bytes;
        let (need, limit) = (self.held, self.limits.max_metadata);
        if need <= limit {
            return Ok(());
        }
        let what = "the size of all metadata in bytes";
        Err(self.refuse(EntryRefusal::TooLarge { what, need, limit }))
    }

    /// Moves stored bytes of the current entry into the current file.
    fn copy(&mut self, reader: &mut TarReader<LayerBytes<'_>>, mut length: u64) -> Result<(), BuildError> {
        while length > 0 {
            let data = match reader.data() {
                Ok(data) => data,
                Err(error) => return Err(self.tar_error(error, reader.stream_mut())),
            };
            let count = usize::try_from(length).map_or(data.len(), |length| length.min(data.len()));
            if let Err(error) = self.content.push(&mut self.writer, &data[..count]) {
                return Err(self.write_error(error));
            }
            reader.consume(count);
            length -= count as u64;
        }
        Ok(())
    }

    fn refuse(&self, refusal: EntryRefusal) -> BuildError {
        refusal.at(&self.label, &self.entry)
    }

    fn tar_error(&self, error: TarError, stream: &mut LayerBytes<'_>) -> BuildError {
        let layer = || self.label.clone();
        let corrupt =
            |reason: String| BuildError::Corrupt { layer: layer(), entry: shown(&self.entry), reason };
        match error {
            TarError::Io(error) => match stream.failure.take() {
                Some(StreamFailure::Read(source)) => BuildError::Read { layer: layer(), source },
                Some(StreamFailure::Decompress(error)) => corrupt(format!("decompression failed: {error}")),
                Some(StreamFailure::TooLarge { need, limit }) => {
                    let what = "the number of uncompressed bytes";
                    self.refuse(EntryRefusal::TooLarge { what, need, limit })
                }
                None => BuildError::Read { layer: layer(), source: error },
            },
            TarError::Truncated(_) | TarError::Corrupt { .. } => corrupt(error.to_string()),
            TarError::Unsupported { name, reason } => {
                EntryRefusal::Unsupported(reason).at(&self.label, &name)
            }
        }
    }

    pub(crate) fn write_error(&self, error: ImageWriteError) -> BuildError {
        match error {
            ImageWriteError::Full => self.refuse(EntryRefusal::TooLarge {
                what: "the content of the image in bytes",
                need: self.virtual_size + 1,
                limit: self.virtual_size,
            }),
            ImageWriteError::Write { offset, source } => BuildError::Write { offset, source },
            ImageWriteError::Aborted => BuildError::Aborted { written: self.writer.progress.written },
            ImageWriteError::Below(error) => error.into(),
        }
    }

    pub(crate) fn finish_error(&self, error: FinishError) -> BuildError {
        match error {
            FinishError::Writer(error) => self.write_error(error),
            FinishError::Refused { path, refusal } => refusal.at(&self.label, &path),
        }
    }
}

/// The digests that a layer must turn out to have.
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
