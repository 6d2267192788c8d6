//! The merged file tree: directories and inodes in memory, file contents by extent.
//!
//! Layers are applied lowest first. Everything a layer touches carries that layer's number, so that a whiteout can
//! tell what it hides (lower layers) from what it must leave alone (its own), in whatever order they come.
//! No walk recurses: depth is the archive's choice, not ours.

mod apply;
mod resolve;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(crate) use apply::Applied;

use crate::error::EntryRefusal;
use crate::image::FileExtent;
use crate::tar::Timestamp;

/// Index of an inode in its [`FileTree`].
pub(crate) type InodeId = u32;

/// The root directory's index.
pub(crate) const ROOT: InodeId = 0;

/// Most names one inode may have on ext4.
const MAX_LINKS: u32 = 65_000;

/// An inode before it has a number.
#[derive(Debug)]
pub(crate) struct Inode {
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    /// Names of a file; of a directory 1 while it is in the tree; 0 once it is gone.
    pub(crate) links: u32,
    /// Full names, ordered.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) kind: InodeKind,
}

#[derive(Debug)]
pub(crate) enum InodeKind {
    File { size: u64, extents: Vec<FileExtent> },
    Directory(Directory),
    Symlink(Box<[u8]>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) entries: BTreeMap<Box<[u8]>, TreeName>,
    pub(crate) parent: InodeId,
    /// Layer that last created, described or put something below this directory.
    touched: u32,
    /// Layer that already hid everything lower layers had in here.
    hidden: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct TreeName {
    pub(crate) inode: InodeId,
    layer: u32,
}

/// The tree, and what its changes leave behind.
#[derive(Debug)]
pub(crate) struct FileTree {
    inodes: Vec<Inode>,
    /// Number of the layer being applied, from 1.
    layer: u32,
    /// Extents of files that are gone, to be given back.
    freed: Vec<FileExtent>,
    /// Inodes created, for the limit on entries.
    created: u64,
}

impl FileTree {
    pub(crate) fn new() -> Self {
        let root = Inode {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            links: 1,
            xattrs: Vec::new(),
            kind: InodeKind::Directory(Directory {
                entries: BTreeMap::new(),
                parent: ROOT,
                touched: 0,
                hidden: 0,
            }),
        };
        Self { inodes: vec![root], layer: 0, freed: Vec::new(), created: 0 }
    }

    /// Starts the next layer.
    pub(crate) fn next_layer(&mut self) {
        self.layer += 1;
    }

    pub(crate) fn inode(&self, id: InodeId) -> &Inode {
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

    fn directory(&self, id: InodeId) -> Option<&Directory> {
        match &self.inode(id).kind {
            InodeKind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// A directory that is known to be one.
    fn directory_mut(&mut self, id: InodeId) -> &mut Directory {
        match &mut self.inodes[id as usize].kind {
            InodeKind::Directory(directory) => directory,
            _ => unreachable!("callers pass directories only"),
        }
    }

    fn lookup(&self, parent: InodeId, name: &[u8]) -> Option<TreeName> {
        self.directory(parent)?.entries.get(name).copied()
    }

    fn add(&mut self, inode: Inode) -> Result<InodeId, EntryRefusal> {
        let id = u32::try_from(self.inodes.len()).map_err(|_| EntryRefusal::TooLarge {
            what: "number of inodes",
            need: self.inodes.len() as u64 + 1,
            limit: u64::from(u32::MAX),
        })?;
        self.inodes.push(inode);
        self.created += 1;
        Ok(id)
    }

    fn new_directory(parent: InodeId, layer: u32) -> InodeKind {
        // A directory made by this layer holds nothing lower, so there is nothing to hide in it.
        InodeKind::Directory(Directory { entries: BTreeMap::new(), parent, touched: layer, hidden: layer })
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

    /// Removes a name and everything that has no other name.
    fn unlink(&mut self, parent: InodeId, name: &[u8]) {
        let Some(removed) = self.directory_mut(parent).entries.remove(name) else { return };
        let mut pending = vec![removed.inode];
        while let Some(id) = pending.pop() {
            let inode = &mut self.inodes[id as usize];
            inode.links -= 1;
            if inode.links > 0 {
                continue;
            }
            inode.xattrs = Vec::new();
            match std::mem::replace(&mut inode.kind, InodeKind::Fifo) {
                InodeKind::File { extents, .. } => self.freed.extend(extents),
                InodeKind::Directory(directory) => {
                    pending.extend(directory.entries.values().map(|name| name.inode));
                }
                _ => {}
            }
        }
    }

    /// Removes everything below a directory that this layer has not touched.
    fn hide_lower(&mut self, top: InodeId) {
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
                    Touched::No => self.unlink(id, &name),
                }
            }
        }
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
