//! The middle stages: the leased disk image, and the overlay above it.

use std::path::PathBuf;

use boxlite_home::admission;
use boxlite_home::lease::Leased;
use boxlite_storage::disk::qcow2::BackingFormat;
use boxlite_storage::disk::{self, overlay};
use boxlite_types::{BoxRecord, Error, ErrorKind, Result};

use super::{Admitted, Context};
use crate::litebox::Held;

/// A box whose disk image exists, is the right one, and cannot be collected.
pub(crate) struct Imaged<'a> {
    context: Context<'a>,
    held: Held,
    room: admission::Admission,
    image: Leased,
}

/// A box whose overlay is durable and pins its disk image.
pub(crate) struct Overlaid<'a> {
    pub(super) context: Context<'a>,
    pub(super) held: Held,
    pub(super) room: admission::Admission,
    pub(super) image: Leased,
    /// The bases between overlay and disk image, nearest first.
    pub(super) bases: Vec<PathBuf>,
}

impl<'a> Admitted<'a> {
    /// Leases the box's disk image, building it first where it is missing.
    ///
    /// # Errors
    /// `Corrupt` when the disk image has vanished from below an overlay and cannot be made again as it was.
    pub(super) fn lease(self) -> Result<Imaged<'a>> {
        let Self { context, held, room } = self;
        let record = &held.record;
        let image = match disk::image::lease(&context.site.home, &record.disk_digest)? {
            Some(image) => image,
            None => build(context, record).map_err(|error| vanished(&held, error))?,
        };
        Ok(Imaged { context, held, room, image })
    }
}

/// Builds the very disk image that the record names.
fn build(context: Context<'_>, record: &BoxRecord) -> Result<Leased> {
    let image = context.images.find_blocking(&record.image)?;
    let virtual_size = record.disk_image_size;
    if disk::image::digest(&image, virtual_size) != record.disk_digest {
        return Err(Error::not_found("this version of boxlite builds other disk images"));
    }
    disk::image::ensure(context.images, &image, virtual_size, context.progress)
}

fn vanished(held: &Held, error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let record = &held.record;
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

impl<'a> Imaged<'a> {
    /// Creates the overlay, unless there is one from an earlier run, and notes the disk image's use.
    pub(super) fn overlay(self) -> Result<Overlaid<'a>> {
        let Self { context, held, room, image } = self;
        let path = held.paths.overlay();
        if !path.exists() {
            let options = &held.record.options;
            let virtual_size = options.disk_size.unwrap_or(held.record.disk_image_size);
            overlay::create(&context.site.home, &image, BackingFormat::Raw, &path, virtual_size)?;
        }
        image.touch()?;
        let bases = overlay::below(&context.site.home, &path)?.bases;
        Ok(Overlaid { context, held, room, image, bases })
    }
}
