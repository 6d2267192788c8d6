//! The part of a tree that stands on a file system below: inodes read when they are needed, and freed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Directory, FileTree, Inode, InodeId, InodeKind, ROOT, RemovedName, StandingDirectory, TreeName};
use crate::below::{DirectoryFile, FilesystemBelow};
use crate::error::{BelowError, EntryRefusal};
use crate::format::{FileExtent, InodeRecord, ROOT_INODE, type_code};

/// An inode whose last name may be gone.
enum ReleaseCandidate {
    Known(InodeId),
    /// Not in the tree; its number below.
    Below(u32),
}

impl<'b> FileTree<'b> {
    /// A tree that stands on a file system.
    pub(crate) fn above(below: &'b FilesystemBelow<'b>) -> Result<Self, EntryRefusal> {
        let mut tree = Self::new();
        tree.below = Some(below);
        tree.inodes.clear();
        let record = below.inode(ROOT_INODE)?;
        tree.load(below, ROOT_INODE, record, ROOT)?;
        Ok(tree)
    }

    /// The inodes from below that still have a name, and their numbers; the tree need not hold any of the names.
    pub(crate) fn linked(&self) -> impl Iterator<Item = (u32, InodeId)> {
        let known = self.known.iter().map(|(&number, &id)| (number, id));
        known.filter(|&(_, id)| self.inode(id).links > 0)
    }

    /// Looks a name up below and keeps it in the tree.
    pub(super) fn look_below(
        &mut self,
        parent: InodeId,
        name: &[u8],
    ) -> Result<Option<TreeName>, EntryRefusal> {
        let (Some(below), Some(directory)) = (self.below, self.directory(parent)) else { return Ok(None) };
        let Some(standing) = directory.standing.as_deref().filter(|standing| standing.holds(name)) else {
            return Ok(None);
        };
        let Some((number, file_type)) = standing.file.find(name)? else { return Ok(None) };
        let inode = if let Some(&id) = self.known.get(&number) {
            if self.inode(id).links == 0 || self.directory(id).is_some() {
                return Err(BelowError::damaged(format!("inode {number}"), "it has too many names").into());
            }
            id
        } else {
            let record = below.inode(number)?;
            if type_code(record.mode) != Some(file_type) {
                let place = format!("inode {number}");
                return Err(BelowError::damaged(place, "its type is not the one its name says").into());
            }
            self.load(below, number, record, parent)?
        };
        let found = TreeName { inode, layer: 0 };
        self.directory_mut(parent).entries.insert(name.into(), found);
        Ok(Some(found))
    }

    /// Puts an inode from below into the tree.
    fn load(
        &mut self,
        below: &'b FilesystemBelow<'b>,
        number: u32,
        record: InodeRecord,
        parent: InodeId,
    ) -> Result<InodeId, EntryRefusal> {
        let kind = match type_code(record.mode) {
            Some(2) => InodeKind::Directory(Directory {
                entries: BTreeMap::new(),
                parent,
                touched: 0,
                hidden: 0,
                standing: Some(Box::new(StandingDirectory {
                    file: DirectoryFile::open(below, number, &record)?,
                    removed: BTreeSet::new(),
                    emptied: false,
                })),
            }),
            Some(3) => InodeKind::Char(0, 0),
            Some(4) => InodeKind::Block(0, 0),
            Some(5) => InodeKind::Fifo,
            Some(7) => InodeKind::Symlink(below.link_target(number, &record)?),
            _ => InodeKind::File { size: record.size, extents: Vec::new() },
        };
        let links = if matches!(kind, InodeKind::Directory(_)) { 1 } else { record.links.into() };
        let id = self.push(Inode {
            mode: record.mode & 0o7777,
            uid: record.uid,
            gid: record.gid,
            mtime: record.mtime,
            links,
            xattrs: Vec::new(),
            kind,
            number,
            record: Some(Box::new(record)),
            described: false,
        })?;
        self.known.insert(number, id);
        Ok(id)
    }

    /// Takes one name from an inode, and frees it with everything below it if that was the last one.
    pub(super) fn release(&mut self, top: InodeId) -> Result<RemovedName, EntryRefusal> {
        let mut removal = RemovedName::default();
        let mut pending = vec![ReleaseCandidate::Known(top)];
        while let Some(candidate) = pending.pop() {
            let id = match candidate {
                ReleaseCandidate::Known(id) => id,
                ReleaseCandidate::Below(number) => {
                    self.release_below(number, &mut pending)?;
                    continue;
                }
            };
            let inode = &mut self.inodes[id as usize];
            inode.links = inode.links.checked_sub(1).ok_or_else(|| {
                BelowError::damaged(format!("inode {}", inode.number), "it has more names than links")
            })?;
            if inode.links > 0 {
                continue;
            }
            inode.xattrs = Vec::new();
            let (number, record) = (inode.number, inode.record.take());
            let is_directory = matches!(inode.kind, InodeKind::Directory(_));
            let mut content = Vec::new();
            match std::mem::replace(&mut inode.kind, InodeKind::Fifo) {
                InodeKind::File { extents, .. } => content = extents,
                InodeKind::Directory(directory) => {
                    pending
                        .extend(directory.entries.values().map(|name| ReleaseCandidate::Known(name.inode)));
                    directory.list_standing(&mut pending)?;
                }
                _ => {}
            }
            if let Some(record) = record {
                let data = self.free_blocks(number, &record)?;
                if type_code(record.mode) == Some(1) { content = data } else { self.freed.extend(data) }
            }
            if number != 0 {
                self.note_removed(number, is_directory)?;
            }
            if id == top && !is_directory {
                removal = RemovedName { number: (number != 0).then_some(number), extents: content };
            } else {
                self.freed.extend(content);
            }
        }
        Ok(removal)
    }

    /// Takes one name from an inode that is not in the tree.
    fn release_below(
        &mut self,
        number: u32,
        pending: &mut Vec<ReleaseCandidate>,
    ) -> Result<(), EntryRefusal> {
        if let Some(&id) = self.known.get(&number) {
            pending.push(ReleaseCandidate::Known(id));
            return Ok(());
        }
        let Some(below) = self.below else { return Ok(()) };
        let record = below.inode(number)?;
        let is_directory = type_code(record.mode) == Some(2);
        if !is_directory && record.links > 1 {
            // It has another name, which may be looked up or removed later.
            let id = self.load(below, number, record, ROOT)?;
            pending.push(ReleaseCandidate::Known(id));
            return Ok(());
        }
        self.note_removed(number, is_directory)?;
        if is_directory {
            let file = DirectoryFile::open(below, number, &record)?;
            for leaf in file.leaves() {
                file.visit(leaf, &mut |entry| pending.push(ReleaseCandidate::Below(entry.inode)))?;
            }
        }
        let data = self.free_blocks(number, &record)?;
        self.freed.extend(data);
        Ok(())
    }

    fn note_removed(&mut self, number: u32, is_directory: bool) -> Result<(), BelowError> {
        match self.removed.insert(number, is_directory) {
            None => Ok(()),
            Some(_) => Err(BelowError::damaged(format!("inode {number}"), "it has more names than links")),
        }
    }

    /// Frees the blocks of an inode below, except those of its content, which are returned.
    fn free_blocks(&mut self, number: u32, record: &InodeRecord) -> Result<Vec<FileExtent>, BelowError> {
        let Some(below) = self.below else { return Ok(Vec::new()) };
        let mapped = below.mapped(number, record)?;
        let single = |physical| FileExtent { logical: 0, length: 1, physical };
        self.freed.extend(mapped.tree.into_iter().map(single));
        if record.attributes != 0 {
            self.freed.push(single(record.attributes));
        }
        Ok(mapped.data)
    }

    /// Removes all names below that are not among a directory's entries.
    pub(super) fn empty_standing(&mut self, id: InodeId) -> Result<(), EntryRefusal> {
        let mut pending = Vec::new();
        if let Some(directory) = self.directory(id) {
            directory.list_standing(&mut pending)?;
        }
        if let Some(standing) = &mut self.directory_mut(id).standing {
            standing.emptied = true;
            standing.removed.clear();
        }
        while let Some(candidate) = pending.pop() {
            match candidate {
                ReleaseCandidate::Below(number) => self.release_below(number, &mut pending)?,
                ReleaseCandidate::Known(id) => {
                    let removal = self.release(id)?;
                    self.freed.extend(removal.extents);
                }
            }
        }
        Ok(())
    }
}

impl Directory<'_> {
    /// Adds the inodes of the names below that are not among the entries.
    fn list_standing(&self, pending: &mut Vec<ReleaseCandidate>) -> Result<(), BelowError> {
        let Some(standing) = self.standing.as_deref().filter(|standing| !standing.emptied) else {
            return Ok(());
        };
        for leaf in standing.file.leaves() {
            standing.file.visit(leaf, &mut |entry| {
                if !self.entries.contains_key(entry.name) && standing.holds(entry.name) {
                    pending.push(ReleaseCandidate::Below(entry.inode));
                }
            })?;
        }
        Ok(())
    }
}

impl StandingDirectory<'_> {
    /// True if a name that the directory has below still means what it means there.
    fn holds(&self, name: &[u8]) -> bool {
        !self.emptied && !self.removed.contains(name)
    }
}
