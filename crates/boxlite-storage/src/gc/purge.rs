//! The removal of unexplained data that a person named.

use std::path::Path;
use std::sync::Arc;

use boxlite_home::durable::{self, Lock};
use boxlite_home::settings::Settings;
use boxlite_home::{Home, is_id};
use boxlite_types::gc::{Fate, Item, Skip};
use boxlite_types::{Error, ErrorKind, GcOptions, Purge, Result};

use super::{collect, note_release};
use crate::catalog::{Catalog, IntentKind};
use crate::volume;

/// Removes the directory of a box without a record, a base, or what nothing explains in `volumes/` (as `volumes/NAME`), by
/// its name in full. Blocks.
///
/// The intent is written first, so a crash leaves the rest to gc. A box or base that stands on the disk still keeps it.
///
/// # Errors
/// `NotFound` when nothing is called that; `Conflict` for a box with a record, while something stands on the disk, and
/// for a base that lies outside the home; `Corrupt` for what is not what its name says; `Busy` while another process is
/// working on it.
pub fn purge(home: &Home, catalog: &Arc<dyn Catalog>, settings: &Settings, name: &str) -> Result<Purge> {
    if let Some(volume) = name.strip_prefix("volumes/") {
        return purge_volume(home, volume);
    }
    let of_box = home.of_box(name);
    let base = home.bases().join(name);
    let purged = if is_id(name) && is(of_box.root(), std::fs::Metadata::is_dir) {
        if catalog.has_box(name)? {
            return Err(Error::conflict(format!("box {name} has a record; `boxlite rm {name}` removes it")));
        }
        let _locks = (lock(&of_box.state_lock(), name)?, lock(&of_box.shim_lock(), name)?);
        let item = unneeded(home, catalog, settings, name)?;
        catalog.intend(IntentKind::Box, name)?;
        durable::discard_dir(of_box.root(), &home.tmp())?;
        catalog.drop_intent(IntentKind::Box, name)?;
        item
    } else if is_base_name(name) && !name.contains('/') && is(&base, std::fs::Metadata::is_file) {
        let held = lock(&base, name)?;
        let item = unneeded(home, catalog, settings, name)?;
        catalog.intend(IntentKind::Base, name)?;
        let trash = durable::discard(&base, &home.tmp())?;
        drop(held);
        trash.delete()?;
        catalog.drop_intent(IntentKind::Base, name)?;
        item
    } else {
        return purged_before(home, catalog, name);
    };
    note_release(home);
    Ok(Purge { name: name.to_owned(), reclaimed: purged.allocated })
}

/// Removes a directory of `volumes/` that is not a volume: one is removed by `volume rm`, which asks whether boxes mount it.
fn purge_volume(home: &Home, name: &str) -> Result<Purge> {
    volume::check_name(name)?;
    let paths = home.of_volume(name);
    match volume::read(home, name) {
        Ok(_) => {
            let message = format!("{name} is a volume; `boxlite volume rm {name}` removes it");
            return Err(Error::conflict(message).at(paths.root()));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(error),
        Err(_) if !is(paths.root(), std::fs::Metadata::is_dir) => {
            let message = format!(
                "{} is not a directory, so boxlite did not make it; move it away by hand",
                paths.root().display()
            );
            return Err(Error::corrupt(message).at(paths.root()));
        }
        Err(_) => {}
    }
    if volume::is_attached(home, name) {
        let message = format!("{} is in use; try again", paths.disk().display());
        return Err(Error::new(ErrorKind::Busy, message).at(paths.disk()));
    }
    let allocated = super::measure::allocated_tree(paths.root())?;
    durable::discard_dir(paths.root(), &home.tmp())?;
    note_release(home);
    Ok(Purge { name: format!("volumes/{name}"), reclaimed: allocated })
}

/// Refuses a name behind which there is something that boxlite did not make.
fn refuse_what_is_something_else(home: &Home, name: &str) -> Result<()> {
    let (path, wanted) = match name {
        name if is_id(name) => (home.of_box(name).root().to_owned(), "the directory of a box"),
        name if is_base_name(name) && !name.contains('/') => (home.bases().join(name), "a base"),
        _ => return Ok(()),
    };
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("examining", path, error)),
        Ok(_) => {
            let message = format!(
                "{} is not {wanted}, so boxlite did not make it; move it away by hand",
                path.display()
            );
            Err(Error::corrupt(message).at(path))
        }
    }
}

fn is_base_name(name: &str) -> bool {
    name.as_bytes().ends_with(b".qcow2")
}

fn is(path: &Path, kind: impl Fn(&std::fs::Metadata) -> bool) -> bool {
    path.symlink_metadata().is_ok_and(|found| kind(&found))
}

/// Locks a file of what is called `name`, which another process may remove at any moment.
fn lock(path: &Path, name: &str) -> Result<Lock> {
    let busy = || Error::new(ErrorKind::Busy, format!("{} is in use; try again", path.display())).at(path);
    match Lock::try_exclusive(path) {
        Err(_) if path.parent().is_some_and(|directory| !directory.exists()) => Err(vanished(name)),
        tried => tried?.ok_or_else(busy),
    }
}

fn vanished(name: &str) -> Error {
    Error::not_found(format!("{name} has vanished meanwhile"))
}

/// Finds the item of that `name` in a dry run and returns it unless something needs it.
///
/// The caller holds its locks, so nothing can start to rely on it meanwhile.
fn unneeded(home: &Home, catalog: &Arc<dyn Catalog>, settings: &Settings, name: &str) -> Result<Item> {
    let report = collect(home, catalog, settings, &GcOptions { dry_run: true, ..GcOptions::default() })?;
    let mut items = report.box_directories.iter().chain(&report.bases);
    let item = items.find(|item| item.name == name).ok_or_else(|| vanished(name))?;
    match &item.fate {
        Fate::Kept { by, .. } => {
            let by: Vec<&str> = by.iter().map(|holder| &*holder.name).collect();
            let message = format!("{name} is needed by {}; purge or remove that first", by.join(", "));
            Err(Error::conflict(message).at(&item.path))
        }
        Fate::Skipped { why: Skip::Elsewhere } => {
            let message = format!(
                "{} leads out of the home, so another home may need {name}; remove it by hand once none does",
                home.bases().display()
            );
            Err(Error::conflict(message).at(&item.path))
        }
        // A chain that cannot be read might run through a base; through a box's overlay only a crafted one does.
        _ if is_base_name(name) && !report.unreadable.is_empty() => {
            let trouble = &report.unreadable[0];
            let message = format!(
                "it is unknown who needs {name}, because {} cannot be read: {}",
                trouble.path.display(),
                trouble.reason
            );
            Err(Error::conflict(message).at(&item.path))
        }
        _ => Ok(item.clone()),
    }
}

/// A purge that was cut short, and whose rest is gone meanwhile, is a success.
fn purged_before(home: &Home, catalog: &Arc<dyn Catalog>, name: &str) -> Result<Purge> {
    refuse_what_is_something_else(home, name)?;
    let mut intended = None;
    catalog.intents(&mut |intent| {
        if intent.id == name {
            intended = Some(intent.kind);
        }
    })?;
    let Some(kind) = intended else {
        let message = format!(
            "there is neither a box directory nor a base '{name}' in {}; `boxlite gc --dry-run` lists them",
            home.root().display()
        );
        return Err(Error::not_found(message));
    };
    catalog.drop_intent(kind, name)?;
    Ok(Purge { name: name.to_owned(), reclaimed: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation tried: without the look for the directory, the error is that of the operating system.
    #[test]
    fn what_another_purge_removed_has_vanished() {
        let home = tempfile::tempdir().unwrap();
        let (root, trash) = (home.path().join("box"), home.path().join("trash"));
        std::fs::create_dir(&root).unwrap();
        drop(lock(&root.join("state.lock"), "box").unwrap());
        std::fs::rename(&root, trash).unwrap();
        let error = lock(&root.join("state.lock"), "box").unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::NotFound, "box has vanished meanwhile".into())
        );
    }
}
