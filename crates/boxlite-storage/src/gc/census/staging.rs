//! The staging directory.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use boxlite_home::{durable, is_id};
use boxlite_types::{Doing, Result};

use super::Caches;
use crate::disk::qcow2::chain::nanoseconds;
use crate::gc::measure;

/// A file, or a directory that is staged or trash; times in nanoseconds since 1970.
#[derive(Debug)]
pub(in crate::gc) struct StagedEntry {
    pub(in crate::gc) path: PathBuf,
    /// Bytes that it allocates, or why they cannot be told.
    pub(in crate::gc) allocated: Result<u64>,
    pub(in crate::gc) modified: i64,
    /// When it came here.
    pub(in crate::gc) changed: i64,
    pub(in crate::gc) is_directory: bool,
    /// It was moved here to be removed.
    pub(in crate::gc) is_trash: bool,
}

impl Caches {
    pub(super) fn list_staged(&mut self, directory: &Path) {
        let listed = std::fs::read_dir(directory).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        match listed {
            Ok(entries) => self.staged.extend(entries.iter().filter_map(|entry| examine(entry.path()))),
            Err(error) => self.trouble(directory, format!("it cannot be listed: {error}")),
        }
        self.staged.sort_by(|one, other| one.path.cmp(&other.path));
    }
}

/// `None` for what vanished, and for what boxlite never puts there.
fn examine(path: PathBuf) -> Option<StagedEntry> {
    if !is_ours(&path) {
        return None;
    }
    let found = match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        found => found.doing("examining", &path),
    };
    let time = |of: fn(&Metadata) -> i64| found.as_ref().map_or(0, of);
    let modified = time(|found| nanoseconds(found.mtime(), found.mtime_nsec()));
    let changed = time(|found| nanoseconds(found.ctime(), found.ctime_nsec()));
    let is_directory = found.as_ref().is_ok_and(Metadata::is_dir);
    let is_trash = is_trash(&path);
    if is_directory && !is_trash && !durable::is_staged_dir(&path)
        || found.as_ref().is_ok_and(|found| !found.is_dir() && !found.is_file())
    {
        return None;
    }
    let allocated = found.and_then(|_| measure::allocated_tree(&path));
    Some(StagedEntry { path, allocated, modified, changed, is_directory, is_trash })
}

/// Whether `durable` gives such names: those of staged directories and of trash, `NAME.partial`, or `NAME.` and 32 hex
/// digits.
fn is_ours(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    is_trash(path)
        || durable::is_staged_dir(path)
        || name.rsplit_once('.').is_some_and(|(_, suffix)| suffix == "partial" || is_id(suffix))
}

/// Whether `durable` moved it here to remove it.
fn is_trash(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("trash-"))
}
