//! The start of a box: a chain of types, each consuming the one before.
//!
//! [`Resting`] → admission → [`Admitted`] → lease → [`Imaged`] → overlay → [`Overlaid`] → shim → running.
//! An overlay cannot be created, nor a shim spawned, by code that skipped admission, because only
//! [`Resting::admit`] makes an [`Admitted`]. A stage that fails leaves the box in the phase it had; what was
//! made until then is either used by the next start (disk image, overlay) or garbage that gc recognises.
//! An [`Errand`] passes the same stages, and leaves the box at rest.

mod disk;
mod launch;

use std::path::{Path, PathBuf};

use boxlite_home::admission::{self, StartAdmission};
use boxlite_storage::image::Images;
use boxlite_types::{BoxRecord, Error, Phase, Progress, ProgressSink, Result};
use boxlite_vm::volume;

use super::{Held, Observed};
use crate::site::Site;

/// A held box that does not run.
pub(crate) struct Resting<'a> {
    context: Context<'a>,
    held: Held,
}

/// A box for whose start there is room, with the claim on that room.
pub(crate) struct Admitted<'a> {
    context: Context<'a>,
    held: Held,
    room: admission::Admission,
}

/// What every stage works with.
#[derive(Clone, Copy)]
struct Context<'a> {
    site: &'a Site,
    images: &'a Images,
    progress: &'a dyn ProgressSink,
}

/// Starts a held box and returns true when its shim has spawned QEMU; one that runs is left as it is (false).
///
/// Blocks. Two starts of one box take turns for the hold, and the second finds it running.
pub(crate) fn start(
    site: &Site,
    images: &Images,
    mut held: Held,
    progress: &dyn ProgressSink,
) -> Result<bool> {
    match Observed::of(&site.home, &held.record)? {
        Observed::Running { .. } => return Ok(false),
        // How the last run ended is written down with the start, once there is room for it.
        Observed::Resting(phase) => held.record.phase = phase,
    }
    let context = Context { site, images, progress };
    Resting { context, held }.admit()?.lease()?.overlay()?.launch()?;
    Ok(true)
}

/// A guest that was brought up for the files of a box that rests, which is held until this is dropped. It ends when it
/// is stopped, or when nobody has been connected to it for a while.
pub(crate) struct Errand {
    pub(crate) held: Held,
    /// Names its outcome.
    pub(crate) run: String,
}

/// Brings up a guest for the files of a held box by the same stages as a start; `None` when the box runs.
///
/// # Errors
/// As for [`start`]; `Conflict` for a box that removes itself and has ended.
pub(crate) fn errand(site: &Site, images: &Images, mut held: Held) -> Result<Option<Errand>> {
    // How the last run ended is written down: the guest's own end takes its place in the box's directory.
    if let Observed::Running { .. } = held.settle(site)? {
        return Ok(None);
    }
    let BoxRecord { options, phase, name, .. } = &held.record;
    if options.auto_remove && *phase != Phase::Created {
        return Err(Error::conflict(format!("box {name} goes now that it has ended, and its files with it")));
    }
    let context = Context { site, images, progress: &() };
    Resting { context, held }.admit()?.lease()?.overlay()?.errand().map(Some)
}

impl<'a> Resting<'a> {
    /// Asks for room before anything is written.
    ///
    /// # Errors
    /// `ResourceExhausted` with the figures.
    fn admit(self) -> Result<Admitted<'a>> {
        let Self { context, held } = self;
        let site = context.site;
        let written: Vec<PathBuf> =
            volume::writable_sources(&held.record.volumes).map(Path::to_owned).collect();
        let task = StartAdmission {
            home: &site.home,
            settings: &site.settings,
            claim: held.record.options.claim.unwrap_or(site.settings.claim.value.0),
            also: &written,
            keep: std::slice::from_ref(&held.record.disk_digest),
        };
        let room = task.run(&site.collector())?;
        for notice in room.notices() {
            context.progress.report(Progress::Notice { message: notice.message.clone() });
        }
        Ok(Admitted { context, held, room })
    }
}
