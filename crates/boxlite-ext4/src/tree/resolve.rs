//! From a path in an archive to a place in the tree.
//!
//! Symbolic links in the middle of a path are followed as the kernel would with the image's root as `/`: absolute
//! targets start there, and `..` stops there. So no path leaves the tree, whatever its links say.

use std::borrow::Cow;

use super::{FileTree, InodeId, InodeKind, ROOT, implied_directory};
use crate::error::EntryRefusal;

/// Longest path of an entry or of a hard link's target in bytes, as the kernel's `PATH_MAX`.
const MAX_PATH: usize = 4096;
/// The prefix of a whiteout's name.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// Longest name in bytes, as on ext4.
const MAX_NAME: usize = 255;
/// Symbolic links followed in one path, as in the kernel.
const MAX_FOLLOWED: u32 = 40;

/// The components of a path without `.`, `..` and empty ones; refuses a path that climbs above the root.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, EntryRefusal> {
    if path.len() > MAX_PATH {
        return Err(EntryRefusal::TooLarge {
            what: "the length of the path in bytes",
            need: path.len() as u64,
            limit: MAX_PATH as u64,
        });
    }
    let mut components = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop().ok_or_else(|| EntryRefusal::hostile("its path climbs above the root"))?;
            }
            name => {
                // A whiteout names what it hides, which may have the longest name that there is.
                check_name(name.strip_prefix(WHITEOUT).unwrap_or(name))?;
                components.push(name);
            }
        }
    }
    Ok(components)
}

fn check_name(name: &[u8]) -> Result<(), EntryRefusal> {
    if name.len() > MAX_NAME {
        return Err(EntryRefusal::TooLarge {
            what: "the length of a name in bytes",
            need: name.len() as u64,
            limit: MAX_NAME as u64,
        });
    }
    if name.contains(&0) {
        return Err(EntryRefusal::hostile("a name holds a NUL"));
    }
    Ok(())
}

impl FileTree<'_> {
    /// The directory that a path of directories leads to, or nothing where one of them is missing.
    pub(super) fn find_directory(&mut self, path: &[&[u8]]) -> Result<Option<InodeId>, EntryRefusal> {
        let mut walk = PathWalk::new(path);
        while let Some(name) = walk.next() {
            if let Some(missing) = walk.step(self, &name)? {
                match missing {
                    PathGap::Absent | PathGap::NotDirectory => return Ok(None),
                }
            }
        }
        Ok(Some(walk.at))
    }

    /// As [`Self::find_directory`], but makes what is missing: mode 0755, owned by root, dated 1970.
    pub(super) fn make_directories(&mut self, path: &[&[u8]]) -> Result<InodeId, EntryRefusal> {
        let mut walk = PathWalk::new(path);
        while let Some(name) = walk.next() {
            match walk.step(self, &name)? {
                None => {}
                Some(missing) => {
                    if let PathGap::NotDirectory = missing {
                        let there = self.lookup(walk.at, &name)?;
                        if there.is_none_or(|there| there.layer == self.layer) {
                            return Err(EntryRefusal::hostile(format!(
                                "{:?} on its path is not a directory",
                                String::from_utf8_lossy(&name)
                            )));
                        }
                        let removal = self.unlink(walk.at, &name)?;
                        self.freed.extend(removal.extents);
                    }
                    check_name(&name)?;
                    let kind = Self::new_directory(walk.at, self.layer);
                    let id = self.add(implied_directory(kind))?;
                    self.link(walk.at, &name, id);
                    walk.at = id;
                }
            }
        }
        Ok(walk.at)
    }
}

enum PathGap {
    Absent,
    NotDirectory,
}

/// A walk through directories; the components still ahead are kept last first.
struct PathWalk<'a> {
    ahead: Vec<Cow<'a, [u8]>>,
    at: InodeId,
    followed: u32,
}

impl<'a> PathWalk<'a> {
    fn new(path: &[&'a [u8]]) -> Self {
        Self { ahead: path.iter().rev().map(|&name| Cow::Borrowed(name)).collect(), at: ROOT, followed: 0 }
    }

    fn next(&mut self) -> Option<Cow<'a, [u8]>> {
        self.ahead.pop()
    }

    /// Takes one step; returns the gap if there is no directory to step into.
    fn step(&mut self, tree: &mut FileTree<'_>, name: &[u8]) -> Result<Option<PathGap>, EntryRefusal> {
        match name {
            b"" | b"." => return Ok(None),
            b".." => {
                self.at = tree.directory(self.at).map_or(ROOT, |directory| directory.parent);
                return Ok(None);
            }
            _ => {}
        }
        let Some(found) = tree.lookup(self.at, name)? else {
            return Ok(Some(PathGap::Absent));
        };
        match &tree.inode(found.inode).kind {
            InodeKind::Directory(_) => self.at = found.inode,
            InodeKind::Symlink(target) => {
                self.followed += 1;
                if self.followed > MAX_FOLLOWED {
                    return Err(EntryRefusal::hostile(format!(
                        "its path runs through more than {MAX_FOLLOWED} symbolic links"
                    )));
                }
                if target.first() == Some(&b'/') {
                    self.at = ROOT;
                }
                self.ahead
                    .extend(target.split(|&byte| byte == b'/').rev().map(|part| Cow::Owned(part.to_vec())));
                if self.ahead.len() > MAX_PATH * 2 {
                    return Err(EntryRefusal::hostile("its path grows without end through symbolic links"));
                }
            }
            _ => return Ok(Some(PathGap::NotDirectory)),
        }
        Ok(None)
    }
}
