//! The end of a box.

use jiff::{SignedDuration, Timestamp};

use super::{Held, Observed, Phase};
use crate::durable::{self, fault};
use crate::error::{Doing, Result};
use crate::gc;
use crate::site::Site;

/// How long an ended auto-remove box is left alone, so that whoever waits for it still finds its outcome.
const REAP_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// Removes a box that does not run: first its record, which releases its disk image, then its directory.
///
/// After a crash in between the directory has no record, and gc removes it.
pub(crate) fn remove(site: &Site, held: &Held) -> Result<()> {
    site.store.delete_box(&held.record.id)?;
    fault::point("rm.unrecorded").doing("removing", held.paths.root())?;
    durable::discard_dir(held.paths.root(), &site.home.tmp())?;
    gc::note_release(&site.home);
    Ok(())
}

/// Removes the auto-remove boxes whose runs have ended and for which nobody came.
///
/// What goes wrong with one of them is logged and left to the next time: listing and gc go on, also on a full disk.
pub(crate) fn reap(site: &Site) -> Result<()> {
    for record in site.store.boxes()? {
        if !record.options.auto_remove || record.phase == Phase::Created {
            continue;
        }
        if let Err(error) = reap_one(site, &record.id) {
            tracing::warn!(id = record.id, %error, "an ended box could not be removed");
        }
    }
    Ok(())
}

/// Removes the auto-remove box of that name if its run has ended; says whether the name is free now.
pub(crate) fn release_name(site: &Site, name: &str) -> Result<bool> {
    let record = site.store.find_box(name)?;
    if !record.options.auto_remove || record.phase == Phase::Created {
        return Ok(false);
    }
    let Some(held) = Held::try_take(site, &record.id)? else { return Ok(false) };
    match Observed::of(&site.home, &held.record)? {
        Observed::Resting(_) => remove(site, &held).map(|()| true),
        Observed::Running { .. } => Ok(false),
    }
}

fn reap_one(site: &Site, id: &str) -> Result<()> {
    let Some(held) = Held::try_take(site, id)? else { return Ok(()) };
    match Observed::of(&site.home, &held.record)? {
        Observed::Resting(phase) if ended_long_ago(&phase) => remove(site, &held),
        _ => Ok(()),
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
