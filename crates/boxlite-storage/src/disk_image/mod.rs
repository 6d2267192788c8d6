//! Disk images: the root filesystem of an image, built once from its layers.
//!
//! # Layout
//!
//! An image's layers are cut into segments ([`segments`]). The lowest is a whole ext4 file in `images/disk-images`, and
//! each further one a delta in `images/deltas` over what lies below it, so that images with common layers share the
//! files of these. A file is named by a digest of everything that its bytes depend on: builder, virtual size, and the
//! layers up to its end. So the digest of an image's disk image is known before anything is built, a file that was
//! collected is the same, byte for byte, when it is built again, and overlays above it stay valid.
//!
//! Homes from before there were deltas have whole files of all layers under the same digest. They serve as before.
//!
//! # Concurrency
//!
//! A builder holds the lock of one staged file of a fixed name per segment. Others that want the same segment wait for
//! that lock and then lease the published file. A build reads the layers' blobs, and the files below, under leases of
//! their own and writes to the staged file alone: a `kill -9` leaves nothing else behind.
//!
//! # Damage
//!
//! A file that a lease ([`lease`]) finds damaged or foreign counts as absent: a build replaces it by the right bytes.
//!
//! # Layers
//!
//! Under the setting `keep_blobs = never`, a build removes the layers that no other build can want: those of images that
//! came from a registry and whose disk images are there.

mod build;
mod segments;
mod written;

use std::thread;
use std::time::Duration;

use boxlite_home::durable::{self, Staged, fault};
use boxlite_home::settings::KeepBlobs;
use boxlite_types::{Digest, Doing, Image, ProgressSink, Result};
use build::{Building, Segment};

pub use crate::disk::image_chain::{ImageChain, ImageForm, lease, lease_as};
pub(crate) use segments::layer_sizes;
use segments::{LayerSizes, remember};
pub(crate) use written::{ensure_written, present_segments};

use crate::catalog::Catalog;
use crate::disk::image_chain::{self, ImageFile};
use crate::image::{self, Images};

/// How long to wait before asking again for a file that another process is building.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The digest (64 hex digits) of the disk image of `image` with `virtual_size` bytes.
pub fn digest(image: &Image, virtual_size: u64) -> String {
    image::disk_digest(&image.diff_ids(), virtual_size)
}

/// The digests of everything that the disk image of `image` may be made of, its own last.
pub fn digests(image: &Image, virtual_size: u64) -> Vec<String> {
    image::disk_digests(&image.diff_ids(), virtual_size)
}

/// Leases the disk image of `image` with `virtual_size` bytes, building what is missing of it. Blocks.
///
/// Concurrent callers, in any process, build each file once between them.
///
/// # Errors
/// `ResourceExhausted` when there is no room, `Unsupported` when the layers expand beyond the setting `max_expanded`; no part is left
/// then. `NotFound` when a layer's blob is missing. `Corrupt` when a layer is damaged (its blob is removed, so that the
/// next pull fetches it anew) or is not what its config says; `InvalidInput` when it is hostile.
pub fn ensure(
    images: &Images,
    image: &Image,
    virtual_size: u64,
    progress: &dyn ProgressSink,
) -> Result<ImageChain> {
    match lease(images.home(), &digest(image, virtual_size))? {
        Some(there) => Ok(there),
        None => ensure_delta(images, image, virtual_size, progress),
    }
}

/// As [`ensure`], but without a look at whole files from before there were deltas. An image that is small, or has one
/// layer, is one file all the same.
pub fn ensure_delta(
    images: &Images,
    image: &Image,
    virtual_size: u64,
    progress: &dyn ProgressSink,
) -> Result<ImageChain> {
    build(images, image, virtual_size, progress, ensure_segments)
}

/// As [`ensure`], but as one file of all layers, as an overlay from before there were deltas wants it.
pub fn ensure_whole(
    images: &Images,
    image: &Image,
    virtual_size: u64,
    progress: &dyn ProgressSink,
) -> Result<ImageChain> {
    let segment = Segment { layers: 0..image.layers.len(), digest: digest(image, virtual_size), below: None };
    build(images, image, virtual_size, progress, |building, sizes| {
        let file = ensure_segment(building, &segment, sizes, &|_| true)?;
        Ok(file.map(|file| ImageChain::with(None, file)))
    })
}

/// Calls `attempt` until the sizes of layers were right.
fn build(
    images: &Images,
    image: &Image,
    virtual_size: u64,
    progress: &dyn ProgressSink,
    mut attempt: impl FnMut(&mut Building<'_>, &mut LayerSizes) -> Result<Option<ImageChain>>,
) -> Result<ImageChain> {
    let mut building = Building::new(images, image, virtual_size, progress);
    let mut sizes = LayerSizes::of(images, image)?;
    let chain = loop {
        if let Some(chain) = attempt(&mut building, &mut sizes)? {
            break chain;
        }
    };
    building.finish();
    if building.built > 0 && images.settings().keep_blobs.value == KeepBlobs::Never {
        release_layers(images, image, virtual_size);
    }
    Ok(chain)
}

/// Removes the layers of `image` that can be fetched again and that no disk image must still be built from.
fn release_layers(images: &Images, image: &Image, virtual_size: u64) {
    for layer in &image.layers {
        let is_unneeded = || {
            let Some(users) = images.store().layer_users(&layer.digest.hex())? else { return Ok(false) };
            for user in &users {
                let digest = image::disk_digest(&user.diff_ids, virtual_size);
                if !user.of_registry || lease(images.home(), &digest)?.is_none() {
                    return Ok(false);
                }
            }
            Ok(!users.is_empty())
        };
        if let Err(error) = images.blobs().collect(layer.digest, is_unneeded) {
            tracing::debug!(error = %error.chain(), layer = %layer.digest, "a layer is left to gc");
        }
    }
}

/// Leases or builds one segment after the other, from the lowest on; `None` when the sizes of layers turned out to be
/// others, so that the cuts may be others, too.
fn ensure_segments(building: &mut Building<'_>, sizes: &mut LayerSizes) -> Result<Option<ImageChain>> {
    let virtual_size = building.virtual_size;
    let digests = digests(building.image, virtual_size);
    let (mut start, mut chain) = (0, None::<ImageChain>);
    let ends = sizes.ends(virtual_size);
    for (position, &end) in ends.iter().enumerate() {
        let segment = Segment {
            layers: start..end,
            digest: digests[end.saturating_sub(1)].clone(),
            below: chain.as_ref(),
        };
        let are_same = |sizes: &LayerSizes| sizes.ends(virtual_size).starts_with(&ends[..=position]);
        match ensure_segment(building, &segment, sizes, &are_same)? {
            None => return Ok(None),
            Some(file) => chain = Some(ImageChain::with(chain, file)),
        }
        start = end;
    }
    Ok(chain)
}

/// Leases or builds a segment; `None` when `is_right` says that its cuts are wrong, given the sizes that its layers
/// turned out to have.
fn ensure_segment(
    building: &mut Building<'_>,
    segment: &Segment<'_>,
    sizes: &mut LayerSizes,
    is_right: &dyn Fn(&LayerSizes) -> bool,
) -> Result<Option<ImageFile>> {
    let home = building.images.home();
    let staged_name = segment.staged_name();
    loop {
        if let Some(there) = segment.lease(home)? {
            sizes.count(building.images, building.image, segment.layers.clone())?;
            building.skip(segment);
            return Ok(is_right(sizes).then_some(there));
        }
        let path = segment.path(home);
        fault::point("disk.absent").doing("looking for", &path)?;
        let Some(staged) = Staged::take_over(&home.tmp(), &staged_name)? else {
            thread::sleep(BUSY_PAUSE);
            continue;
        };
        if segment.lease(home)?.is_some() {
            continue;
        }
        let written = building.write(segment, Digest::from_hex(&segment.digest)?, &staged)?;
        let news = sizes.take_over(building.image, segment.layers.clone(), &written.sizes);
        if !is_right(sizes) {
            remember(building.images, &news);
            return Ok(None);
        }
        if segment.below.is_some() {
            building.images.store().allow_deltas()?;
            durable::ensure_dir(&home.deltas())?;
        }
        // Neither needs the other, and each waits for the disk.
        let lock = thread::scope(|scope| {
            let note = || remember(building.images, &news);
            if !news.is_empty() && thread::Builder::new().spawn_scoped(scope, note).is_err() {
                note();
            }
            staged.publish(&path)
        })?;
        building.built += 1;
        if let Some(file) = image_chain::of_published(lock, written.tables)? {
            return Ok(Some(file));
        }
    }
}
