//! The middle stages: the leased disk image, and the overlay above it.

use std::sync::Arc;

use super::{Admitted, Resting};
use crate::admission::{Admitted as Space, DiskSpaceTask};
use crate::disk::{self, image::DiskImage, lease::Leased, overlay, qcow2::BackingFormat};
use crate::error::{Error, Result};
use crate::image::ProgressSink;
use crate::litebox::Held;
use crate::site::Site;

/// A box whose disk image exists, is the right one, and cannot be collected.
pub(crate) struct Imaged {
    pub(super) site: Arc<Site>,
    pub(super) held: Held,
    pub(super) space: Space,
    image: Leased,
}

/// A box whose overlay is durable and pins its disk image; the lease may end with this.
pub(crate) struct Overlaid {
    pub(super) site: Arc<Site>,
    pub(super) held: Held,
    pub(super) space: Space,
    pub(super) image: Leased,
}

impl Admitted {
    /// Leases the box's disk image, building it first where it is missing.
    pub(crate) fn lease(self, progress: &dyn ProgressSink) -> Result<Imaged> {
        let Self { site, mut held, space } = self;
        let image = site.catalogue().find(&held.record.image)?;
        let has_overlay = held.paths.overlay().exists();
        todo!()
    }
}

impl Imaged {
    /// Creates the overlay, or checks that the one from an earlier run lies above this very disk image.
    pub(crate) fn overlay(self) -> Result<Overlaid> {
        let Self { site, held, space, image } = self;
        let path = held.paths.overlay();
        if path.exists() {
            overlay::verify(&path, &image)?;
        } else {
            let virtual_size = held.record.options.disk_size.unwrap_or(site.settings.disk_size.value.0);
            overlay::create(&site.home, &image, BackingFormat::Raw, &path, virtual_size)?;
        }
        image.touch()?;
        Ok(Overlaid { site, held, space, image })
    }
}
