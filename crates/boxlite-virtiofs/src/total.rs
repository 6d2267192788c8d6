//! The total of a folder, looked at only as far as the answer matters.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::INODE_BYTES;

/// Bytes that a folder has allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Total {
    /// All, or as many as were asked for.
    Known(u64),
    /// Some, of more files than are looked at, or of those that can be.
    AtLeast(u64),
}

/// Adds up what `root` and everything below it has allocated, until that is `enough`, or there were `most` files.
///
/// A file with several names counts once for each.
pub(crate) fn allocated_below(root: &Path, enough: u64, most: usize) -> Total {
    let (mut total, mut left, mut all) = (0u64, most, true);
    let mut directories: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            all = false;
            continue;
        };
        for entry in entries {
            if left == 0 {
                return Total::AtLeast(total);
            }
            left -= 1;
            let Some((entry, found)) = entry.ok().and_then(|entry| {
                let found = std::fs::symlink_metadata(entry.path()).ok()?;
                Some((entry, found))
            }) else {
                all = false;
                continue;
            };
            total = total.saturating_add(found.blocks().saturating_mul(512)).saturating_add(INODE_BYTES);
            if total >= enough {
                return Total::Known(total);
            }
            if found.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    if all { Total::Known(total) } else { Total::AtLeast(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_adds_up_and_stops_early_and_says_when_it_does_not_know() {
        let scratch = tempfile::tempdir().unwrap();
        let below = scratch.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        for n in 0..10 {
            std::fs::write(below.join(n.to_string()), vec![1; 64 << 10]).unwrap();
        }
        let Total::Known(all) = allocated_below(scratch.path(), u64::MAX, 100) else { panic!() };
        assert!((640 << 10..800 << 10).contains(&all), "{all}");
        let Total::Known(some) = allocated_below(scratch.path(), 100 << 10, 100) else { panic!() };
        assert!((100 << 10..300 << 10).contains(&some), "{some}");
        let Total::AtLeast(most) = allocated_below(scratch.path(), u64::MAX, 11) else { panic!() };
        assert!((500 << 10..all).contains(&most), "{most}");
        assert_eq!(allocated_below(&scratch.path().join("absent"), 1, 1), Total::AtLeast(0));
    }
}
