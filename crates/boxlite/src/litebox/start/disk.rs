//! The middle stages: the leased disk image, and the overlay above it.

use std::path::{Path, PathBuf};

use boxlite_home::{Home, admission};
use boxlite_storage::disk::overlay::{self, Below};
use boxlite_storage::disk::qcow2::BackingFormat;
use boxlite_storage::disk_image::{self, ImageChain, ImageForm};
use boxlite_types::{BoxRecord, Error, ErrorKind, Result};

use super::{AdmittedBox, StartContext};
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
    image: ImageChain,
}

/// A box whose overlay is durable and pins its disk image.
pub(crate) struct OverlaidBox<'a> {
    pub(super) context: StartContext<'a>,
    pub(super) guard: BoxGuard,
    pub(super) room: admission::Admission,
    pub(super) memory: admission::MemoryPromise,
    pub(super) volumes: AttachedVolumes,
    pub(super) image: ImageChain,
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
        let (home, record) = (&context.local.home, &guard.record);
        let form = form_below(home, &guard.paths.overlay())?;
        let image = match form {
            Some(form) => disk_image::lease_as(home, &record.disk_digest, form)?,
            None => disk_image::lease(home, &record.disk_digest)?,
        };
        let image = match image {
            Some(image) => image,
            None => build(context, record, form).map_err(|error| vanished(&guard, error))?,
        };
        Ok(ImagedBox { context, guard, room, memory, volumes, image })
    }
}

/// In which form the box's overlay, if there is one, wants the disk image.
fn form_below(home: &Home, overlay: &Path) -> Result<Option<ImageForm>> {
    if !overlay.exists() {
        return Ok(None);
    }
    let image = overlay::image_below(home, overlay)?;
    Ok(image.map(|path| match overlay::format_of(&path) {
        BackingFormat::Qcow2 => ImageForm::Delta,
        _ => ImageForm::Whole,
    }))
}

/// Builds exactly the disk image that the record names.
fn build(context: StartContext<'_>, record: &BoxRecord, form: Option<ImageForm>) -> Result<ImageChain> {
    let image = context.images.find_blocking(&record.image)?;
    let virtual_size = record.disk_image_size;
    if disk_image::digest(&image, virtual_size) != record.disk_digest {
        return Err(Error::not_found("this version of boxlite builds other disk images"));
    }
    match form {
        Some(ImageForm::Whole) => {
            disk_image::ensure_whole(context.images, &image, virtual_size, context.progress)
        }
        Some(ImageForm::Delta) => {
            disk_image::ensure_delta(context.images, &image, virtual_size, context.progress)
        }
        None => disk_image::ensure(context.images, &image, virtual_size, context.progress),
    }
}

/// The digests of all that the box's disk image may be made of, as far as its image is known.
pub(super) fn digests(context: StartContext<'_>, record: &BoxRecord) -> Vec<String> {
    let image = context.images.find_blocking(&record.image).ok();
    let digests = image.map(|image| disk_image::digests(&image, record.disk_image_size));
    digests.into_iter().flatten().chain([record.disk_digest.clone()]).collect()
}

fn stands_elsewhere(guard: &BoxGuard, below: &Below, image: &ImageChain) -> Error {
    let shown =
        |path: Option<&Path>| path.map_or_else(|| "nothing".to_owned(), |path| path.display().to_string());
    let message = format!(
        "the disk of box {} stands on {}, and its record names {}; the two do not belong together",
        guard.record.name,
        shown(below.image.first().map(PathBuf::as_path)),
        shown(image.files().next())
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
        if !path.exists() {
            let options = &guard.record.options;
            let virtual_size = options.disk_size.unwrap_or(guard.record.disk_image_size);
            overlay::create(&context.local.home, image.top(), image.format(), &path, virtual_size)?;
        }
        image.touch()?;
        let below = overlay::below(&context.local.home, &path)?;
        if !below.image.iter().map(PathBuf::as_path).eq(image.files()) {
            return Err(stands_elsewhere(&guard, &below, &image));
        }
        let mut between = below.bases;
        between.extend(image.deltas().map(Path::to_owned));
        Ok(OverlaidBox { context, guard, room, memory, volumes, image, between })
    }
}
