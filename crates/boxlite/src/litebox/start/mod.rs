//! The start of a box: a chain of types, each consuming the one before.
//!
//! [`RestingBox`] → admission → [`AdmittedBox`] → lease → [`ImagedBox`] → overlay → [`OverlaidBox`] → shim → running.
//! An overlay cannot be created, nor a shim spawned, by code that skipped admission, because only
//! [`RestingBox::admit`] makes an [`AdmittedBox`]. A stage that fails leaves the box in the phase it had; what was
//! made until then is either used by the next start (disk image, overlay) or garbage that gc recognises.
//! A [`MaintenanceBoot`] passes the same stages, and leaves the box at rest.

mod disk;
mod launch;
mod watch;

pub(crate) use disk::lease_image;

use std::path::{Path, PathBuf};

use boxlite_home::admission::{self, StartAdmission};
use boxlite_storage::image::Images;
use boxlite_types::{BoxRecord, Error, Phase, Progress, ProgressSink, Result, StartStage};
use boxlite_vm::shim::UserKernel;
use boxlite_vm::volume;

pub(crate) use watch::{StartWatch, TimedStage};

use super::named_volumes::AttachedVolumes;
use super::{BoxGuard, Observed, memory, quota};
use crate::context::LocalContext;

/// A box that is not running, under its guard.
pub(crate) struct RestingBox<'a> {
    context: StartContext<'a>,
    guard: BoxGuard,
}

/// A box whose start was admitted, with the claims on its disk space and its memory, and its named volumes attached.
pub(crate) struct AdmittedBox<'a> {
    context: StartContext<'a>,
    guard: BoxGuard,
    room: admission::Admission,
    memory: admission::MemoryPromise,
    volumes: AttachedVolumes,
}

/// The context that every stage works with.
#[derive(Clone, Copy)]
struct StartContext<'a> {
    local: &'a LocalContext,
    images: &'a Images,
    progress: &'a dyn ProgressSink,
    /// Files are only copied out of the box, which no floor forbids.
    reads_only: bool,
}

/// A box whose shim has spawned QEMU.
pub(crate) struct StartedBox {
    /// The user's kernel whose trial this start is; the caller says what came of it.
    pub(crate) trial: Option<UserKernel>,
}

/// Starts the guarded box and returns once its shim has spawned QEMU; a running box is left as it is (`None`).
///
/// `watch` takes the time of its stages.
///
/// Blocks. Two starts of one box take turns for the guard, and the second finds it running.
pub(crate) fn start(
    local: &LocalContext,
    images: &Images,
    mut guard: BoxGuard,
    progress: &dyn ProgressSink,
    watch: &StartWatch,
) -> Result<Option<StartedBox>> {
    match Observed::of(&local.home, &guard.record)? {
        Observed::Running { .. } => return Ok(None),
        // How the last run ended is recorded together with the start, once there is room for it.
        Observed::Resting(phase) => guard.record.phase = phase,
    }
    let context = StartContext { local, images, progress, reads_only: false };
    let resting = RestingBox { context, guard };
    let admitted = watch.time(StartStage::Admission, || resting.admit())?;
    let imaged = watch.time(StartStage::Image, || admitted.lease())?;
    let overlaid = watch.time(StartStage::Overlay, || imaged.overlay())?;
    watch.time(StartStage::Launch, || overlaid.launch()).map(Some)
}

/// A guest that was booted only for the files of a box that is not running.
///
/// Keeps the box's guard until it is dropped. The guest ends when it is stopped, or when no client has been connected to
/// it for a while.
pub(crate) struct MaintenanceBoot {
    pub(crate) guard: BoxGuard,
    /// The run's id, which names its outcome.
    pub(crate) run: String,
}

/// Boots a guest for the files of the guarded box, in the same stages as a start; `None` when the box runs.
///
/// A boot that `reads_only` is admitted at any free space: it writes a few KiB.
///
/// # Errors
/// As for [`start`]; `Conflict` for an auto-remove box that has exited.
pub(crate) fn boot_for_maintenance(
    local: &LocalContext,
    images: &Images,
    mut guard: BoxGuard,
    reads_only: bool,
) -> Result<Option<MaintenanceBoot>> {
    // Records how the last run ended: the maintenance guest's outcome replaces that run's in the box's directory.
    if let Observed::Running { .. } = guard.settle(local)? {
        return Ok(None);
    }
    let BoxRecord { options, phase, name, .. } = &guard.record;
    if options.auto_remove && *phase != Phase::Created {
        return Err(Error::conflict(format!(
            "box {name} has exited and is being removed, and its files with it"
        )));
    }
    let context = StartContext { local, images, progress: &(), reads_only };
    RestingBox { context, guard }.admit()?.lease()?.overlay()?.boot_for_maintenance().map(Some)
}

impl<'a> RestingBox<'a> {
    /// Asks for memory and for room on the disk before anything is written.
    ///
    /// Memory comes first: no garbage is collected for a start that is refused all the same.
    ///
    /// # Errors
    /// `ResourceExhausted` with the figures; `Conflict` while another box has one of the box's volumes.
    fn admit(self) -> Result<AdmittedBox<'a>> {
        let Self { context, guard } = self;
        let local = context.local;
        if !context.reads_only {
            quota::admit(&guard.record, &guard.paths)?;
        }
        let volumes = AttachedVolumes::attach(local, &guard.record)?;
        let memory = memory::admit(local, &guard.record)?;
        let written: Vec<PathBuf> =
            volume::writable_sources(&guard.record.volumes).map(Path::to_owned).collect();
        let keep = disk::digests(context, &guard.record);
        let task = StartAdmission {
            home: &local.home,
            settings: &local.settings,
            claim: if context.reads_only {
                0
            } else {
                guard.record.options.claim.unwrap_or(local.settings.claim.value.0)
            },
            reads_only: context.reads_only,
            also: &written,
            keep: &keep,
        };
        let room = task.run(&local.collector())?;
        for notice in room.notices() {
            context.progress.report(Progress::Notice { message: notice.message.clone() });
        }
        Ok(AdmittedBox { context, guard, room, memory, volumes })
    }
}
