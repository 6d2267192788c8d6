use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::tar::{TarEntry, TarEntryKind};

#[path = "../../tests/suite/model.rs"]
#[allow(dead_code, reason = "shared with the tests against umoci")]
mod model;

use model::{Model, Node, Op, Random, canonical};

fn entry(op: &Op) -> TarEntry {
    let (kind, link, mode) = match op {
        Op::Directory(_, mode) => (TarEntryKind::Directory, "", *mode),
        Op::Symlink(_, target) => (TarEntryKind::Symlink, target.as_str(), 0),
        Op::Hardlink(_, target) => (TarEntryKind::Hardlink, target.as_str(), 0),
        Op::File(_, content) => (TarEntryKind::File, "", *content),
        Op::Whiteout(..) | Op::Opaque(_) => (TarEntryKind::File, "", 0),
    };
    TarEntry {
        name: op.name().into_bytes(),
        link: link.as_bytes().to_vec(),
        kind,
        mode: u16::from(mode),
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: 1, nanoseconds: 0 },
        device: (0, 0),
        xattrs: Vec::new(),
        size: 0,
        segments: None,
    }
}

/// The tree as a map like the model's; the content of a file stands in its mode.
fn nodes(tree: &FileTree<'_>) -> BTreeMap<model::Path, Node> {
    let mut all = BTreeMap::new();
    let mut pending = vec![(model::Path::new(), ROOT)];
    while let Some((path, id)) = pending.pop() {
        let inode = tree.inode(id);
        let node = match &inode.kind {
            InodeKind::File { .. } => Node::File(inode.mode as u8, id as usize),
            InodeKind::Symlink(target) => {
                Node::Symlink(String::from_utf8(target.to_vec()).unwrap(), id as usize)
            }
            InodeKind::Directory(directory) => {
                for (name, to) in &directory.entries {
                    let name = String::from_utf8(name.to_vec()).unwrap();
                    pending.push(([path.clone(), vec![name]].concat(), to.inode));
                }
                // Implied directories have mode 0755 and are dated 1970; the model marks them so.
                Node::Directory(if inode.mtime.seconds == 0 { 0o55 } else { inode.mode as u8 })
            }
            other => panic!("{other:?}"),
        };
        if !path.is_empty() {
            all.insert(path, node);
        }
    }
    all
}

/// Links counted by names; directories' parents right; what has no name is gone.
fn assert_consistent(tree: &FileTree<'_>) {
    let mut names = vec![0; tree.slots()];
    names[ROOT as usize] = 1;
    let mut pending = vec![ROOT];
    while let Some(id) = pending.pop() {
        let Some(directory) = tree.directory(id) else { continue };
        for name in directory.entries.values() {
            names[name.inode as usize] += 1;
            if let Some(child) = tree.directory(name.inode) {
                assert_eq!(child.parent, id);
                pending.push(name.inode);
            }
        }
    }
    for (id, count) in names.into_iter().enumerate() {
        assert_eq!(tree.inode(id as InodeId).links, count, "links of inode {id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Mutations tried: a touched mark not carried to the ancestors; `hidden` set by every directory entry;
    /// absolute links followed from where they are. Each fails.
    #[test]
    fn any_stack_of_layers_means_what_the_model_says(seed in any::<u64>(), layers in 1_usize..5, length in 1_usize..40) {
        let mut random = Random(seed);
        let (mut tree, mut model) = (FileTree::new(), Model::default());
        for _ in 0..layers {
            tree.next_layer();
            model.next_layer();
            for _ in 0..length {
                let op = random.op();
                // A refused entry ends a build, so what it leaves behind does not matter: go on without it.
                let mut trial = model.clone();
                if trial.apply(&op).is_err() {
                    continue;
                }
                model = trial;
                let applied = tree.apply(&mut entry(&op));
                prop_assert!(applied.is_ok(), "{:?}: {:?}", op, applied);
                prop_assert_eq!(canonical(&nodes(&tree)), canonical(&model.nodes), "after {:?}", op);
            }
        }
        assert_consistent(&tree);
    }

    /// The tree refuses whatever the model refuses.
    #[test]
    fn what_means_nothing_is_refused(seed in any::<u64>(), length in 1_usize..60) {
        let mut random = Random(seed);
        let (mut tree, mut model) = (FileTree::new(), Model::default());
        for position in 0..length {
            if position % 15 == 0 {
                tree.next_layer();
                model.next_layer();
            }
            let op = random.op();
            let (expected, applied) = (model.apply(&op), tree.apply(&mut entry(&op)));
            prop_assert_eq!(expected.is_err(), applied.is_err(), "{:?}: {:?}", op, applied);
            if applied.is_err() {
                break;
            }
        }
    }
}

#[test]
fn freed_extents_are_those_of_files_without_a_name() {
    let extent = |physical| FileExtent { logical: 0, length: 1, physical };
    let mut tree = FileTree::new();
    tree.next_layer();
    for (op, physical) in [(Op::File("a/x".into(), 1), 100), (Op::File("b".into(), 2), 200)] {
        let Applied::File { id, .. } = tree.apply(&mut entry(&op)).unwrap() else { panic!("no file") };
        tree.set_content(id, 1, vec![extent(physical)]);
    }
    tree.apply(&mut entry(&Op::Hardlink("c".into(), "b".into()))).unwrap();
    tree.next_layer();
    tree.apply(&mut entry(&Op::Whiteout(".".into(), "b".into()))).unwrap();
    assert!(tree.take_freed().is_empty());
    tree.apply(&mut entry(&Op::Symlink("a".into(), "c".into()))).unwrap();
    assert_eq!(tree.take_freed(), [extent(100)]);
    // A new file is given the one that it replaces, to keep the blocks that are equal.
    let applied = tree.apply(&mut entry(&Op::File("c".into(), 3))).unwrap();
    assert!(matches!(applied, Applied::File { replaced, .. } if replaced == [extent(200)]));
    assert!(tree.take_freed().is_empty());
    assert_consistent(&tree);
}

/// Depth is the archive's choice: nothing may recurse by it.
#[test]
fn a_very_deep_tree_comes_and_goes() {
    let mut tree = FileTree::new();
    tree.next_layer();
    let step = "d/".repeat(1000);
    tree.apply(&mut entry(&Op::Directory(step.clone(), 1))).unwrap();
    for round in 0..7 {
        // Each link leads to the deepest directory so far, below which the next thousand is made.
        let at = format!("l{round}");
        let target = if round == 0 { step.clone() } else { format!("l{}/{step}", round - 1) };
        tree.apply(&mut entry(&Op::Symlink(at.clone(), target))).unwrap();
        tree.apply(&mut entry(&Op::Directory(format!("{at}/{step}"), 1))).unwrap();
    }
    assert_eq!(tree.created(), 8000 + 7);
    tree.next_layer();
    tree.apply(&mut entry(&Op::Opaque("d".into()))).unwrap();
    tree.apply(&mut entry(&Op::Whiteout(".".into(), "d".into()))).unwrap();
    assert!(tree.lookup(ROOT, b"d").unwrap().is_none());
}

#[test]
fn a_whiteout_hides_the_longest_name() {
    let longest = "n".repeat(255);
    resolve::components(format!("d/.wh.{longest}").as_bytes()).unwrap();
    assert!(resolve::components(format!("d/.wh.n{longest}").as_bytes()).is_err());
    assert!(resolve::components(format!("d/n{longest}").as_bytes()).is_err());
}
