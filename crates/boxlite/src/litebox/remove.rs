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
pub(crate) fn reap(site: &Site) -> Result<()> {
    for record in site.store.boxes()? {
        if !record.options.auto_remove || record.phase == Phase::Created {
            continue;
        }
        let Ok(Some(held)) = Held::try_take(site, &record.id) else { continue };
        if let Observed::Resting(phase) = Observed::of(&site.home, &held.record)?
            && ended_long_ago(&phase)
        {
            remove(site, &held)?;
        }
    }
    Ok(())
}

fn ended_long_ago(phase: &Phase) -> bool {
    let ended = match phase {
        Phase::Created | Phase::Started { .. } => return false,
        Phase::Ended { ending, .. } => ending.at,
        Phase::Failed { at, .. } => *at,
    };
    ended.is_none_or(|at| Timestamp::now().duration_since(at) > REAP_AFTER)
}
