//! Unfinished files and trash in the staging directory whose owner is gone.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use boxlite_home::durable;
use boxlite_types::gc::{Item, Skip};
use boxlite_types::{Doing, Result};

use super::pass::{Pass, removed, skipped};
use super::usage;
use crate::disk::qcow2::chain::nanoseconds;

/// Removes what its maker's lock no longer protects. A file's lock says so at once; a directory has none, so it
/// must be past the grace.
pub(super) fn sweep(pass: &mut Pass<'_>) {
    let directory = pass.home.tmp();
    let listed = std::fs::read_dir(&directory).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let mut entries = match listed {
        Ok(entries) => entries,
        Err(error) => return pass.unreadable(&directory, format!("it cannot be listed: {error}")),
    };
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if pass.reached_goal() {
            return;
        }
        let path = entry.path();
        match sweep_one(pass, &path) {
            Ok(Some(item)) => pass.report.unfinished.push(item),
            Ok(None) => {}
            Err(error) => {
                let fate = pass.failed(&path, &error);
                pass.report.unfinished.push(Item { fate, ..item(&path, 0, 0) });
            }
        }
    }
}

fn sweep_one(pass: &Pass<'_>, path: &Path) -> Result<Option<Item>> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing("examining", path),
    };
    if metadata.is_dir() {
        return sweep_directory(pass, path, &metadata);
    }
    if !metadata.is_file() {
        return Ok(None);
    }
    let found = item(path, durable::allocated(&metadata), metadata.mtime());
    Ok(match durable::sweep_staged(path, pass.options.dry_run)? {
        Some(swept) => Some(Item {
            allocated: swept.allocated,
            fate: removed("unfinished, and whoever made it is gone"),
            ..found
        }),
        None if path.exists() => Some(found),
        None => None,
    })
}

/// Only what `durable::discard_dir` moved here: no other directory in the staging area is ours.
fn sweep_directory(pass: &Pass<'_>, path: &Path, metadata: &std::fs::Metadata) -> Result<Option<Item>> {
    let is_trash =
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("trash-"));
    if !is_trash {
        return Ok(None);
    }
    let found = item(path, usage::allocated_tree(path)?, metadata.mtime());
    if pass.rules.is_young(nanoseconds(metadata.ctime(), metadata.ctime_nsec())) {
        return Ok(Some(Item { fate: skipped(Skip::Grace), ..found }));
    }
    if !pass.options.dry_run {
        durable::remove_trash_dir(path)?;
    }
    Ok(Some(Item { fate: removed("a removed box whose removal was cut short"), ..found }))
}

fn item(path: &Path, allocated: u64, modified: i64) -> Item {
    Item {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        path: path.to_owned(),
        allocated,
        modified,
        last_used: modified,
        fate: skipped(Skip::InUse),
    }
}
