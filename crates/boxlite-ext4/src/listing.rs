//! Lists the files of a file system of this builder's own making.

use crate::below::{DirectoryFile, FilesystemBelow};
use crate::error::BelowError;
use crate::source::BlockSource;

/// The number of the root directory.
const ROOT: u32 = 2;
/// How deep directories may be nested.
const MAX_DEPTH: usize = 4096;

/// A file as its inode describes it. All of its times are the same: the builder knows one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Inode number.
    pub inode: u32,
    /// Type and permissions.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Time of modification and of change, in seconds since 1970.
    pub seconds: i64,
    /// Their fraction.
    pub nanoseconds: u32,
}

/// Visits every file of the file system that has the identity `expected`, by its path without a leading slash; a
/// directory comes before what is in it, and the root, whose path is empty, comes first.
///
/// # Errors
/// When something is not as this builder wrote it, or cannot be read.
pub fn list_files(
    source: &dyn BlockSource,
    expected: &[u8; 32],
    visit: &mut dyn FnMut(&[u8], ListedFile),
) -> Result<(), BelowError> {
    let below = FilesystemBelow::open(source, expected)?;
    let mut pending = vec![(Vec::new(), ROOT, 0)];
    while let Some((path, number, depth)) = pending.pop() {
        let record = below.inode(number)?;
        let is_directory = record.mode & 0o170_000 == 0o040_000;
        visit(
            &path,
            ListedFile {
                inode: number,
                mode: record.mode,
                uid: record.uid,
                gid: record.gid,
                size: record.size,
                seconds: record.mtime.seconds,
                nanoseconds: record.mtime.nanoseconds,
            },
        );
        if !is_directory {
            continue;
        }
        if depth == MAX_DEPTH {
            return Err(BelowError::damaged(format!("inode {number}"), "directories are nested without end"));
        }
        let directory = DirectoryFile::open(&below, number, &record)?;
        for leaf in directory.leaves() {
            directory.visit(leaf, &mut |entry| {
                let mut child = path.clone();
                if !child.is_empty() {
                    child.push(b'/');
                }
                child.extend_from_slice(entry.name);
                pending.push((child, entry.inode, depth + 1));
            })?;
        }
    }
    Ok(())
}
