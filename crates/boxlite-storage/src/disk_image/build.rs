//! Building one file of a disk image.

use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use boxlite_ext4::{BuildError, BuildErrorKind, BuildOptions, BuildProgress, DeltaOptions, LayerLimits};
use boxlite_home::Home;
use boxlite_home::durable::{self, Staged};
use boxlite_home::lease::Leased;
use boxlite_types::{
    Digest, Doing, Error, ErrorCause, ErrorKind, Image, Layer, Progress, ProgressSink, Result,
};

use crate::disk::image_chain::{self as chain, ImageChain, ImageFile, ImageForm};
use crate::disk::qcow2::delta::{DeltaTables, DeltaWriter};
use crate::disk::whole;
use crate::image::{Images, WriteSpace};

/// Some of an image's layers, and what they are applied to.
pub(super) struct Segment<'a> {
    pub(super) layers: Range<usize>,
    /// Names the file: of all layers up to the end of the segment.
    pub(super) digest: String,
    /// The segments below; nothing below the lowest segment, which is a whole disk image.
    pub(super) below: Option<&'a ImageChain>,
}

impl Segment<'_> {
    fn form(&self) -> ImageForm {
        if self.below.is_some() { ImageForm::Delta } else { ImageForm::Whole }
    }

    /// Returns the name of the file's kind in messages.
    fn noun(&self) -> &'static str {
        match self.form() {
            ImageForm::Whole => "disk image",
            ImageForm::Delta => "delta",
        }
    }

    pub(super) fn path(&self, home: &Home) -> PathBuf {
        match self.form() {
            ImageForm::Whole => home.disk_image(&self.digest),
            ImageForm::Delta => home.delta(&self.digest),
        }
    }

    /// The name of the staged file that its only builder holds.
    pub(super) fn staged_name(&self) -> String {
        match self.form() {
            ImageForm::Whole => format!("disk-{}.partial", self.digest),
            ImageForm::Delta => format!("delta-{}.partial", self.digest),
        }
    }

    /// Leases the file, if it is there and stands on what it must.
    pub(super) fn lease(&self, home: &Home) -> Result<Option<ImageFile>> {
        chain::lease_over(home, &self.digest, self.below)
    }
}

/// A disk image whose missing files are being built.
pub(super) struct Building<'a> {
    pub(super) images: &'a Images,
    pub(super) image: &'a Image,
    pub(super) virtual_size: u64,
    progress: &'a dyn ProgressSink,
    /// Bytes of blobs that were read, or need not be.
    read: Arc<AtomicU64>,
    /// Files that were built.
    pub(super) built: usize,
}

impl<'a> Building<'a> {
    pub(super) fn new(
        images: &'a Images,
        image: &'a Image,
        virtual_size: u64,
        progress: &'a dyn ProgressSink,
    ) -> Self {
        Self { images, image, virtual_size, progress, read: Arc::default(), built: 0 }
    }

    /// Counts the layers up to the end of a segment that is there as done.
    pub(super) fn skip(&self, segment: &Segment<'_>) {
        let before = self.stored(segment.layers.end);
        self.read.fetch_max(before, Ordering::Relaxed);
    }

    /// Bytes of the blobs of the layers up to `end`.
    fn stored(&self, end: usize) -> u64 {
        self.image.layers[..end].iter().map(|layer| layer.length).sum()
    }

    fn layers(&self, segment: &Segment<'_>) -> &'a [Layer] {
        &self.image.layers[segment.layers.clone()]
    }

    /// Reports that all is there, if something was not.
    pub(super) fn finish(&self) {
        if self.built > 0 {
            self.progress.report(Progress::Built);
        }
    }

    /// Writes the segment into the staged file.
    pub(super) fn write(
        &self,
        segment: &Segment<'_>,
        identity: Digest,
        staged: &Staged,
    ) -> Result<WrittenSegment> {
        let emptying = format!("emptying the unfinished {}", segment.noun());
        staged.file().set_len(0).doing(&emptying, staged.path())?;
        let (images, image) = (self.images, self.image);
        let room = images.room(super::digests(image, self.virtual_size))?;
        room.reserve(estimate(self.layers(segment)))?;
        self.read.store(self.stored(segment.layers.start), Ordering::Relaxed);
        let limits =
            LayerLimits { max_expanded: images.settings().max_expanded.value.0, ..LayerLimits::default() };
        let layers = self.sources(segment)?;
        let (mut refusal, mut written) = (None, 0);
        let mut observer = |so_far: &BuildProgress| {
            let done = self.read.load(Ordering::Relaxed);
            self.progress.report(Progress::Building { done, total: image.stored_bytes() });
            let more = so_far.written.saturating_sub(written);
            written = so_far.written;
            match room.about_to_write(more) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    refusal = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let outcome = match segment.below {
            None => {
                let virtual_size = self.virtual_size;
                let options = BuildOptions { virtual_size, limits, ..BuildOptions::new(*identity.bytes()) };
                match boxlite_ext4::build(layers, staged.file(), &options, &mut observer) {
                    Ok(report) => {
                        durable::begin_writeback(staged.file(), 0..virtual_size);
                        whole::seal(staged.file()).doing("reading", staged.path())?;
                        Ok(WrittenSegment { sizes: report.layers, tables: None })
                    }
                    Err(error) => Err(error),
                }
            }
            Some(below) => {
                let name = below.top().path().file_stem().unwrap_or_default().to_string_lossy();
                let options = DeltaOptions {
                    limits,
                    ..DeltaOptions::new(*Digest::from_hex(&name)?.bytes(), *identity.bytes())
                };
                let (source, mut sink) = (below.source(), DeltaWriter::new(staged.file(), self.virtual_size));
                let report = boxlite_ext4::build_delta(&source, layers, &mut sink, &options, &mut observer);
                match report {
                    Ok(report) => {
                        let tables = Some(finish(sink, below, &room, staged)?);
                        Ok(WrittenSegment { sizes: report.layers, tables })
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match (outcome, refusal) {
            (Ok(written), _) => Ok(written),
            (Err(_), Some(refusal)) => Err(refusal),
            (Err(error), None) => Err(explain(images, image, segment, staged, error)),
        }
        .map_err(|error| error.while_doing(self.building(segment)))
    }

    /// The action that messages name while the segment is written.
    fn building(&self, segment: &Segment<'_>) -> String {
        let (image, layers) = (name(self.image), &segment.layers);
        match segment.form() {
            ImageForm::Whole => format!("building the disk image of {image}"),
            ImageForm::Delta if layers.len() == 1 => {
                format!("building the delta of {image} (layer {})", layers.end)
            }
            ImageForm::Delta => {
                format!("building the delta of {image} (layers {} to {})", layers.start + 1, layers.end)
            }
        }
    }

    fn sources(&self, segment: &Segment<'_>) -> Result<Vec<boxlite_ext4::LayerSource>> {
        let count = self.image.layers.len();
        let source = |(at, layer): (usize, &Layer)| {
            let blob = self.images.lease_layer(self.image, layer)?;
            Ok(boxlite_ext4::LayerSource {
                reader: Box::new(BlobReader { blob, offset: 0, read: Arc::clone(&self.read) }),
                label: format!("{} of {count} ({})", segment.layers.start + at + 1, layer.digest),
                diff_id: *layer.diff_id.bytes(),
                blob_digest: None,
            })
        };
        self.layers(segment).iter().enumerate().map(source).collect()
    }
}

/// A segment in its staged file.
pub(super) struct WrittenSegment {
    /// The uncompressed size of each of its layers.
    pub(super) sizes: Vec<u64>,
    /// A delta's tables of its blocks.
    pub(super) tables: Option<DeltaTables>,
}

/// Completes the file of a delta.
fn finish(
    sink: DeltaWriter<'_>,
    below: &ImageChain,
    room: &WriteSpace,
    staged: &Staged,
) -> Result<DeltaTables> {
    room.about_to_write(sink.metadata_bytes())?;
    let written = sink.finish(&chain::relative_name(below), below.format());
    written.doing("writing the delta at", staged.path())
}

/// About how many bytes a file of these layers allocates. A layer that is stored as it is (its blob's digest is that
/// of the tar) does not expand; small files take up a little more in a filesystem than in a tar.
fn estimate(layers: &[Layer]) -> u64 {
    let is_plain = |layer: &&Layer| layer.digest == layer.diff_id;
    let plain: u64 = layers.iter().filter(is_plain).map(|layer| layer.length).sum();
    let compressed: u64 = layers.iter().filter(|layer| !is_plain(layer)).map(|layer| layer.length).sum();
    boxlite_ext4::estimate_allocated(compressed).saturating_add(plain).saturating_add(plain / 8)
}

fn name(image: &Image) -> String {
    let reference =
        image.references.first().and_then(|text| text.parse::<crate::reference::Reference>().ok());
    reference.map_or_else(|| image.digest.to_string(), |reference| reference.familiar())
}

/// Reads a leased blob from its start.
struct BlobReader {
    blob: Leased,
    offset: u64,
    read: Arc<AtomicU64>,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.blob.file().read_at(buffer, self.offset)?;
        self.offset += got as u64;
        self.read.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

/// Turns the builder's error into the library's, and removes blobs that have turned out damaged.
fn explain(
    images: &Images,
    image: &Image,
    segment: &Segment<'_>,
    staged: &Staged,
    error: BuildError,
) -> Error {
    let kind = match error.kind() {
        BuildErrorKind::Hostile | BuildErrorKind::InvalidOptions => ErrorKind::InvalidInput,
        BuildErrorKind::Unsupported => ErrorKind::Unsupported,
        BuildErrorKind::Corrupt | BuildErrorKind::DigestMismatch => ErrorKind::Corrupt,
        BuildErrorKind::Aborted => ErrorKind::Cancelled,
        _ => ErrorKind::Io,
    };
    match error {
        BuildError::Write { source, .. } => {
            return Error::io(&format!("writing the {} at", segment.noun()), staged.path(), source);
        }
        BuildError::Read { source, layer } => {
            return Error::io("reading the blobs in", images.home().blobs(), source)
                .while_doing(format!("layer {layer}"));
        }
        // Not a shortage: the same image would be too large on any host with these settings.
        BuildError::TooLarge { .. } => {
            let message = format!("{error}; the settings max_expanded and disk_size set the limits");
            return Error::unsupported(message).about(ErrorCause::Limit).because(error);
        }
        _ => {}
    }
    let mut message = error.to_string();
    if remove_damaged(images, image) {
        message = format!(
            "{message}; the damaged copy was removed, and `boxlite pull {}` gets a good one",
            name(image)
        );
    }
    Error::new(kind, message).because(error)
}

/// Whether one of the image's blobs was damaged, and is gone now.
fn remove_damaged(images: &Images, image: &Image) -> bool {
    let mut removed = false;
    for layer in &image.layers {
        removed |= images.blobs().remove_if_damaged(layer.digest).unwrap_or(false);
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It asked for 1.2 GiB. Mutation tried: counting every layer as compressed.
    #[test]
    fn a_layer_that_is_stored_as_it_is_does_not_expand() {
        let layer = |compressed: bool| Layer {
            digest: Digest::of(if compressed { b"gzip" } else { b"tar" }),
            diff_id: Digest::of(b"tar"),
            media_type: String::new(),
            length: 300 << 20,
        };
        assert!((300 << 20..360 << 20).contains(&estimate(&[layer(false)])));
        assert!(estimate(&[layer(true)]) >= 1200 << 20);
        let both = estimate(&[layer(true), layer(false)]);
        assert!((1500 << 20..1600 << 20).contains(&both));
    }
}
