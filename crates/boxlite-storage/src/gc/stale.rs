//! Notes about what is gone: intents, and uses of bases.
//!
//! A killed `rm` or `clone` leaves such notes, and nothing else would ever drop them. Dropping one too early loses no
//! data, since it only makes gc keep more, but what a kill then leaves would be unexplained for ever.
//!
//! # Races
//! `clone` notes an intent and the use of a base before the box or base exists, and holds a staged directory
//! from before the note until after the box is there ([`durable::StagedDir`]). So the notes are read first, then comes
//! the look whether anything is being made, and then the look at what the notes name: whoever made a note that was read
//! is either still seen at work, or what it made is seen, or it was killed. `rm` and a purge write an intent while its
//! subject is there. An intent that was written anew since it was read stays.

use boxlite_home::{Home, durable};
use boxlite_types::{Doing, Result};

use super::rules::GcScope;
use crate::catalog::{IntentKind, StaleNotes};
use crate::volume;

/// Drops notes about what is gone. Only for a pass that could read everything.
pub(super) fn drop_stale_notes(scope: &GcScope<'_>) {
    // Best effort: on a full disk a note may stay.
    if let Err(error) = try_drop(scope) {
        tracing::debug!(error = %error.chain(), "notes about what is gone stay");
    }
}

fn try_drop(scope: &GcScope<'_>) -> Result<()> {
    let (home, catalog) = (scope.home, scope.catalog);
    let mut stale = StaleNotes::default();
    catalog
        .intents(&mut |intent| stale.intents.push((intent.kind, intent.id.to_owned(), intent.written_ms)))?;
    catalog.used_bases(&mut |base| stale.used_bases.push(base.to_owned()))?;
    if stale.is_empty() || is_anything_being_made(home)? {
        return Ok(());
    }
    stale.intents.retain(|(kind, id, _)| is_gone(home, *kind, id));
    stale.used_bases.retain(|base| is_gone(home, IntentKind::Base, base));
    if stale.is_empty() { Ok(()) } else { catalog.drop_stale(&stale) }
}

fn is_anything_being_made(home: &Home) -> Result<bool> {
    let tmp = home.tmp();
    for entry in std::fs::read_dir(&tmp).doing("listing", &tmp)? {
        let path = entry.doing("listing", &tmp)?.path();
        if durable::is_staged_dir(&path) && !durable::sweep_staged_dir(&path, true)? && path.exists() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether certainly no volume has that id.
fn has_no_volume(home: &Home, id: &str) -> bool {
    let Ok(names) = volume::names(home) else { return false };
    names.iter().all(|name| volume::read(home, name).is_ok_and(|found| found.id != id))
}

/// Whether certainly nothing has that name.
fn is_gone(home: &Home, kind: IntentKind, id: &str) -> bool {
    let path = match kind {
        IntentKind::Box => home.of_box(id).root().to_owned(),
        IntentKind::Base => home.bases().join(id),
        IntentKind::Volume => return has_no_volume(home, id),
    };
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}
