//! The bytes of a home as a tree: what `system df --tree` and the server's page draw.
//!
//! A node's bytes are those of everything below it, so each level adds up to the one above and the root to all that the
//! home allocates. A file with several names counts at one place.

use serde::{Deserialize, Serialize};

use super::Unreadable;

/// The most children that a node shows; the smallest beyond them are added up in one of kind [`NodeKind::More`].
pub const MAX_TREE_CHILDREN: usize = 400;

/// The consumers of a home's bytes, and why they are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskTree {
    /// The home.
    pub root: TreeNode,
    /// Allocated bytes that `gc` would free now.
    pub reclaimable: u64,
    /// Paths that could not be read; the figures are then lower bounds.
    pub unreadable: Vec<Unreadable>,
}

/// One node: a kind of file, a box, or a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNode {
    /// Its kind.
    pub kind: NodeKind,
    /// Its name, for people.
    pub name: String,
    /// Its name in commands, where that is another word: a box's id, a file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Bytes allocated to it and to everything below it.
    pub allocated: u64,
    /// Bytes of these that `gc` would free now.
    pub reclaimable: u64,
    /// How many files or boxes it stands for: 1 without children, unless it is of kind [`NodeKind::More`].
    pub count: u64,
    /// Why it is there, or what becomes of it, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its parts, largest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<TreeNode>,
}

/// The kind of a node; the groups have the kinds of their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// The home.
    Home,
    /// A whole disk image.
    DiskImage,
    /// The changes of an image's further layers to a disk image.
    Delta,
    /// Copy-on-write overlays of a box.
    Overlay,
    /// A snapshot or clone base.
    Base,
    /// A named volume.
    Volume,
    /// A layer, config or manifest.
    Blob,
    /// The rest of a box's directory: logs, sockets, locks.
    Log,
    /// A kernel, initramfs or template.
    BootFile,
    /// Unfinished files and trash.
    Unfinished,
    /// Directories of boxes that nothing explains.
    Unexplained,
    /// The database and its journal.
    Database,
    /// Space that is set aside for what frees space on a full disk.
    Reserve,
    /// Everything else in the home.
    Other,
    /// The smallest of the nodes beside it, added up.
    More,
}

impl TreeNode {
    /// A file or box of so many bytes.
    pub fn leaf(kind: NodeKind, name: impl Into<String>, allocated: u64) -> Self {
        let name = name.into();
        Self { kind, name, id: None, allocated, reclaimable: 0, count: 1, why: None, children: Vec::new() }
    }

    /// Everything that `children` are, largest first, at most [`MAX_TREE_CHILDREN`] of them.
    pub fn group(kind: NodeKind, name: impl Into<String>, mut children: Vec<Self>) -> Self {
        let sum = |of: &dyn Fn(&Self) -> u64| children.iter().map(of).sum::<u64>();
        let (allocated, reclaimable) = (sum(&|child| child.allocated), sum(&|child| child.reclaimable));
        let count = sum(&|child| child.count);
        children.sort_by(|one, other| (other.allocated, &one.name).cmp(&(one.allocated, &other.name)));
        if children.len() > MAX_TREE_CHILDREN {
            let rest = children.split_off(MAX_TREE_CHILDREN - 1);
            let mut more = Self::leaf(NodeKind::More, format!("{} more", rest.len()), 0);
            more.count = rest.iter().map(|node| node.count).sum();
            more.allocated = rest.iter().map(|node| node.allocated).sum();
            more.reclaimable = rest.iter().map(|node| node.reclaimable).sum();
            children.push(more);
        }
        let name = name.into();
        Self { kind, name, id: None, allocated, reclaimable, count, why: None, children }
    }

    /// The same under this name of commands'.
    #[must_use]
    pub fn called(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The same with a reason.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_still_counted() {
        let leaves: Vec<TreeNode> = (0..1000)
            .map(|index| TreeNode {
                reclaimable: 1,
                ..TreeNode::leaf(NodeKind::Blob, format!("{index:04}"), index)
            })
            .collect();
        let group = TreeNode::group(NodeKind::Blob, "blobs", leaves);
        assert_eq!((group.allocated, group.reclaimable, group.count), (499_500, 1000, 1000));
        assert_eq!(group.children.len(), MAX_TREE_CHILDREN);
        assert_eq!(group.children.iter().map(|child| child.allocated).sum::<u64>(), group.allocated);
        assert_eq!(group.children.iter().map(|child| child.count).sum::<u64>(), group.count);
        let more = group.children.last().unwrap();
        assert_eq!((more.kind, &*more.name, more.reclaimable), (NodeKind::More, "601 more", 601));
        assert_eq!(group.children[0].name, "0999", "the largest comes first");
    }
}
