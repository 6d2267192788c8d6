//! The end of a box.

use boxlite_home::durable::{self, Lock, fault};
use boxlite_storage::gc;
use boxlite_storage::store::ListedBox;
use boxlite_types::{BoxRecord, Doing, Error, ErrorKind, Phase, Result};
use jiff::{SignedDuration, Timestamp};

use super::hold::shim_lock;
use super::{Held, Observed};
use crate::site::Site;

/// How long an ended auto-remove box is left alone, so that whoever waits for it still finds its outcome.
const REAP_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// Removes a box that does not run: first its record, which releases its disk image, then its directory.
///
/// After a crash in between the directory has no record, and gc removes it.
///
/// # Errors
/// `Busy` when processes of the box do not go.
pub(crate) fn remove(site: &Site, held: &Held) -> Result<()> {
    let _at_rest = held.shim_lock()?;
    site.store.delete_box(&held.record.id)?;
    fault::point("rm.unrecorded").doing("removing", held.paths.root())?;
    durable::discard_dir(held.paths.root(), &site.home.tmp())?;
    gc::note_release(&site.home);
    Ok(())
}

/// Removes the box `id` whose record cannot be read, or which has lost its directory; its shim must have been ended.
///
/// # Errors
/// `Busy` when another process has its hands on it, or it runs.
pub(crate) fn remove_damaged(site: &Site, id: &str) -> Result<()> {
    let paths = site.home.of_box(id);
    let mut locks = Vec::new();
    if paths.root().is_dir() {
        let path = paths.state_lock();
        let busy =
            || Error::new(ErrorKind::Busy, format!("box {id} is in use: {} is locked", path.display()));
        locks.push(Lock::try_exclusive(&path)?.ok_or_else(busy)?);
        locks.push(shim_lock(&paths, id)?);
    }
    site.store.delete_box(id)?;
    durable::discard_dir(paths.root(), &site.home.tmp())?;
    gc::note_release(&site.home);
    Ok(())
}

/// Removes the auto-remove boxes whose runs have ended and for which nobody came.
///
/// What goes wrong with one of them is logged and left to the next time: listing and gc go on, also on a full disk.
pub(crate) fn reap(site: &Site) -> Result<()> {
    for record in site.store.boxes()?.into_iter().filter_map(ListedBox::whole) {
        if let Err(error) = remove_ended(site, &record, ended_long_ago) {
            tracing::warn!(id = record.id, error = %error.chain(), "an ended box could not be removed");
        }
    }
    Ok(())
}

/// Removes the auto-remove box of that name if its run has ended; says whether the name is free now.
pub(crate) fn release_name(site: &Site, name: &str) -> Result<bool> {
    remove_ended(site, &site.store.find_box(name)?, |_| true)
}

/// Removes an auto-remove box whose run has ended in a way that `suits`; says whether it did.
fn remove_ended(site: &Site, record: &BoxRecord, suits: impl Fn(&Phase) -> bool) -> Result<bool> {
    if !record.options.auto_remove || record.phase == Phase::Created {
        return Ok(false);
    }
    let Some(held) = Held::try_take(site, &record.id)? else { return Ok(false) };
    match Observed::of(&site.home, &held.record)? {
        Observed::Resting(phase) if suits(&phase) => remove(site, &held).map(|()| true),
        _ => Ok(false),
    }
}

fn ended_long_ago(phase: &Phase) -> bool {
    let ended = match phase {
        Phase::Created | Phase::Started { .. } => return false,
        Phase::Ended { ending, .. } => ending.at,
        Phase::Failed { at, .. } => *at,
    };
    ended.is_none_or(|at| Timestamp::now().duration_since(at) > REAP_AFTER)
}
