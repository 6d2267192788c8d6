//! Numbers for the inodes of a finished tree.

use super::FinishError;
use crate::format::ROOT_INODE;
use crate::tree::{FileTree, Inode, InodeId, InodeKind, ROOT};

/// Inode numbers: those below stay, new ones are given in the order of a walk by breadth, names in byte order.
pub(crate) struct Numbering {
    /// By [`InodeId`]; 0 for inodes that are gone or were not reached.
    pub(crate) numbers: Vec<u32>,
    /// Inodes in the order of the walk; the root is not among them.
    pub(crate) order: Vec<InodeId>,
}

impl Numbering {
    /// Numbers the inodes; `next` gives a number to one that has none.
    pub(crate) fn new(
        tree: &FileTree<'_>,
        next: &mut dyn FnMut(&Inode<'_>) -> Result<u32, FinishError>,
    ) -> Result<Self, FinishError> {
        let mut numbers = vec![0; tree.slots()];
        numbers[ROOT as usize] = ROOT_INODE;
        let mut order: Vec<InodeId> = Vec::new();
        let mut directories = std::collections::VecDeque::from([ROOT]);
        while let Some(id) = directories.pop_front() {
            let InodeKind::Directory(directory) = &tree.inode(id).kind else { continue };
            for name in directory.entries.values() {
                let number = &mut numbers[name.inode as usize];
                if *number != 0 {
                    continue;
                }
                let inode = tree.inode(name.inode);
                *number = if inode.number == 0 { next(inode)? } else { inode.number };
                order.push(name.inode);
                if matches!(inode.kind, InodeKind::Directory(_)) {
                    directories.push_back(name.inode);
                }
            }
        }
        Ok(Self { numbers, order })
    }

    /// A path of an inode, for messages: found by search, since only failures ask.
    pub(crate) fn path_of(&self, tree: &FileTree<'_>, wanted: InodeId) -> Vec<u8> {
        let mut path = Vec::new();
        let mut at = wanted;
        let all = std::iter::once(ROOT).chain(self.order.iter().copied());
        let directories: Vec<_> = all
            .filter_map(|id| match &tree.inode(id).kind {
                InodeKind::Directory(directory) => Some((id, directory)),
                _ => None,
            })
            .collect();
        while at != ROOT {
            let found = directories.iter().find_map(|(id, directory)| {
                let (name, _) = directory.entries.iter().find(|(_, to)| to.inode == at)?;
                Some((*id, name))
            });
            let Some((parent, name)) = found else { break };
            path = if path.is_empty() { name.to_vec() } else { [name, &b"/"[..], &path].concat() };
            at = parent;
        }
        path
    }
}
