//! What a folder holds, looked at only as far as the answer matters.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::INODE_BYTES;

/// Adds up what `root` and everything below it has allocated, until that is `enough`.
///
/// A file with several names counts once for each. `None` if something could not be looked at, or there is more than
/// `most` files: then nothing is known.
pub(crate) fn allocated_below(root: &Path, enough: u64, most: usize) -> Option<u64> {
    let (mut total, mut left) = (0u64, most);
    let mut directories: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).ok()? {
            let entry = entry.ok()?;
            let found = std::fs::symlink_metadata(entry.path()).ok()?;
            left = left.checked_sub(1)?;
            total = total.saturating_add(found.blocks().saturating_mul(512)).saturating_add(INODE_BYTES);
            if total >= enough {
                return Some(total);
            }
            if found.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_adds_up_and_stops_early_and_knows_nothing_of_too_many() {
        let scratch = tempfile::tempdir().unwrap();
        let below = scratch.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        for n in 0..10 {
            std::fs::write(below.join(n.to_string()), vec![1; 64 << 10]).unwrap();
        }
        let all = allocated_below(scratch.path(), u64::MAX, 100).unwrap();
        assert!((640 << 10..800 << 10).contains(&all), "{all}");
        let some = allocated_below(scratch.path(), 100 << 10, 100).unwrap();
        assert!((100 << 10..300 << 10).contains(&some), "{some}");
        assert_eq!(allocated_below(scratch.path(), u64::MAX, 11), None);
        assert_eq!(allocated_below(&scratch.path().join("absent"), 1, 1), None);
    }
}
