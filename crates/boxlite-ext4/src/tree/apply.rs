//! One entry of a layer applied to the tree.

use super::resolve::{WHITEOUT, components};
use super::{FileTree, Inode, InodeId, InodeKind, MAX_LINKS, ROOT, RemovedName, Touched};
use crate::error::EntryRefusal;
use crate::format::FileExtent;
use crate::tar::{TarEntry, TarEntryKind};

/// Names that belong to aufs itself, but for the opaque mark.
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Longest symbolic link in bytes: it must fit a block with its end.
const MAX_SYMLINK: usize = 4095;

/// The effect that an entry had on the tree.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// A new regular file, still empty: its content comes next.
    File {
        id: InodeId,
        /// Content of the file that it replaces, where that is gone.
        replaced: Vec<FileExtent>,
    },
    /// Anything else that is now in the tree.
    Other,
    /// A whiteout, or metadata of aufs: nothing was added.
    Hidden,
}

impl FileTree<'_> {
    /// Applies one entry; of a regular file everything but its content.
    pub(crate) fn apply(&mut self, entry: &mut TarEntry) -> Result<Applied, EntryRefusal> {
        let name = std::mem::take(&mut entry.name);
        let applied = self.apply_at(&name, entry);
        entry.name = name;
        applied
    }

    fn apply_at(&mut self, path: &[u8], entry: &mut TarEntry) -> Result<Applied, EntryRefusal> {
        let path = components(path)?;
        let Some((&name, parents)) = path.split_last() else {
            if entry.kind != TarEntryKind::Directory {
                return Err(EntryRefusal::hostile("it would replace the root directory"));
            }
            self.describe(ROOT, entry);
            return Ok(Applied::Other);
        };
        if path.iter().any(|part| part.starts_with(AUFS) && *part != OPAQUE) {
            return Ok(Applied::Hidden);
        }
        if name.starts_with(WHITEOUT) {
            self.white_out(parents, name)?;
            return Ok(Applied::Hidden);
        }
        let parent = self.make_directories(parents)?;
        match entry.kind {
            TarEntryKind::Directory => {
                self.apply_directory(parent, name, entry)?;
                Ok(Applied::Other)
            }
            TarEntryKind::Hardlink => {
                self.apply_hardlink(parent, name, &entry.link)?;
                Ok(Applied::Other)
            }
            kind => {
                if kind == TarEntryKind::Symlink {
                    entry.mode = 0o777;
                }
                let new = new_kind(kind, entry)?;
                let RemovedName { number, extents: replaced } = self.unlink(parent, name)?;
                let id = self.add(described(entry, new))?;
                if let Some(number) = number {
                    // A file in place of another one takes its number over, and so leaves the directory as it is.
                    self.removed.remove(&number);
                    self.inodes[id as usize].number = number;
                }
                self.link(parent, name, id);
                if kind == TarEntryKind::File {
                    return Ok(Applied::File { id, replaced });
                }
                self.freed.extend(replaced);
                Ok(Applied::Other)
            }
        }
    }

    fn apply_directory(
        &mut self,
        parent: InodeId,
        name: &[u8],
        entry: &mut TarEntry,
    ) -> Result<(), EntryRefusal> {
        if let Some(there) = self.lookup(parent, name)? {
            if self.directory(there.inode).is_some() {
                self.describe(there.inode, entry);
                self.touch(there.inode);
                return Ok(());
            }
            let removal = self.unlink(parent, name)?;
            self.freed.extend(removal.extents);
        }
        let kind = Self::new_directory(parent, self.layer);
        let id = self.add(described(entry, kind))?;
        self.link(parent, name, id);
        Ok(())
    }

    /// Adds a name to an existing file. The header's metadata is not applied: it is the file's own that counts.
    fn apply_hardlink(&mut self, parent: InodeId, name: &[u8], target: &[u8]) -> Result<(), EntryRefusal> {
        let shown = || String::from_utf8_lossy(target).into_owned();
        let path = components(target).map_err(|refusal| match refusal {
            EntryRefusal::Hostile(_) => {
                EntryRefusal::hostile(format!("its target {:?} is outside the root", shown()))
            }
            other => other,
        })?;
        let Some((&last, parents)) = path.split_last() else {
            return Err(EntryRefusal::hostile(format!("its target {:?} is the root directory", shown())));
        };
        let found = match self.find_directory(parents)? {
            Some(directory) => self.lookup(directory, last)?,
            None => None,
        };
        let Some(found) = found else {
            return Err(EntryRefusal::hostile(format!("its target {:?} does not exist", shown())));
        };
        if self.directory(found.inode).is_some() {
            return Err(EntryRefusal::hostile(format!("its target {:?} is a directory", shown())));
        }
        // The link is counted before the old name is removed, so that linking a file to itself keeps it.
        let links = self.inode(found.inode).links;
        if links >= MAX_LINKS {
            return Err(EntryRefusal::TooLarge {
                what: "the number of links to one file",
                need: u64::from(links) + 1,
                limit: u64::from(MAX_LINKS),
            });
        }
        self.inodes[found.inode as usize].links += 1;
        let removal = self.unlink(parent, name)?;
        self.freed.extend(removal.extents);
        self.link(parent, name, found.inode);
        Ok(())
    }

    /// Hides one name, or with the opaque mark all names, that lower layers put into a directory.
    fn white_out(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<(), EntryRefusal> {
        let hidden = &name[WHITEOUT.len()..];
        if name != OPAQUE && matches!(hidden, b"" | b"." | b"..") {
            return Err(EntryRefusal::hostile(
                "a whiteout of no name, or of a directory's own or parent's name",
            ));
        }
        let Some(parent) = self.find_directory(parents)? else { return Ok(()) };
        if name == OPAQUE {
            return self.hide_lower(parent);
        }
        let Some(there) = self.lookup(parent, hidden)? else { return Ok(()) };
        match self.touched(there) {
            Touched::No => {
                let removal = self.unlink(parent, hidden)?;
                self.freed.extend(removal.extents);
                Ok(())
            }
            Touched::File => Ok(()),
            Touched::Directory => self.hide_lower(there.inode),
        }
    }

    /// Gives an existing directory the metadata of a new entry, all of it.
    fn describe(&mut self, id: InodeId, entry: &mut TarEntry) {
        let inode = &mut self.inodes[id as usize];
        inode.mode = entry.mode;
        inode.uid = entry.uid;
        inode.gid = entry.gid;
        inode.mtime = entry.mtime;
        inode.xattrs = std::mem::take(&mut entry.xattrs);
        inode.described = true;
    }
}

fn described<'b>(entry: &mut TarEntry, kind: InodeKind<'b>) -> Inode<'b> {
    Inode {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        links: 1,
        xattrs: std::mem::take(&mut entry.xattrs),
        kind,
        number: 0,
        record: None,
        described: false,
    }
}

fn new_kind<'b>(kind: TarEntryKind, entry: &mut TarEntry) -> Result<InodeKind<'b>, EntryRefusal> {
    let (major, minor) = entry.device;
    Ok(match kind {
        TarEntryKind::Symlink => {
            let target = std::mem::take(&mut entry.link);
            if target.is_empty() || target.contains(&0) {
                return Err(EntryRefusal::hostile("the target of a symbolic link is empty or holds a NUL"));
            }
            if target.len() > MAX_SYMLINK {
                return Err(EntryRefusal::TooLarge {
                    what: "the length of a symbolic link in bytes",
                    need: target.len() as u64,
                    limit: MAX_SYMLINK as u64,
                });
            }
            InodeKind::Symlink(target.into())
        }
        TarEntryKind::Char => InodeKind::Char(major, minor),
        TarEntryKind::Block => InodeKind::Block(major, minor),
        TarEntryKind::Fifo => InodeKind::Fifo,
        TarEntryKind::File | TarEntryKind::Directory | TarEntryKind::Hardlink => {
            InodeKind::File { size: 0, extents: Vec::new() }
        }
    })
}
