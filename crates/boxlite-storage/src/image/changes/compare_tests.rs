use boxlite_archive::tree::TreeTime;

use super::*;

const OLD: i64 = 1_000;

fn known(inode: u32, mode: u32) -> ListedFile {
    ListedFile { inode, mode: mode as u16, uid: 0, gid: 0, size: 5, seconds: OLD, nanoseconds: 7 }
}

fn image(files: &[(&str, u32, u32)]) -> ImageTree {
    let named = files.iter().map(|(path, inode, mode)| (path.as_bytes().to_vec(), known(*inode, *mode)));
    ImageTree(named.chain([(Vec::new(), known(2, 0o040_755))]).collect())
}

fn file(path: &str, inode: u64, mode: u32, changed: i64) -> TreeFile {
    let changed = TreeTime { seconds: changed, nanoseconds: if changed == OLD { 7 } else { 0 } };
    let path = path.as_bytes().to_vec();
    TreeFile { path, inode, mode, uid: 0, gid: 0, links: 1, size: 5, device: 0, modified: changed, changed }
}

fn found(image: &ImageTree, files: Vec<TreeFile>) -> Vec<String> {
    let mut all = vec![file("", 2, 0o040_755, OLD + 1)];
    all.extend(files);
    check_is_tree(&all).unwrap();
    let changes = image.changes(&all);
    let there = changes.all.iter().filter(|(_, kind)| **kind != ChangeKind::Deleted).count();
    assert_eq!(changes.selected.len(), there);
    let line = |(path, kind): (&Vec<u8>, &ChangeKind)| {
        format!("{} {}", &format!("{kind:?}")[..1], String::from_utf8_lossy(path))
    };
    changes.all.iter().map(line).collect()
}

const DIR: u32 = 0o040_755;
const FILE: u32 = 0o100_644;

/// Mutation tried: times of change left out of account fail this.
#[test]
fn what_was_touched_is_changed_and_what_was_not_is_not() {
    let image = image(&[
        ("a", 11, DIR),
        ("a/one", 12, FILE),
        ("a/two", 13, FILE),
        ("etc", 14, DIR),
        ("b", 15, DIR),
        ("b/x", 16, FILE),
    ]);
    let rest = |more: Vec<TreeFile>| {
        let mut files = vec![
            file("a", 11, DIR, OLD),
            file("etc", 14, DIR, OLD),
            file("b", 15, DIR, OLD),
            file("b/x", 16, FILE, OLD),
        ];
        files.extend(more);
        files
    };
    let same = || vec![file("a/one", 12, FILE, OLD), file("a/two", 13, FILE, OLD)];
    assert_eq!(found(&image, rest(same())), [""; 0]);
    let touched = vec![file("a/one", 12, FILE, OLD + 9), file("a/two", 13, FILE, OLD)];
    assert_eq!(found(&image, rest(touched)), ["C a", "C a/one"]);
    let replaced = vec![file("a/one", 99, FILE, OLD), file("a/two", 13, FILE | 0o4000, OLD)];
    assert_eq!(found(&image, rest(replaced)), ["C a", "C a/one", "C a/two"]);
    let gone = vec![file("a/two", 13, FILE, OLD), file("a/new", 50, FILE, OLD + 9)];
    assert_eq!(found(&image, rest(gone)), ["C a", "A a/new", "D a/one"]);
    // A directory that is gone takes what was in it along, and one that became a file does, too.
    let files = vec![file("a", 11, DIR, OLD), file("etc", 14, DIR, OLD), file("b", 60, FILE, OLD + 9)];
    assert_eq!(found(&image, [files, same()].concat()), ["C b"]);
    let files = vec![file("a", 11, DIR, OLD), file("etc", 14, DIR, OLD)];
    assert_eq!(found(&image, [files, same()].concat()), ["D b"]);
}

#[test]
fn what_the_agent_makes_for_its_mounts_is_no_change() {
    let image = image(&[("etc", 14, DIR)]);
    let mut empty = file("etc/hosts", 20, FILE, OLD + 1);
    empty.size = 0;
    let made = || {
        vec![
            file("proc", 21, DIR, OLD + 1),
            file("dev", 22, DIR, OLD + 1),
            file("etc", 14, DIR, OLD + 1),
            empty.clone(),
        ]
    };
    assert_eq!(found(&image, made()), [""; 0]);
    // Files that the box puts there are changes.
    let mut more = made();
    more.push(file("dev/null", 23, 0o020_666, OLD + 2));
    more.push(file("etc/own", 24, FILE, OLD + 2));
    assert_eq!(found(&image, more), ["A dev", "A dev/null", "C etc", "A etc/own"]);
    let mut attributes = made();
    attributes[2].mode = 0o040_700;
    assert_eq!(found(&image, attributes), ["C etc"]);
}

#[test]
fn a_list_that_is_no_tree_is_refused() {
    let root = || file("", 2, DIR, OLD);
    for files in [
        vec![],
        vec![file("a", 3, FILE, OLD)],
        vec![root(), file("a/b", 3, FILE, OLD)],
        vec![root(), file("a", 3, FILE, OLD), file("a/b", 4, FILE, OLD)],
        vec![root(), file("a", 3, FILE, OLD), file("a", 4, FILE, OLD)],
        vec![root(), root()],
    ] {
        assert_eq!(check_is_tree(&files).unwrap_err().kind(), boxlite_types::ErrorKind::Corrupt);
    }
}
