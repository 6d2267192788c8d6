//! Snapshots of a box: bases that its record names.
//!
//! # Crash safety
//! A snapshot is five durable steps: the use of the base is noted, the overlay gets its second name in `bases/`, a new
//! overlay above it takes its place, a running QEMU goes over to that, and the record names the base. After a crash between
//! any two the box starts with all that it wrote, because its overlay's path names a complete disk throughout: what a QEMU
//! that was not told yet writes goes into the base, which nothing else stands on. The snapshot exists once it is recorded.
//! An attempt that was not recorded leaves the box on one more base; a second attempt uses the base that the first one made.
//!
//! A restore is one rename, and what the box has left is noted in the same transaction that records nothing else: a crash
//! between the two leaves bases that gc keeps until the box's next snapshot, restore or removal.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxlite_home::BoxPaths;
use boxlite_home::admission::SpaceGuard;
use boxlite_home::durable::{self, fault};
use boxlite_home::lease::Leased;
use boxlite_proto::DiskIdentity;
use boxlite_storage::disk::overlay::{self, Below};
use boxlite_storage::disk::qcow2::BackingFormat;
use boxlite_types::{BoxRecord, Doing, Error, ErrorCause, Phase, Result, Snapshot, SnapshotRecord};
use jiff::Timestamp;

use super::{BoxGuard, base, description, name};
use crate::context::LocalContext;

/// Allocated bytes that a snapshot or restore writes at most: an empty overlay and a record.
const SNAPSHOT_COST: u64 = 128 << 10;

/// Snapshots of one box: their names are in its record.
const MAX_SNAPSHOTS: usize = 128;

/// Checks whether the guarded box may have one more snapshot, and returns its name.
///
/// # Errors
/// `InvalidInput` for a malformed name; `Conflict` for one that is taken, and for too many; `ResourceExhausted` with the
/// figures.
pub(crate) fn admit(context: &Arc<LocalContext>, guard: &BoxGuard, wanted: Option<&str>) -> Result<String> {
    let BoxRecord { snapshots, name, .. } = &guard.record;
    let is_taken = |name: &str| snapshots.iter().any(|snapshot| snapshot.name == name);
    if let Some(wanted) = wanted {
        name::check(wanted)?;
        if is_taken(wanted) {
            return Err(Error::conflict(format!("box {name} has a snapshot '{wanted}' already")));
        }
    }
    if snapshots.len() >= MAX_SNAPSHOTS {
        let message = format!("box {name} has {MAX_SNAPSHOTS} snapshots; remove some (boxlite snapshot rm)");
        return Err(Error::conflict(message));
    }
    refuse_ended(&guard.record)?;
    ask_for_space(context, guard)?;
    let of_time = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let made_up = (1..).map(|count| if count == 1 { of_time.clone() } else { format!("{of_time}-{count}") });
    let made_up = || made_up.into_iter().find(|name| !is_taken(name)).unwrap_or_default();
    Ok(wanted.map_or_else(made_up, str::to_owned))
}

/// Asks for what a snapshot takes of the disk.
///
/// # Errors
/// `ResourceExhausted` with the figures.
pub(crate) fn ask_for_space(context: &Arc<LocalContext>, guard: &BoxGuard) -> Result<()> {
    let space = SpaceGuard::new(&context.home, &context.settings)?;
    let keep = vec![guard.record.disk_digest.clone()];
    space.collecting(Arc::new(context.collector()), keep).check_before(SNAPSHOT_COST).map(drop)
}

/// Refuses a box that is removed because it has ended. Its record must be settled, or the box run.
pub(crate) fn refuse_ended(record: &BoxRecord) -> Result<()> {
    if record.options.auto_remove && !matches!(record.phase, Phase::Created | Phase::Started { .. }) {
        let message = format!("box {} has exited and is being removed, and its disk with it", record.name);
        return Err(Error::conflict(message));
    }
    Ok(())
}

/// Takes the snapshot `name` of the guarded box, which is settled and does not run.
pub(crate) fn take_at_rest(context: &LocalContext, guard: &mut BoxGuard, name: String) -> Result<Snapshot> {
    // Nothing may still write to the disk that becomes the base, so the lock is asked and not the record.
    let at_rest = guard.shim_lock()?;
    let base = freeze_overlay(context, guard)?;
    drop(at_rest);
    record(context, guard, name, base.as_deref(), None)
}

/// Makes a base of what the box has written, and puts a new overlay above it; `None` for a box that wrote nothing at all.
fn freeze_overlay(context: &LocalContext, guard: &BoxGuard) -> Result<Option<PathBuf>> {
    let own = guard.paths.overlay();
    let Some(lease) = Leased::acquire(&own)? else { return Ok(None) };
    let below = overlay::below(&context.home, &own)?;
    if overlay::is_pristine(&lease)? {
        return Ok(below.bases.into_iter().next());
    }
    put_above(context, guard, &lease, &below).map(Some)
}

fn put_above(context: &LocalContext, guard: &BoxGuard, lease: &Leased, below: &Below) -> Result<PathBuf> {
    let base = base::give_name(context, guard, lease, below)?;
    overlay::replace(&context.home, lease.path(), &base, below.virtual_size)?;
    fault::point("snapshot.replaced").doing("taking a snapshot of", lease.path())?;
    Ok(base)
}

/// Puts a new overlay above the disk `active`, which the guarded box runs on: QEMU is to go over to it. Returns the base
/// that the disk is by then.
///
/// # Errors
/// `Corrupt` when the box's disk is neither `active` nor stands on it.
pub(crate) fn prepare_running(
    context: &LocalContext,
    guard: &BoxGuard,
    active: DiskIdentity,
) -> Result<PathBuf> {
    let own = guard.paths.overlay();
    let is_active = |path: &Path| -> Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let found = path.symlink_metadata().doing("examining", path)?;
        Ok((found.dev(), found.ino()) == (active.device, active.inode))
    };
    let stray = || {
        Error::corrupt(format!(
            "box {} runs on another disk than {}; stop it, and look at what is there",
            guard.record.name,
            own.display()
        ))
        .at(&own)
    };
    let lease = Leased::acquire(&own)?.ok_or_else(stray)?;
    let below = overlay::below(&context.home, &own)?;
    if is_active(&own)? {
        return put_above(context, guard, &lease, &below);
    }
    // An earlier snapshot was killed after this step.
    match below.bases.into_iter().next() {
        Some(base) if is_active(&base)? => Ok(base),
        _ => Err(stray()),
    }
}

/// Records the snapshot `name`, which `base` holds. Nothing writes to that any more.
pub(crate) fn record(
    context: &LocalContext,
    guard: &mut BoxGuard,
    name: String,
    base: Option<&Path>,
    frozen_us: Option<u64>,
) -> Result<Snapshot> {
    let doing = "taking a snapshot of";
    fault::point("snapshot.switched").doing(doing, &guard.record.name)?;
    if let Some(base) = base {
        // QEMU may have written it without flushing.
        durable::sync_file(base)?;
    }
    let base = base.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let snapshot = SnapshotRecord { name, base, created_at: Timestamp::now(), frozen_us };
    guard.record.snapshots.push(snapshot.clone());
    let recorded = write(context, guard);
    if recorded.is_err() {
        guard.record.snapshots.pop();
    }
    recorded?;
    fault::point("snapshot.recorded").doing(doing, &guard.record.name)?;
    Ok(describe(context, &guard.record, &snapshot))
}

/// Writes the record and its description, and lets go of the bases that neither the overlay nor a snapshot stands on.
fn write(context: &LocalContext, guard: &BoxGuard) -> Result<()> {
    match needed(context, guard) {
        Ok(bases) => context.store.update_box_on(&guard.record, &bases)?,
        Err(error) => {
            tracing::warn!(error = %error.chain(), "a disk of the box cannot be read, and all its bases stay");
            context.store.update_box(&guard.record)?;
        }
    }
    description::write(context, &guard.paths, &guard.record)
}

/// The bases that the box's overlay and its snapshots stand on.
fn needed(context: &LocalContext, guard: &BoxGuard) -> Result<Vec<PathBuf>> {
    let own = guard.paths.overlay();
    let mut needed =
        if own.symlink_metadata().is_ok() { overlay::below(&context.home, &own)?.bases } else { Vec::new() };
    needed.extend(bases_of_snapshots(context, &guard.record)?);
    Ok(needed)
}

/// The bases that the box's snapshots are kept in, and those that these stand on.
pub(super) fn bases_of_snapshots(context: &LocalContext, record: &BoxRecord) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for base in record.snapshots.iter().filter_map(|snapshot| path_of(context, snapshot)) {
        found.extend(overlay::below(&context.home, &base)?.bases);
        found.push(base);
    }
    Ok(found)
}

/// The base of a snapshot; none for a name that leads out of the directory of bases.
fn path_of(context: &LocalContext, snapshot: &SnapshotRecord) -> Option<PathBuf> {
    let name = Path::new(snapshot.base.as_ref()?).file_name()?;
    Some(context.home.bases().join(name))
}

/// The snapshots of the box, oldest first.
pub(crate) fn list(context: &LocalContext, record: &BoxRecord) -> Vec<Snapshot> {
    record.snapshots.iter().map(|snapshot| describe(context, record, snapshot)).collect()
}

fn describe(context: &LocalContext, record: &BoxRecord, snapshot: &SnapshotRecord) -> Snapshot {
    let base = path_of(context, snapshot);
    let of_image = || record.options.disk_size.unwrap_or(record.disk_image_size);
    let virtual_size = base.as_ref().and_then(|base| overlay::below(&context.home, base).ok());
    Snapshot {
        name: snapshot.name.clone(),
        box_id: record.id.clone(),
        created_at: snapshot.created_at,
        bytes: base.map_or(Some(0), |base| durable::allocated_of(&base).ok()),
        virtual_size: virtual_size.map_or_else(of_image, |below| below.virtual_size),
        frozen_us: snapshot.frozen_us,
    }
}

/// The base that holds the box's snapshot `wanted`; `None` where the box had written nothing.
///
/// # Errors
/// `NotFound`.
pub(crate) fn base_of(context: &LocalContext, record: &BoxRecord, wanted: &str) -> Result<Option<PathBuf>> {
    Ok(path_of(context, find(record, wanted)?))
}

fn find<'a>(record: &'a BoxRecord, wanted: &str) -> Result<&'a SnapshotRecord> {
    record.snapshots.iter().find(|snapshot| snapshot.name == wanted).ok_or_else(|| {
        Error::not_found(format!(
            "box {} has no snapshot '{wanted}'; `boxlite snapshot ls {}` lists those that it has",
            record.name, record.name
        ))
        .about(ErrorCause::Snapshot)
    })
}

/// Checks that the box has the snapshot.
///
/// # Errors
/// `NotFound`.
pub(crate) fn check_exists(record: &BoxRecord, wanted: &str) -> Result<()> {
    find(record, wanted).map(drop)
}

/// Puts the guarded box, which is settled and does not run, back to its snapshot `wanted`. What it wrote since is gone.
pub(crate) fn restore(context: &Arc<LocalContext>, guard: &BoxGuard, wanted: &str) -> Result<()> {
    let snapshot = find(&guard.record, wanted)?;
    refuse_ended(&guard.record)?;
    ask_for_space(context, guard)?;
    let _at_rest = guard.shim_lock()?;
    let own = guard.paths.overlay();
    match path_of(context, snapshot) {
        Some(base) => {
            let _lease = lease_base(&base, wanted)?;
            let of_base = overlay::below(&context.home, &base)?.virtual_size;
            // The disk may have been enlarged since the snapshot.
            let present = overlay::below(&context.home, &own).map_or(0, |below| below.virtual_size);
            overlay::replace(&context.home, &own, &base, of_base.max(present))?;
        }
        // The next start makes the overlay that a new box gets.
        None if own.symlink_metadata().is_ok() => {
            durable::discard(&own, &context.home.tmp())?.delete()?;
        }
        None => {}
    }
    fault::point("restore.replaced").doing("restoring", &own)?;
    write(context, guard)
}

/// Puts a clone on the snapshot `wanted` of the box of `record`, whose guard the caller holds; returns the bases that the
/// clone stands on.
pub(super) fn stand_on(
    context: &LocalContext,
    record: &BoxRecord,
    wanted: &str,
    clone: &BoxPaths,
) -> Result<Vec<PathBuf>> {
    // A clone that has no disk gets that of a new box.
    let Some(base) = path_of(context, find(record, wanted)?) else { return Ok(Vec::new()) };
    let lease = lease_base(&base, wanted)?;
    let below = overlay::below(&context.home, &base)?;
    overlay::create(&context.home, &lease, BackingFormat::Qcow2, &clone.overlay(), below.virtual_size)?;
    Ok(std::iter::once(base.clone()).chain(below.bases).collect())
}

fn lease_base(base: &Path, wanted: &str) -> Result<Leased> {
    Leased::acquire(base)?.ok_or_else(|| {
        let message = format!("the base of snapshot '{wanted}' is gone from {}", base.display());
        Error::corrupt(message).at(base)
    })
}

/// Forgets the snapshot `wanted`; gc removes its base once nothing stands on it.
pub(crate) fn remove(context: &LocalContext, guard: &mut BoxGuard, wanted: &str) -> Result<()> {
    find(&guard.record, wanted)?;
    guard.record.snapshots.retain(|snapshot| snapshot.name != wanted);
    write(context, guard)
}
