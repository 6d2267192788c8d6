//! The merged file tree: directories and inodes in memory, file contents by extent.
//!
//! Layers are applied lowest first. Everything a layer touches carries that layer's number, so that a whiteout can
//! tell what it hides (lower layers) from what it must leave alone (its own), in whatever order they come.
//! No walk recurses: the archive chooses the depth.
//!
//! # Trees above a file system
//!
//! A tree can stand on a file system that exists: then a name is looked up there the first time that it matters, as if a
//! layer 0 had made it, and stays in the tree. A directory remembers which of the names below are gone.

mod apply;
mod resolve;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(crate) use apply::Applied;

use crate::below::{DirectoryFile, FilesystemBelow};
use crate::error::EntryRefusal;
use crate::format::{FileExtent, InodeRecord};
use crate::tar::Timestamp;

/// Index of an inode in its [`FileTree`].
pub(crate) type InodeId = u32;

/// The root directory's index.
pub(crate) const ROOT: InodeId = 0;

/// Most names one inode may have on ext4.
const MAX_LINKS: u32 = 65_000;

/// An inode of the tree.
#[derive(Debug)]
pub(crate) struct Inode<'b> {
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    /// Names of a file; of a directory 1 while it is in the tree; 0 once it is gone.
    pub(crate) links: u32,
    /// Full names, ordered; those below are in `record`.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) kind: InodeKind<'b>,
    /// Number in the file system below, its own or taken over from the file that it replaces; 0 if it has none yet.
    pub(crate) number: u32,
    /// The record below, of an inode that was there.
    pub(crate) record: Option<Box<InodeRecord>>,
    /// A layer has given a directory from below other metadata.
    pub(crate) described: bool,
}

#[derive(Debug)]
pub(crate) enum InodeKind<'b> {
    /// Content of a file of this build; a file from below has its in the record.
    File {
        size: u64,
        extents: Vec<FileExtent>,
    },
    Directory(Directory<'b>),
    Symlink(Box<[u8]>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

#[derive(Debug)]
pub(crate) struct Directory<'b> {
    pub(crate) entries: BTreeMap<Box<[u8]>, TreeName>,
    pub(crate) parent: InodeId,
    /// Layer that last created, described or put something below this directory.
    touched: u32,
    /// Layer that already hid everything lower layers had in here.
    hidden: u32,
    /// The directory below, unless it is new.
    pub(crate) standing: Option<Box<StandingDirectory<'b>>>,
}

/// A directory below, and what is left of it.
#[derive(Debug)]
pub(crate) struct StandingDirectory<'b> {
    pub(crate) file: DirectoryFile<'b>,
    /// Names below that are gone or mean another inode now.
    pub(crate) removed: BTreeSet<Box<[u8]>>,
    /// All names below are gone, except those among the entries of the tree.
    pub(crate) emptied: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct TreeName {
    pub(crate) inode: InodeId,
    /// Layer that made the name; 0 for a name below.
    pub(crate) layer: u32,
}

/// The tree, and what its changes leave behind.
#[derive(Debug)]
pub(crate) struct FileTree<'b> {
    inodes: Vec<Inode<'b>>,
    /// Number of the layer being applied, from 1.
    layer: u32,
    /// Extents of files that are gone, to be given back.
    freed: Vec<FileExtent>,
    /// Inodes created, for the limit on entries.
    created: u64,
    below: Option<&'b FilesystemBelow<'b>>,
    /// Inodes from below by their number.
    known: HashMap<u32, InodeId>,
    /// Numbers of inodes below that are gone, and whether they were directories.
    pub(crate) removed: BTreeMap<u32, bool>,
}

/// A name that was removed, for its successor.
#[derive(Debug, Default)]
struct RemovedName {
    /// Number of the inode below, if it is gone and was not a directory.
    number: Option<u32>,
    /// Content of the file, if it is gone.
    extents: Vec<FileExtent>,
}

impl<'b> FileTree<'b> {
    /// An empty tree.
    pub(crate) fn new() -> Self {
        Self {
            inodes: vec![implied_directory(Self::new_directory(ROOT, 0))],
            layer: 0,
            freed: Vec::new(),
            created: 0,
            below: None,
            known: HashMap::new(),
            removed: BTreeMap::new(),
        }
    }

    /// Starts the next layer.
    pub(crate) fn next_layer(&mut self) {
        self.layer += 1;
    }

    pub(crate) fn inode(&self, id: InodeId) -> &Inode<'b> {
        &self.inodes[id as usize]
    }

    /// Inodes ever created, those that are gone included.
    pub(crate) fn created(&self) -> u64 {
        self.created
    }

    /// Slots, for tables indexed by [`InodeId`].
    pub(crate) fn slots(&self) -> usize {
        self.inodes.len()
    }

    /// Gives a file just applied its content.
    pub(crate) fn set_content(&mut self, id: InodeId, size: u64, extents: Vec<FileExtent>) {
        self.inodes[id as usize].kind = InodeKind::File { size, extents };
    }

    /// Extents whose files are gone since the last call.
    pub(crate) fn take_freed(&mut self) -> Vec<FileExtent> {
        std::mem::take(&mut self.freed)
    }

    fn directory(&self, id: InodeId) -> Option<&Directory<'b>> {
        match &self.inode(id).kind {
            InodeKind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// A directory that is known to be one.
    fn directory_mut(&mut self, id: InodeId) -> &mut Directory<'b> {
        match &mut self.inodes[id as usize].kind {
            InodeKind::Directory(directory) => directory,
            _ => unreachable!("callers pass directories only"),
        }
    }

    fn lookup(&mut self, parent: InodeId, name: &[u8]) -> Result<Option<TreeName>, EntryRefusal> {
        let Some(directory) = self.directory(parent) else { return Ok(None) };
        match directory.entries.get(name) {
            Some(&found) => Ok(Some(found)),
            None if directory.standing.is_some() => self.look_below(parent, name),
            None => Ok(None),
        }
    }

    fn add(&mut self, inode: Inode<'b>) -> Result<InodeId, EntryRefusal> {
        self.created += 1;
        self.push(inode)
    }

    fn push(&mut self, inode: Inode<'b>) -> Result<InodeId, EntryRefusal> {
        let id = u32::try_from(self.inodes.len()).map_err(|_| EntryRefusal::TooLarge {
            what: "number of inodes",
            need: self.inodes.len() as u64 + 1,
            limit: u64::from(u32::MAX),
        })?;
        self.inodes.push(inode);
        Ok(id)
    }

    fn new_directory(parent: InodeId, layer: u32) -> InodeKind<'b> {
        // A directory made by this layer holds nothing lower, so there is nothing to hide in it.
        InodeKind::Directory(Directory {
            entries: BTreeMap::new(),
            parent,
            touched: layer,
            hidden: layer,
            standing: None,
        })
    }

    /// Names an inode; the name must be free.
    fn link(&mut self, parent: InodeId, name: &[u8], inode: InodeId) {
        let layer = self.layer;
        self.directory_mut(parent).entries.insert(name.into(), TreeName { inode, layer });
        self.touch(parent);
    }

    /// Marks a directory and all above it as part of this layer.
    fn touch(&mut self, mut id: InodeId) {
        let layer = self.layer;
        loop {
            let directory = self.directory_mut(id);
            if directory.touched == layer || id == ROOT {
                return;
            }
            directory.touched = layer;
            id = directory.parent;
        }
    }

    /// Removes a name, and everything that has no other name. The caller gets the content of a file;
    /// [`Self::take_freed`] gives all other blocks.
    fn unlink(&mut self, parent: InodeId, name: &[u8]) -> Result<RemovedName, EntryRefusal> {
        let Some(found) = self.lookup(parent, name)? else { return Ok(RemovedName::default()) };
        let directory = self.directory_mut(parent);
        directory.entries.remove(name);
        if let Some(standing) = &mut directory.standing
            && found.layer == 0
        {
            standing.removed.insert(name.into());
        }
        self.release(found.inode)
    }

    /// Removes everything below a directory that this layer has not touched.
    fn hide_lower(&mut self, top: InodeId) -> Result<(), EntryRefusal> {
        let layer = self.layer;
        let mut pending = vec![top];
        while let Some(id) = pending.pop() {
            let directory = self.directory_mut(id);
            if directory.hidden == layer {
                continue;
            }
            directory.hidden = layer;
            let names: Vec<_> = directory.entries.iter().map(|(name, to)| (name.clone(), *to)).collect();
            for (name, to) in names {
                match self.touched(to) {
                    Touched::Directory => pending.push(to.inode),
                    Touched::File => {}
                    Touched::No => {
                        let removal = self.unlink(id, &name)?;
                        self.freed.extend(removal.extents);
                    }
                }
            }
            self.empty_standing(id)?;
        }
        Ok(())
    }

    fn touched(&self, name: TreeName) -> Touched {
        match self.directory(name.inode) {
            Some(directory) if directory.touched == self.layer => Touched::Directory,
            None if name.layer == self.layer => Touched::File,
            _ => Touched::No,
        }
    }
}

enum Touched {
    No,
    File,
    Directory,
}

/// A directory that no entry describes: mode 0755, owned by root, dated 1970.
fn implied_directory(kind: InodeKind<'_>) -> Inode<'_> {
    Inode {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        links: 1,
        xattrs: Vec::new(),
        kind,
        number: 0,
        record: None,
        described: false,
    }
}
