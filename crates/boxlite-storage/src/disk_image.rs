//! Disk images: one read-only root file system per image, built once from its layers.
//!
//! A disk image is named by a digest of everything that its bytes depend on, so that one that was collected and
//! is built again at its old path is the same, byte for byte, and overlays above it stay valid. Its file
//! system's UUID is derived from that digest; a start compares the two before it relies on the file.
//!
//! A builder holds the lock of one staged file of a fixed name. Others that want the same disk image wait for
//! that lock and then lease the published file. A build reads the layers' blobs under leases of their own
//! and writes to the staged file alone: a `kill -9` leaves nothing else behind.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use boxlite_ext4::{BuildError, BuildErrorKind, BuildOptions, LayerLimits};
use boxlite_home::Home;
use boxlite_home::durable::{Staged, fault};
use boxlite_home::lease::Leased;
use boxlite_types::{Digest, Doing, Error, ErrorCause, ErrorKind, Image, Progress, ProgressSink, Result};

use crate::image::{self, Images};

/// How long to wait before asking again for a disk image that another process is building.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The digest (64 hex digits) of the disk image of `image` with `virtual_size` bytes.
pub fn digest(image: &Image, virtual_size: u64) -> String {
    image::disk_digest(&image.diff_ids(), virtual_size)
}

/// Leases the disk image `digest` if it is there and is the right one.
///
/// One that is damaged or foreign counts as absent: a build replaces it by the right bytes.
///
/// # Errors
/// `InvalidInput` when `digest` is not 64 hex digits; `Conflict` when something else than a file is at its path.
pub fn lease(home: &Home, digest: &str) -> Result<Option<Leased>> {
    let identity = Digest::from_hex(digest)?;
    let Some(leased) = Leased::acquire(&home.disk_image(digest))? else { return Ok(None) };
    match boxlite_ext4::read_identity(leased.file()) {
        Ok(found) if found.uuid == boxlite_ext4::expected_uuid(identity.bytes()) => Ok(Some(leased)),
        Ok(_) => {
            tracing::warn!(path = %leased.path().display(), "a disk image has another's UUID; building it again");
            Ok(None)
        }
        Err(boxlite_ext4::IdentityError::Read(source)) => Err(Error::io("reading", leased.path(), source)),
        Err(error) => {
            tracing::warn!(path = %leased.path().display(), %error, "a disk image is damaged; building it again");
            Ok(None)
        }
    }
}

/// Leases the disk image of `image` with `virtual_size` bytes, building it if it is not there. Blocks.
///
/// Concurrent callers, in any process, build it once between them.
///
/// # Errors
/// `ResourceExhausted` when there is no room, `Unsupported` when the layers expand beyond the setting `max_expanded`; nothing is
/// left then. `NotFound` when a layer's blob is missing. `Corrupt` when a layer is damaged (its blob is removed,
/// so that the next pull fetches it anew) or is not what its config says; `InvalidInput` when it is hostile.
pub fn ensure(
    images: &Images,
    image: &Image,
    virtual_size: u64,
    progress: &dyn ProgressSink,
) -> Result<Leased> {
    let digest = digest(image, virtual_size);
    let staged_name = format!("disk-{digest}.partial");
    loop {
        if let Some(leased) = lease(images.home(), &digest)? {
            return Ok(leased);
        }
        fault::point("disk.absent").doing("looking for", images.home().disk_image(&digest))?;
        let Some(staged) = Staged::take_over(&images.home().tmp(), &staged_name)? else {
            std::thread::sleep(BUSY_PAUSE);
            continue;
        };
        if let Some(leased) = lease(images.home(), &digest)? {
            return Ok(leased);
        }
        let identity = Digest::from_hex(&digest)?;
        write(images, image, virtual_size, identity, &staged, progress)?;
        let lock = staged.publish(&images.home().disk_image(&digest))?;
        progress.report(Progress::Built);
        if let Some(leased) = Leased::of_published(lock)? {
            return Ok(leased);
        }
    }
}

/// Writes the disk image into the staged file.
fn write(
    images: &Images,
    image: &Image,
    virtual_size: u64,
    identity: Digest,
    staged: &Staged,
    progress: &dyn ProgressSink,
) -> Result<()> {
    staged.file().set_len(0).doing("emptying the unfinished disk image", staged.path())?;
    let room = images.room(vec![identity.hex()])?;
    room.reserve(estimate(image))?;
    let options = BuildOptions {
        virtual_size,
        limits: LayerLimits {
            max_expanded: images.settings().max_expanded.value.0,
            ..LayerLimits::default()
        },
        ..BuildOptions::new(*identity.bytes())
    };
    let (read, total) = (Arc::new(AtomicU64::new(0)), image.stored_bytes());
    let layers = layers(images.lease_layers(image)?, image, &read);
    let (mut refusal, mut written) = (None, 0);
    let outcome = boxlite_ext4::build(layers, staged.file(), &options, &mut |so_far| {
        progress.report(Progress::Building { done: read.load(Ordering::Relaxed), total });
        let more = so_far.written.saturating_sub(written);
        written = so_far.written;
        match room.about_to_write(more) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                refusal = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    match (outcome, refusal) {
        (Ok(_), _) => Ok(()),
        (Err(_), Some(refusal)) => Err(refusal),
        (Err(error), None) => Err(explain(images, image, staged, error)),
    }
    .map_err(|error| error.while_doing(format!("building the disk image of {}", name(image))))
}

/// About how many bytes the disk image of `image` allocates. A layer that is stored as it is (its blob's digest is that
/// of the tar) does not expand; small files take up a little more in a filesystem than in a tar.
fn estimate(image: &Image) -> u64 {
    let plain: u64 =
        image.layers.iter().filter(|layer| layer.digest == layer.diff_id).map(|layer| layer.length).sum();
    let compressed = image.stored_bytes().saturating_sub(plain);
    boxlite_ext4::estimate_allocated(compressed).saturating_add(plain).saturating_add(plain / 8)
}

fn name(image: &Image) -> String {
    let reference =
        image.references.first().and_then(|text| text.parse::<crate::reference::Reference>().ok());
    reference.map_or_else(|| image.digest.to_string(), |reference| reference.familiar())
}

fn layers(leases: Vec<Leased>, image: &Image, read: &Arc<AtomicU64>) -> Vec<boxlite_ext4::LayerSource> {
    let layer = |(at, (blob, layer)): (usize, (Leased, &boxlite_types::Layer))| boxlite_ext4::LayerSource {
        reader: Box::new(BlobReader { blob, offset: 0, read: Arc::clone(read) }),
        label: format!("{} of {} ({})", at + 1, image.layers.len(), layer.digest),
        diff_id: *layer.diff_id.bytes(),
        blob_digest: None,
    };
    leases.into_iter().zip(&image.layers).enumerate().map(layer).collect()
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
fn explain(images: &Images, image: &Image, staged: &Staged, error: BuildError) -> Error {
    let kind = match error.kind() {
        BuildErrorKind::Hostile | BuildErrorKind::InvalidOptions => ErrorKind::InvalidInput,
        BuildErrorKind::Unsupported => ErrorKind::Unsupported,
        BuildErrorKind::Corrupt | BuildErrorKind::DigestMismatch => ErrorKind::Corrupt,
        BuildErrorKind::Aborted => ErrorKind::Cancelled,
        _ => ErrorKind::Io,
    };
    match error {
        BuildError::Write { source, .. } => {
            return Error::io("writing the disk image at", staged.path(), source);
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
    use boxlite_types::{ImageConfig, Layer, Platform};

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
        let image = |layers| Image {
            digest: Digest::of(b"image"),
            references: Vec::new(),
            platform: Platform::host(),
            config: ImageConfig::default(),
            layers,
            pulled_at: jiff::Timestamp::UNIX_EPOCH,
            last_used_at: jiff::Timestamp::UNIX_EPOCH,
        };
        assert!((300 << 20..360 << 20).contains(&estimate(&image(vec![layer(false)]))));
        assert!(estimate(&image(vec![layer(true)])) >= 1200 << 20);
        let both = estimate(&image(vec![layer(true), layer(false)]));
        assert!((1500 << 20..1600 << 20).contains(&both));
    }
}
