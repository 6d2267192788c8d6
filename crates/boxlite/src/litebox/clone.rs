//! A copy of a resting box that shares what the original had written so far.
//!
//! The original's overlay becomes an immutable base, and both boxes get a new, empty overlay above it. At every
//! instant the original's overlay path names a complete disk: the base begins as a second name of the overlay
//! itself, and the new overlay replaces the old name in one rename. The copy's record comes last, so a copy that
//! exists never stands on a file that the original still writes to; what a crash leaves before that (a base or a
//! box directory) is garbage that gc knows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxlite_home::BoxPaths;
use boxlite_home::admission::SpaceGuard;
use boxlite_home::lease::Leased;
use boxlite_storage::disk::overlay;
use boxlite_storage::disk::qcow2::BackingFormat;
use boxlite_types::{CloneOptions, Error, Phase, Restarts, Result};
use jiff::Timestamp;

use super::create::Unrecorded;
use super::new_box::NewBox;
use super::{BoxGuard, Observed, base, create, memory, name, named_volumes, network, snapshot};
use crate::context::LocalContext;

/// Allocated bytes that a clone writes at most: two empty overlays, a directory, a record.
const CLONE_COST: u64 = 256 << 10;

/// Clones the guarded box, which must not be running. Blocks; asks for space before it writes.
///
/// # Errors
/// `Conflict` when the box runs, has been cloned and written to too often, or the name is taken;
/// `ResourceExhausted` with the figures.
pub(crate) fn clone(
    context: &Arc<LocalContext>,
    source: &mut BoxGuard,
    options: &CloneOptions,
) -> Result<NewBox> {
    if let Some(name) = &options.name {
        name::check(name)?;
    }
    if let Observed::Running { .. } = source.settle(context)? {
        let message = format!("box {} is running; stop it before it is cloned", source.record.name);
        return Err(Error::conflict(message));
    }
    if source.record.options.auto_remove && source.record.phase != Phase::Created {
        let message =
            format!("box {} has exited and is being removed, and its disk with it", source.record.name);
        return Err(Error::conflict(message));
    }
    if let Some(wanted) = &options.snapshot {
        snapshot::check_exists(&source.record, wanted)?;
    }
    let changed = options.applied_to(source.record.options.clone());
    if let Some(memory) = options.memory {
        memory::check(context, memory)?;
    }
    create::check(&changed, &source.record.image_config, source.record.disk_image_size)?;
    let guard = SpaceGuard::new(&context.home, &context.settings)?;
    let keep = vec![source.record.disk_digest.clone()];
    guard.collecting(Arc::new(context.collector()), keep).check_before(CLONE_COST)?;
    // Nothing may still write to the disk that becomes the base, so the lock is asked and not the record.
    let _at_rest = source.shim_lock()?;

    let mut record = source.record.clone();
    record.id = name::new_id();
    record.name = options.name.clone().unwrap_or_else(name::made_up);
    record.options = changed;
    if options.volumes.is_some() {
        record.volumes = create::volumes(context, &record.options)?;
        record.named_volumes = named_volumes::asked_for(&record.options)?;
    }
    record.created_at = Timestamp::now();
    record.phase = Phase::Created;
    record.restarts = Restarts::default();
    record.snapshots = Vec::new();

    let _volumes = named_volumes::ensure(context, &record.named_volumes)?;
    let joined = network::join(context, &record.id, &record.options, &[])?;
    record.memberships.clone_from(&joined.memberships);
    create::establish(context, &mut record, Unrecorded::Intent, |paths| match &options.snapshot {
        Some(wanted) => snapshot::stand_on(context, &source.record, wanted, paths),
        None => share_disk(context, source, paths),
    })?;
    Ok(NewBox::of(context, record))
}

/// Puts both boxes above one base and returns the bases that the clone stands on, nearest first. A box that was never
/// started has no disk yet, and neither has its clone.
///
/// The source stands on everything that the clone stands on, so gc keeps that while the clone is not published yet.
fn share_disk(context: &LocalContext, source: &BoxGuard, clone: &BoxPaths) -> Result<Vec<PathBuf>> {
    let own = source.paths.overlay();
    // Leased: the new base is this very file, and gc leaves it alone until an overlay stands on it.
    let Some(lease) = Leased::acquire(&own)? else { return Ok(Vec::new()) };
    let below = overlay::below(&context.home, &own)?;
    let stand_clone_on = |backing: &Path, format| {
        // The source's own overlay pins it meanwhile.
        let leased = Leased::acquire(backing)?.ok_or_else(|| {
            Error::corrupt(format!("the disk below the box is gone from {}", backing.display())).at(backing)
        })?;
        overlay::create(&context.home, &leased, format, &clone.overlay(), below.virtual_size)
    };
    if overlay::is_pristine(&lease)? {
        let nothing = || Error::corrupt("the disk of the box stands on nothing").at(&own);
        let (nearest, format) = below.nearest().ok_or_else(nothing)?;
        stand_clone_on(nearest, format)?;
        return Ok(below.bases);
    }
    let base = base::give_name(context, source, &lease, &below)?;
    stand_clone_on(&base, BackingFormat::Qcow2)?;
    overlay::replace(&context.home, &own, &base, below.virtual_size)?;
    drop(lease);
    let mut bases = below.bases;
    bases.insert(0, base);
    Ok(bases)
}
