//! The middle stages: the leased disk image, and the overlay above it.

use std::path::PathBuf;

use boxlite_home::admission;
use boxlite_home::lease::Leased;
use boxlite_storage::disk::overlay;
use boxlite_storage::disk::qcow2::BackingFormat;
use boxlite_storage::disk_image;
use boxlite_types::{BoxRecord, Error, ErrorKind, Result};

use super::{AdmittedBox, StartContext};
use crate::litebox::{BoxGuard, description};

/// A box whose disk image exists, is the right one, and cannot be collected.
pub(crate) struct ImagedBox<'a> {
    context: StartContext<'a>,
    guard: BoxGuard,
    room: admission::Admission,
    image: Leased,
}

/// A box whose overlay is durable and pins its disk image.
pub(crate) struct OverlaidBox<'a> {
    pub(super) context: StartContext<'a>,
    pub(super) guard: BoxGuard,
    pub(super) room: admission::Admission,
    pub(super) image: Leased,
    /// The bases between overlay and disk image, nearest first.
    pub(super) bases: Vec<PathBuf>,
}

impl<'a> AdmittedBox<'a> {
    /// Leases the box's disk image, building it first where it is missing.
    ///
    /// # Errors
    /// `Corrupt` when the disk image has vanished from below an overlay and cannot be made again as it was.
    pub(super) fn lease(self) -> Result<ImagedBox<'a>> {
        let Self { context, guard, room } = self;
        let record = &guard.record;
        let image = match disk_image::lease(&context.local.home, &record.disk_digest)? {
            Some(image) => image,
            None => build(context, record).map_err(|error| vanished(&guard, error))?,
        };
        Ok(ImagedBox { context, guard, room, image })
    }
}

/// Builds exactly the disk image that the record names.
fn build(context: StartContext<'_>, record: &BoxRecord) -> Result<Leased> {
    let image = context.images.find_blocking(&record.image)?;
    let virtual_size = record.disk_image_size;
    if disk_image::digest(&image, virtual_size) != record.disk_digest {
        return Err(Error::not_found("this version of boxlite builds other disk images"));
    }
    disk_image::ensure(context.images, &image, virtual_size, context.progress)
}

fn vanished(guard: &BoxGuard, error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let record = &guard.record;
    Error::corrupt(format!(
        "the disk image {} of box {} is missing and cannot be built again ({}); `boxlite pull {}` brings its \
         layers back",
        record.disk_digest,
        record.name,
        error.chain(),
        record.image_reference
    ))
    .because(error)
}

impl<'a> ImagedBox<'a> {
    /// Creates the overlay, unless there is one from an earlier run, and notes the disk image's use.
    pub(super) fn overlay(self) -> Result<OverlaidBox<'a>> {
        let Self { context, guard, room, image } = self;
        let path = guard.paths.overlay();
        description::ensure(context.local, &guard.paths, &guard.record)?;
        if !path.exists() {
            let options = &guard.record.options;
            let virtual_size = options.disk_size.unwrap_or(guard.record.disk_image_size);
            overlay::create(&context.local.home, &image, BackingFormat::Raw, &path, virtual_size)?;
        }
        image.touch()?;
        let bases = overlay::below(&context.local.home, &path)?.bases;
        Ok(OverlaidBox { context, guard, room, image, bases })
    }
}
