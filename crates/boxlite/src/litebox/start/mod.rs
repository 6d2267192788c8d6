//! The start of a box: a chain of types, each consuming the one before.
//!
//! [`Resting`] → admission → [`Admitted`] → lease → [`Imaged`] → overlay → [`Overlaid`] → shim → running.
//! An overlay cannot be created, nor a shim spawned, by code that skipped admission, because only
//! [`Resting::admit`] makes an [`Admitted`]. A stage that fails leaves the box in the phase it had; what was
//! made until then is either used by the next start (disk image, overlay) or garbage that gc recognises.

mod disk;
mod launch;

use std::sync::Arc;

use super::{Held, Observed};
use crate::admission::{DiskSpaceTask, Admitted as SpaceAdmitted};
use crate::error::{Error, Result};
use crate::image::ProgressSink;
use crate::site::Site;

/// A held box that does not run.
pub(crate) struct Resting {
    site: Arc<Site>,
    held: Held,
}

/// A box for whose start there is room, with the claim on that room.
pub(crate) struct Admitted {
    site: Arc<Site>,
    held: Held,
    space: SpaceAdmitted,
}

/// Starts the box that `wanted` names and returns when its guest is up; a running one is left as it is.
///
/// Blocks; two starts of one box take turns, and the second finds it running.
pub(crate) fn start(site: &Arc<Site>, wanted: &str, progress: &dyn ProgressSink) -> Result<()> {
    let mut held = Held::take(site, wanted)?;
    if let Observed::Running { .. } = held.settle(site)? {
        return Ok(());
    }
    Resting { site: Arc::clone(site), held }.admit()?.lease(progress)?.overlay()?.launch()
}
