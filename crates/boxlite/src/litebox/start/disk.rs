//! The middle stages: the leased disk image, and the overlay above it.

use std::path::{Path, PathBuf};

use boxlite_home::{Home, admission};
use boxlite_storage::disk::overlay::{self, Below};
use boxlite_storage::disk::qcow2::BackingFormat;
use boxlite_storage::disk_image::{self, ImageChain, ImageForm};
use boxlite_storage::image::Images;
use boxlite_types::{BoxRecord, Error, ErrorKind, ProgressSink, Result};

use super::{AdmittedBox, StartContext};
use crate::context::LocalContext;
use crate::litebox::named_volumes::AttachedVolumes;
use crate::litebox::source::way_back;
use crate::litebox::{BoxGuard, description};

/// A box whose disk image exists, is the right one, and cannot be collected.
pub(crate) struct ImagedBox<'a> {
    context: StartContext<'a>,
    guard: BoxGuard,
    room: admission::Admission,
    memory: admission::MemoryPromise,
    volumes: AttachedVolumes,
    image: Option<ImageChain>,
}

/// A box whose overlay is durable and pins its disk image.
pub(crate) struct OverlaidBox<'a> {
    pub(super) context: StartContext<'a>,
    pub(super) guard: BoxGuard,
    pub(super) room: admission::Admission,
    pub(super) memory: admission::MemoryPromise,
    pub(super) volumes: AttachedVolumes,
    /// `None` for an imported box whose overlay holds the whole disk.
    pub(super) image: Option<ImageChain>,
    /// The bases and deltas between overlay and disk image, nearest first.
    pub(super) between: Vec<PathBuf>,
}

impl<'a> AdmittedBox<'a> {
    /// Leases the box's disk image, building it first where it is missing.
    ///
    /// # Errors
    /// `Corrupt` when the disk image has vanished from below an overlay and cannot be made again as it was.
    pub(super) fn lease(self) -> Result<ImagedBox<'a>> {
        let Self { context, guard, room, memory, volumes } = self;
        let image = lease_image(context.local, context.images, &guard, context.progress)?;
        Ok(ImagedBox { context, guard, room, memory, volumes, image })
    }
}

/// Leases the disk image of the guarded box, building it first where it is missing; `None` where the box's disk stands on
/// none.
///
/// # Errors
/// `Corrupt` when the disk image has vanished from below an overlay and cannot be made again as it was.
pub(crate) fn lease_image(
    local: &LocalContext,
    images: &Images,
    guard: &BoxGuard,
    progress: &dyn ProgressSink,
) -> Result<Option<ImageChain>> {
    let (home, record) = (&local.home, &guard.record);
    let form = match below_overlay(home, &guard.paths.overlay())? {
        BelowOverlay::Nothing => return Ok(None),
        BelowOverlay::Image(form) => Some(form),
        BelowOverlay::NoOverlay => None,
    };
    let image = match form {
        Some(form) => disk_image::lease_as(home, &record.disk_digest, form)?,
        None => disk_image::lease(home, &record.disk_digest)?,
    };
    let image = match image {
        Some(image) => image,
        None => build(images, progress, record, form).map_err(|error| vanished(guard, error))?,
    };
    Ok(Some(image))
}

/// The file that the box's overlay stands on.
enum BelowOverlay {
    /// There is no overlay yet.
    NoOverlay,
    /// It is an imported box's, and holds all of the disk.
    Nothing,
    /// A disk image in this form.
    Image(ImageForm),
}

fn below_overlay(home: &Home, overlay: &Path) -> Result<BelowOverlay> {
    if !overlay.exists() {
        return Ok(BelowOverlay::NoOverlay);
    }
    Ok(match overlay::image_below(home, overlay)? {
        None => BelowOverlay::Nothing,
        Some(path) if overlay::format_of(&path) == BackingFormat::Qcow2 => {
            BelowOverlay::Image(ImageForm::Delta)
        }
        Some(_) => BelowOverlay::Image(ImageForm::Whole),
    })
}

/// Builds exactly the disk image that the record names.
fn build(
    images: &Images,
    progress: &dyn ProgressSink,
    record: &BoxRecord,
    form: Option<ImageForm>,
) -> Result<ImageChain> {
    let image = images.find_blocking(&record.image)?;
    let virtual_size = record.disk_image_size;
    if disk_image::digest(&image, virtual_size) != record.disk_digest {
        return Err(Error::not_found("this version of boxlite builds other disk images"));
    }
    match form {
        Some(ImageForm::Whole) => disk_image::ensure_whole(images, &image, virtual_size, progress),
        Some(ImageForm::Delta) => disk_image::ensure_delta(images, &image, virtual_size, progress),
        None => disk_image::ensure(images, &image, virtual_size, progress),
    }
}

/// The digests of all that the box's disk image may be made of, as far as its image is known.
pub(super) fn digests(context: StartContext<'_>, record: &BoxRecord) -> Vec<String> {
    let image = context.images.find_blocking(&record.image).ok();
    let digests = image.map(|image| disk_image::digests(&image, record.disk_image_size));
    digests.into_iter().flatten().chain([record.disk_digest.clone()]).collect()
}

fn stands_elsewhere(guard: &BoxGuard, below: &Below, image: Option<&Path>) -> Error {
    let shown =
        |path: Option<&Path>| path.map_or_else(|| "nothing".to_owned(), |path| path.display().to_string());
    let message = format!(
        "the disk of box {} stands on {}, and its record names {}; the two do not belong together",
        guard.record.name,
        shown(below.image.first().map(PathBuf::as_path)),
        shown(image)
    );
    Error::corrupt(message).at(guard.paths.overlay())
}

fn vanished(guard: &BoxGuard, error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let record = &guard.record;
    Error::corrupt(format!(
        "the disk image {} of box {} is missing and cannot be built again ({}); {}",
        record.disk_digest,
        record.name,
        error.chain(),
        way_back(&record.image_reference)
    ))
    .because(error)
}

impl<'a> ImagedBox<'a> {
    /// Creates the overlay, unless there is one from an earlier run, and notes the disk image's use.
    pub(super) fn overlay(self) -> Result<OverlaidBox<'a>> {
        let Self { context, guard, room, memory, volumes, image } = self;
        let path = guard.paths.overlay();
        description::ensure(context.local, &guard.paths, &guard.record)?;
        if let Some(image) = image.as_ref().filter(|_| !path.exists()) {
            let options = &guard.record.options;
            let virtual_size = options.disk_size.unwrap_or(guard.record.disk_image_size);
            overlay::create(&context.local.home, image.top(), image.format(), &path, virtual_size)?;
        }
        let below = overlay::below(&context.local.home, &path)?;
        let files: Vec<&Path> = image.iter().flat_map(ImageChain::files).collect();
        if !below.image.iter().map(PathBuf::as_path).eq(files.iter().copied()) {
            return Err(stands_elsewhere(&guard, &below, files.first().copied()));
        }
        let mut between = below.bases;
        if let Some(image) = &image {
            image.touch()?;
            between.extend(image.deltas().map(Path::to_owned));
        }
        Ok(OverlaidBox { context, guard, room, memory, volumes, image, between })
    }
}
