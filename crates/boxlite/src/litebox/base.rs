//! A box's overlay becomes a base: it gets a second name, and the box a new overlay above it.
//!
//! At every instant the overlay's path names a complete disk: the base begins as a second name of the overlay itself, and
//! the new overlay replaces the old name in one rename.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use boxlite_home::durable::{self, FileId, fault};
use boxlite_home::lease::Leased;
use boxlite_storage::disk::overlay::Below;
use boxlite_types::{Doing, Error, Result};

use super::{BoxGuard, name};
use crate::context::LocalContext;

/// The most bases below one box: each read of its disk may have to look in all of them.
pub(super) const MAX_BASES: usize = 32;

/// Gives the leased overlay of the guarded box, which stands on `below`, a name as a base; returns its path. The overlay is
/// still the box's own.
///
/// The lease keeps gc from the second name until an overlay stands on it.
///
/// # Errors
/// `Conflict` when the box stands on too many bases.
pub(super) fn give_name(
    context: &LocalContext,
    source: &BoxGuard,
    lease: &Leased,
    below: &Below,
) -> Result<PathBuf> {
    refuse_depth(source, below)?;
    let made = other_name(context, lease)?;
    let base = match &made {
        Some(base) => base.clone(),
        None => context.home.bases().join(format!("{}.qcow2", name::new_id())),
    };
    // Noted before the base exists: gc keeps a base without a recorded user as unexplained.
    context.store.note_base(&base, &source.record.id)?;
    fault::point("base.noted").doing("making a base of", lease.path())?;
    if made.is_none() {
        durable::link(lease.path(), &base)?;
    }
    fault::point("base.linked").doing("making a base of", lease.path())?;
    Ok(base)
}

/// Refuses to put one more base below a box that stands on `below`.
fn refuse_depth(source: &BoxGuard, below: &Below) -> Result<()> {
    if below.bases.len() < MAX_BASES {
        return Ok(());
    }
    let message = format!(
        "box {} stands on {MAX_BASES} bases already, one for each clone and snapshot since its files began; go back to an \
         earlier snapshot, or make an image of it (boxlite commit) and a fresh box",
        source.record.name
    );
    Err(Error::conflict(message))
}

/// The base that a clone or snapshot which was killed has already made of the overlay: one file is one base.
fn other_name(context: &LocalContext, overlay: &Leased) -> Result<Option<PathBuf>> {
    let found = overlay.file().metadata().doing("examining", overlay.path())?;
    if found.nlink() < 2 {
        return Ok(None);
    }
    let directory = context.home.bases();
    for entry in std::fs::read_dir(&directory).doing("listing", &directory)? {
        let entry = entry.doing("listing", &directory)?;
        let base = entry.metadata().doing("examining", entry.path())?;
        if FileId::of(&base) == FileId::of(&found) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}
