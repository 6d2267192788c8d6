//! The cuts of an image's layers, and the sizes that they depend on.
//!
//! A cut depends on the uncompressed sizes of the layers below it, and the bytes of a delta on the cuts below it. So
//! only sizes that were counted decide: those that the database remembers, those that a build has found while it
//! expanded the layers, and those of layers that are expanded for no other reason than to be counted. Until a layer is
//! built, what its blob claims (the trailer of a gzip file) serves to plan; where a build proves the claim wrong, the
//! plan is made again.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use boxlite_types::{Digest, Doing, Image, Layer, Result};

use crate::disk::qcow2::delta;
use crate::image::Images;

/// The magic numbers of what layers are compressed with.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The uncompressed size of one layer in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LayerSize {
    /// Somebody has expanded the layer and counted.
    Counted(u64),
    /// Its blob says so.
    Claimed(u64),
}

impl LayerSize {
    fn bytes(self) -> u64 {
        match self {
            Self::Counted(bytes) | Self::Claimed(bytes) => bytes,
        }
    }
}

/// The uncompressed sizes of an image's layers, lowest first.
#[derive(Debug)]
pub(super) struct LayerSizes(Vec<LayerSize>);

impl LayerSizes {
    /// Takes what the database knows, and for the rest what the blobs claim; counts layers that claim nothing of use.
    pub(super) fn of(images: &Images, image: &Image) -> Result<Self> {
        let known = images.store().layer_sizes(&image.diff_ids())?;
        let size = |(layer, known): (&Layer, Option<u64>)| match known {
            Some(bytes) => Ok(LayerSize::Counted(bytes)),
            None if layer.digest == layer.diff_id => Ok(LayerSize::Counted(layer.length)),
            None => {
                let blob = images.lease_layer(image, layer)?;
                let claim = claimed(blob.file(), layer.length).doing("reading", blob.path())?;
                match claim {
                    Some(bytes) => Ok(LayerSize::Claimed(bytes)),
                    None => counted(blob.file()).doing("reading", blob.path()).map(LayerSize::Counted),
                }
            }
        };
        image.layers.iter().zip(known).map(size).collect::<Result<_>>().map(Self)
    }

    /// The end of each segment, exclusive; one segment where a delta cannot be as large as the disk.
    pub(super) fn ends(&self, virtual_size: u64) -> Vec<usize> {
        if virtual_size > delta::MAX_VIRTUAL {
            return vec![self.0.len()];
        }
        boxlite_ext4::segment_ends(&self.0.iter().map(|size| size.bytes()).collect::<Vec<_>>())
    }

    /// Counts those of `layers` that are only claimed.
    pub(super) fn count(&mut self, images: &Images, image: &Image, layers: Range<usize>) -> Result<()> {
        if self.0[layers.clone()].iter().all(|size| matches!(size, LayerSize::Counted(_))) {
            return Ok(());
        }
        let mut found = Vec::new();
        for (size, layer) in self.0[layers.clone()].iter().zip(&image.layers[layers.clone()]) {
            found.push(match size {
                LayerSize::Counted(bytes) => *bytes,
                LayerSize::Claimed(_) => {
                    let blob = images.lease_layer(image, layer)?;
                    counted(blob.file()).doing("reading", blob.path())?
                }
            });
        }
        self.learn(images, image, layers, &found);
        Ok(())
    }

    /// Takes over what was counted, and has the database remember it.
    fn learn(&mut self, images: &Images, image: &Image, layers: Range<usize>, found: &[u64]) {
        let news = self.take_over(image, layers, found);
        remember(images, &news);
    }

    /// Takes over what a build has found; returns what of that the database is to [`remember`].
    pub(super) fn take_over(
        &mut self,
        image: &Image,
        layers: Range<usize>,
        found: &[u64],
    ) -> Vec<(Digest, u64)> {
        let known =
            self.0[layers.clone()].iter().zip(found).all(|(size, found)| *size == LayerSize::Counted(*found));
        if known {
            return Vec::new();
        }
        let mut news = Vec::new();
        for (at, &bytes) in layers.zip(found) {
            self.0[at] = LayerSize::Counted(bytes);
            news.push((image.layers[at].diff_id, bytes));
        }
        news
    }
}

/// The uncompressed sizes of the layers of an image whose disk image is there.
///
/// # Errors
/// `NotFound` when nobody has counted one, and its blob is gone.
pub(crate) fn layer_sizes(images: &Images, image: &Image) -> Result<Vec<u64>> {
    let mut sizes = LayerSizes::of(images, image)?;
    sizes.count(images, image, 0..image.layers.len())?;
    Ok(sizes.0.iter().map(|size| size.bytes()).collect())
}

/// Has the database remember the sizes of layers, if it can.
pub(super) fn remember(images: &Images, sizes: &[(Digest, u64)]) {
    if sizes.is_empty() {
        return;
    }
    if let Err(error) = images.store().note_layer_sizes(sizes) {
        tracing::debug!(error = %error.chain(), "the sizes of layers are not remembered");
    }
}

/// The size that a gzip file's trailer gives, if that can be the whole: of several members it is only the last one's.
fn claimed(blob: &File, length: u64) -> io::Result<Option<u64>> {
    let (mut magic, mut trailer) = ([0; 2], [0; 4]);
    if length < 18 {
        return Ok(None);
    }
    blob.read_exact_at(&mut magic, 0)?;
    blob.read_exact_at(&mut trailer, length - 4)?;
    let claim = u64::from(u32::from_le_bytes(trailer));
    // Tar files do not get longer when they are compressed, but for a few bytes; and one of 4 GiB overflows the claim.
    let is_plausible = claim + claim / 100 + 1024 >= length && length < 1 << 30;
    Ok((magic == GZIP && is_plausible).then_some(claim))
}

/// Expands a blob to count its bytes. A damaged one has as many as come before the damage: its build fails.
fn counted(blob: &File) -> io::Result<u64> {
    let mut magic = [0; 4];
    let start = blob.read_at(&mut magic, 0)?;
    let reader = BlobBytes { blob, offset: 0 };
    let mut expanded: Box<dyn Read + '_> = match &magic[..start] {
        [one, two, ..] if [*one, *two] == GZIP => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        magic if *magic == ZSTD => Box::new(zstd::Decoder::new(reader)?),
        _ => Box::new(reader),
    };
    let mut buffer = vec![0; 128 << 10];
    let mut total = 0;
    loop {
        match expanded.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => total += read as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(total),
        }
    }
}

/// Reads a blob from its start.
struct BlobBytes<'a> {
    blob: &'a File,
    offset: u64,
}

impl Read for BlobBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
