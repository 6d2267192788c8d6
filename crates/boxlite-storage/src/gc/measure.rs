//! Allocated bytes and entries of directory trees.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use boxlite_home::durable::{self, FileId};
use boxlite_types::{Error, Result};

/// How many files and directories there are at `path` and below; those that cannot be listed count as empty.
pub(super) fn entries(path: &Path) -> u64 {
    let below = std::fs::read_dir(path).into_iter().flatten().flatten();
    let is_dir = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    1 + below.map(|entry| if is_dir(&entry) { entries(&entry.path()) } else { 1 }).sum::<u64>()
}

/// Bytes allocated to a file, or to a directory and everything in it; equals `du --block-size=1`: symlinks are
/// not followed and a file with several names counts once. A file that vanishes meanwhile counts nothing.
pub(super) fn allocated_tree(path: &Path) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut total: u64 = 0;
    let mut unexplored = vec![path.to_owned()];
    while let Some(path) = unexplored.pop() {
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("examining", path, error)),
        };
        if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert(FileId::of(&metadata)) {
            continue;
        }
        total = total.saturating_add(durable::allocated(&metadata));
        if metadata.is_dir() {
            let entries = match std::fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("listing", path, error)),
            };
            for entry in entries {
                unexplored.push(entry.map_err(|error| Error::io("listing", &path, error))?.path());
            }
        }
    }
    Ok(total)
}
