//! Named volumes: filesystems of their own, which boxes attach as block devices and which outlive them.
//!
//! # Layout
//! `volumes/<name>/` holds `volume.json`, which is written once, and `disk.ext4`: a sparse ext4 file with a journal, whose
//! length bounds what it can hold. Its files lie in the directory `data` of that filesystem, so that a guest can fill it
//! and give it that name in one rename, and so that a box finds no `lost+found` among its own.
//!
//! There is no row in the database: a home that is copied or restored file by file has whole volumes, and only boxes'
//! records say who mounts them.
//!
//! # Locking
//! - The **directory** is locked shared while a box that mounts the volume is being recorded ([`VolumeLease`]), and
//!   exclusively while the volume is being removed. So a removal either meets the lease, or finds the record, or the box
//!   finds the volume gone and makes a new one.
//! - The **disk** is locked exclusively by the one machine that may write to it, and shared by machines that only read
//!   ([`VolumeDisk`]). The lock is that of the very open file that QEMU gets: it ends with QEMU, however that ends, and
//!   QEMU's system calls know no way to release it.
//!
//! # Crash safety
//! A volume is made out of sight and published by one rename; a killed maker leaves trash in `images/tmp`. A removal
//! writes an intent, which names the volume by its id, moves the directory out of sight by one rename and unlinks it: what a
//! kill leaves is gc's to finish. Nothing else is ever removed of `volumes/`.

mod attach;
mod remove;

use std::fs::File;
use std::io::ErrorKind as IoErrorKind;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use boxlite_ext4::{BuildError, BuildOptions, BuildProgress, LayerSource};
use boxlite_home::admission::{Collector, SpaceGuard};
use boxlite_home::durable::{self, Lock, Staged, StagedDir, fault};
use boxlite_home::lease::HOLDER_TIMEOUT;
use boxlite_home::settings::{Bytes, Settings};
use boxlite_home::{EventLog, Home, VolumePaths};
use boxlite_types::{
    Doing, Error, ErrorCause, ErrorKind, EventAction, HomeEvent, Result, VolumeDescription, VolumeOptions,
    is_volume_name,
};
use jiff::Timestamp;
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use crate::named;
use crate::store::{IntentKind, Store};

pub use attach::{VolumeDisk, is_attached};
use remove::finish_removal;
pub use remove::remove;

/// The smallest volume, which the builder of filesystems sets.
const MIN_SIZE: u64 = 32 << 20;

/// The largest.
const MAX_SIZE: u64 = 16 << 40;

/// Sizes are rounded up to this.
const SIZE_UNIT: u64 = 1 << 20;

/// Allocated bytes that an empty volume takes at most beside a small part of its size: its filesystem's tables.
const EMPTY_COST: u64 = 2 << 20;

/// A group of 128 MiB of the filesystem has two blocks of bitmaps at most.
const SIZE_PER_COST: u64 = (128 << 20) / (2 * boxlite_ext4::BLOCK_SIZE as u64);

/// The only layer of an empty volume: a tar archive with the directory `data`.
const DATA_DIRECTORY: &str = "data/";

/// While this is held the volume is not removed.
#[derive(Debug)]
pub struct VolumeLease {
    _lock: Lock,
    /// Its description.
    pub volume: VolumeDescription,
}

/// Refuses a name that no volume can have.
///
/// # Errors
/// `InvalidInput`.
pub fn check_name(name: &str) -> Result<()> {
    if is_volume_name(name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name:?} is not a name for a volume: a letter or digit, then letters, digits, `_`, `.` and `-`, 128 at most"
    )))
}

/// Makes the volume that `options` ask for. Blocks for some milliseconds.
///
/// # Errors
/// `Conflict` when there is one of that name, `InvalidInput` for a name or size that cannot be, `ResourceExhausted` with the
/// figures, after which nothing is left.
pub fn create(
    home: &Home,
    store: &Store,
    settings: &Settings,
    collector: Arc<dyn Collector>,
    options: &VolumeOptions,
) -> Result<VolumeDescription> {
    check_name(&options.name)?;
    let volume = VolumeDescription {
        format: VolumeDescription::FORMAT,
        id: uuid::Uuid::new_v4().simple().to_string(),
        name: options.name.clone(),
        size: checked_size(options.size.unwrap_or(settings.volume_size.value.0))?,
        labels: options.labels.clone(),
        created_at: Timestamp::now(),
    };
    let paths = home.of_volume(&volume.name);
    // The remains of a killed removal no longer have the name.
    match read(home, &volume.name) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if finish_removal(home, store, &found)? => {}
        Ok(_) => return Err(taken(&volume.name, &paths)),
    }
    named::ensure_own(&home.volumes(), "volumes")?;
    let space = SpaceGuard::new(home, settings)?.collecting(collector, Vec::new());
    space.check_before(EMPTY_COST + volume.size / SIZE_PER_COST)?;
    let staged = StagedDir::create(&home.tmp())?;
    let unseen = VolumePaths::new(staged.path().to_owned());
    build(home, &volume, &unseen.disk(), &space)?;
    let text = serde_json::to_vec_pretty(&volume)
        .map_err(|source| Error::bug(format!("a volume cannot be written down: {source}")))?;
    durable::write_atomically(&home.tmp(), &unseen.description(), &text)?;
    fault::point("volume.unpublished").doing("creating the volume", paths.root())?;
    staged.publish(paths.root()).map_err(|error| match error.kind() {
        ErrorKind::Conflict => taken(&volume.name, &paths),
        _ => error,
    })?;
    EventLog::of(home).note(&HomeEvent::of_volume(EventAction::Create, &volume.id, &volume.name));
    Ok(volume)
}

fn taken(name: &str, paths: &VolumePaths) -> Error {
    Error::conflict(format!("there is a volume '{name}' already")).at(paths.root()).about(ErrorCause::Volume)
}

/// Leases the volume that `options` name, which is made first where there is none, as Docker does.
///
/// # Errors
/// As for [`create`], and `Corrupt` for a volume whose description cannot be read.
pub fn ensure(
    home: &Home,
    store: &Store,
    settings: &Settings,
    collector: &Arc<dyn Collector>,
    options: &VolumeOptions,
) -> Result<VolumeLease> {
    loop {
        if let Some(lease) = lease(home, &options.name)? {
            // Its removal was decided and cut short.
            if !store.has_intent(IntentKind::Volume, &lease.volume.id)? {
                return Ok(lease);
            }
            drop(lease);
        }
        match create(home, store, settings, Arc::clone(collector), options) {
            Ok(_) => {}
            // Another has made it meanwhile.
            Err(error) if error.kind() == ErrorKind::Conflict && read(home, &options.name).is_ok() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Leases the volume `name`; `None` when there is none.
///
/// Waits while it is being removed.
///
/// # Errors
/// `Busy` when that does not end within a minute.
pub fn lease(home: &Home, name: &str) -> Result<Option<VolumeLease>> {
    check_name(name)?;
    let paths = home.of_volume(name);
    loop {
        let Some(directory) = open_directory(paths.root())? else { return Ok(None) };
        let lock = Lock::shared_within(directory, paths.root(), HOLDER_TIMEOUT)?;
        let lock = lock.ok_or_else(|| boxlite_home::lease::held(paths.root()))?;
        fault::point("volume.leased").doing("leasing the volume", paths.root())?;
        if lock.still_at_path()? {
            return Ok(Some(VolumeLease { _lock: lock, volume: read(home, name)? }));
        }
    }
}

/// Reads what the volume `name` is.
///
/// # Errors
/// `NotFound` when there is none; `Corrupt` for what nothing explains in `volumes/`; `Unsupported` for a volume of a newer
/// boxlite.
pub fn read(home: &Home, name: &str) -> Result<VolumeDescription> {
    check_name(name)?;
    let paths = home.of_volume(name);
    let check = |volume: &VolumeDescription| {
        if boxlite_home::is_id(&volume.id) { Ok(()) } else { Err("its id is not one".to_owned()) }
    };
    named::read(paths.root(), &paths.description(), name, check)?
        .ok_or_else(|| Error::not_found(format!("there is no volume '{name}'")).about(ErrorCause::Volume))
}

/// The names of everything in `volumes/`, sorted; what is not UTF-8 is shown as well as can be.
///
/// # Errors
/// `Io` when the directory cannot be listed.
pub fn names(home: &Home) -> Result<Vec<String>> {
    named::names(&home.volumes())
}

/// Opens a volume's directory; `None` when there is none.
fn open_directory(path: &Path) -> Result<Option<File>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    match File::options().read(true).custom_flags(flags.bits() as i32).open(path) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("opening the volume", path, error)),
    }
}

fn checked_size(wanted: u64) -> Result<u64> {
    let size = wanted.checked_next_multiple_of(SIZE_UNIT).unwrap_or(u64::MAX);
    if (MIN_SIZE..=MAX_SIZE).contains(&size) {
        return Ok(size);
    }
    Err(Error::invalid(format!(
        "a volume has from {} to {}, not {}; a number without a unit counts bytes",
        Bytes(MIN_SIZE),
        Bytes(MAX_SIZE),
        Bytes(wanted)
    )))
}

/// Builds the filesystem of a new volume at `disk`. Its UUID follows from the volume's id.
fn build(home: &Home, volume: &VolumeDescription, disk: &Path, space: &SpaceGuard) -> Result<()> {
    let staged = Staged::create(&home.tmp(), "volume")?;
    let tar = empty_archive();
    let layer = LayerSource {
        diff_id: Sha256::digest(&tar).into(),
        reader: Box::new(std::io::Cursor::new(tar)),
        label: "of an empty volume".to_owned(),
        blob_digest: None,
    };
    let identity = Sha256::digest(format!("boxlite volume {}", volume.id)).into();
    let options = BuildOptions { virtual_size: volume.size, ..BuildOptions::new(identity) };
    let mut refusal = None;
    let mut observer = |so_far: &BuildProgress| match space.check_streaming(so_far.written) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            refusal = Some(error);
            ControlFlow::Break(())
        }
    };
    let built = boxlite_ext4::build(vec![layer], staged.file(), &options, &mut observer);
    built.map_err(|error| match error {
        BuildError::Aborted { .. } if refusal.is_some() => refusal.unwrap_or_else(|| Error::bug("refused")),
        BuildError::Write { source, .. } => Error::io("writing the volume at", staged.path(), source),
        other => Error::bug("the filesystem of an empty volume cannot be built").because(other),
    })?;
    staged.publish(disk).map(drop)
}

/// A tar archive with one empty directory.
fn empty_archive() -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, DATA_DIRECTORY);
    for (at, number) in [(100, "0000755"), (108, "0000000"), (116, "0000000"), (136, "00000000000")] {
        put(at, number);
    }
    put(124, "00000000000");
    put(148, "        ");
    put(156, "5");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.resize(3 * BLOCK, 0);
    archive
}
