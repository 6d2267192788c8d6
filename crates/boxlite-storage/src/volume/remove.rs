//! Removing volumes.

use boxlite_home::durable::{self, Lock, fault};
use boxlite_home::{EventLog, Home};
use boxlite_types::{Doing, Error, ErrorCause, ErrorKind, EventAction, HomeEvent, Result, VolumeDescription};

use super::attach::open;
use super::{check_name, open_directory, read};
use crate::references::{References, VolumeUser};
use crate::store::{IntentKind, Store};

/// Removes the volume `name` for good; returns the bytes that were allocated to it.
///
/// The intent is written first, so a crash leaves the rest to gc.
///
/// # Errors
/// `Conflict` while a box mounts it, naming the boxes; `Busy` while a box is being made of it or it is attached; `NotFound`;
/// `Corrupt` for what is not a volume.
pub fn remove(home: &Home, store: &Store, name: &str) -> Result<u64> {
    check_name(name)?;
    let volume = read(home, name)?;
    // Before the locks as well, since the name of the box that has the volume attached says more than that it is.
    refuse_mounted(home, store, name)?;
    let _locks = locks(home, &volume)?;
    refuse_mounted(home, store, name)?;
    store.intend(IntentKind::Volume, &volume.id, "it was removed")?;
    fault::point("volume.intended").doing("removing the volume", home.of_volume(name).root())?;
    discard(home, store, &volume)
}

/// Refuses a volume that a box mounts, or may mount.
fn refuse_mounted(home: &Home, store: &Store, name: &str) -> Result<()> {
    let references = References::of(home, store)?;
    let named = |user: &VolumeUser| {
        if user.recorded {
            return user.name.clone();
        }
        format!("{} (which has no record; `boxlite gc --adopt {}`)", user.name, user.id)
    };
    let users: Vec<String> = references.to(name).iter().map(named).collect();
    let refused = |message: String| Err(Error::conflict(message).about(ErrorCause::VolumeInUse));
    match (users.is_empty(), references.doubts.first()) {
        (false, _) => {
            refused(format!("volume '{name}' is mounted by box {}; remove that first", users.join(", ")))
        }
        (true, Some(doubt)) => refused(format!("volume '{name}' stays: {doubt}")),
        (true, None) => Ok(()),
    }
}

/// Removes the volume if that was decided and cut short; says whether its name is free now.
pub(super) fn finish_removal(home: &Home, store: &Store, volume: &VolumeDescription) -> Result<bool> {
    if !store.has_intent(IntentKind::Volume, &volume.id)? {
        return Ok(false);
    }
    let _locks = locks(home, volume)?;
    discard(home, store, volume)?;
    Ok(true)
}

/// Moves the volume out of sight, unlinks it, and drops its intent. The caller holds its locks.
fn discard(home: &Home, store: &Store, volume: &VolumeDescription) -> Result<u64> {
    let paths = home.of_volume(&volume.name);
    let allocated = durable::allocated_of(&paths.disk()).unwrap_or(0);
    durable::discard_dir(paths.root(), &home.tmp())?;
    EventLog::of(home).note(&HomeEvent::of_volume(EventAction::Remove, &volume.id, &volume.name));
    // One that stays, on a full disk say, names nothing any more.
    if let Err(error) = store.drop_intent(IntentKind::Volume, &volume.id) {
        tracing::debug!(error = %error.chain(), "the intent for a volume that is gone stays");
    }
    Ok(allocated)
}

/// Locks the volume's directory and its disk, if that is there, against everybody, without waiting.
fn locks(home: &Home, volume: &VolumeDescription) -> Result<(Lock, Option<Lock>)> {
    let (name, paths) = (&volume.name, home.of_volume(&volume.name));
    let gone = || Error::not_found(format!("there is no volume '{name}'")).about(ErrorCause::Volume);
    let busy = |why: &str| {
        Error::new(ErrorKind::Busy, format!("volume '{name}' {why}; try again"))
            .about(ErrorCause::VolumeInUse)
    };
    let directory = open_directory(paths.root())?.ok_or_else(gone)?;
    let lock = Lock::try_lock_open(directory, paths.root())?
        .ok_or_else(|| busy("is being removed, or a box that mounts it is being made"))?;
    // Another volume may have got the name since it was read.
    if !lock.still_at_path()? || read(home, name)?.id != volume.id {
        return Err(gone());
    }
    let disk = match open(&paths.disk(), false) {
        Ok(disk) => {
            Some(Lock::try_lock_open(disk, &paths.disk())?.ok_or_else(|| busy("is attached to a machine"))?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("opening the volume", paths.disk(), error)),
    };
    Ok((lock, disk))
}
