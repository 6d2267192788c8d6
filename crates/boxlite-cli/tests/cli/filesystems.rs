//! Homes on filesystems that are not a plain, writable disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use boxlite_testkit::oracle;
use boxlite_testkit::program::{Output, hinted};

use crate::home::Home;

/// The mount of this test, unmounted at its end.
struct Mounted(PathBuf);

impl Mounted {
    /// `None`, after saying so, where nothing can be mounted.
    fn new(arguments: &[&str], source: &Path, at: &Path) -> Option<Self> {
        if !oracle::require_root("mounting a filesystem") {
            return None;
        }
        fs::create_dir_all(at).unwrap();
        let status = Command::new("mount").args(arguments).arg(source).arg(at).status().unwrap();
        assert!(status.success(), "mounting {arguments:?} at {}", at.display());
        Some(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn at(home: &Home, root: &Path, arguments: &[&str]) -> Output {
    Output::of(home.command(arguments).env("BOXLITE_HOME", root).spawn().unwrap())
}

/// Commands that only read work; commands that write are refused and say where.
#[test]
fn a_read_only_home_can_be_looked_at() {
    let Some(home) = Home::able() else { return };
    let mini = home.image("mini");
    let scratch = tempfile::tempdir().unwrap();
    let (real, bound) = (scratch.path().join("real"), scratch.path().join("bound"));
    at(&home, &real, &["create", "--name", "one", &mini, "echo", "fine"]).ok();
    let Some(_mounted) = Mounted::new(&["--bind"], &real, &bound) else { return };
    let read_only = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&bound).status().unwrap();
    assert!(read_only.success());

    assert!(at(&home, &bound, &["ls", "-a"]).ok().contains("one"));
    for reads in
        [&["images"][..], &["inspect", "one"], &["info"], &["gc"], &["gc", "--dry-run"], &["system", "df"]]
    {
        at(&home, &bound, reads).ok();
    }
    let shown = bound.to_str().unwrap();
    for writes in [&["start", "one"][..], &["rm", "-f", "one"], &["create", &mini, "true"], &["pull", &mini]]
    {
        let refused = at(&home, &bound, writes).refused(shown);
        assert!(refused.contains("Read-only file system"), "{refused}");
        hinted(&refused);
    }
    assert_eq!(at(&home, &real, &["start", "-a", "one"]).ok(), "fine\n");
    at(&home, &real, &["rm", "one"]).ok();
}

#[test]
fn a_home_cannot_be_made_where_nothing_can_be_written() {
    let home = Home::bare();
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("sealed");
    let Some(_mounted) = Mounted::new(&["-t", "tmpfs", "-o", "ro"], Path::new("none"), &root) else { return };
    for at_root in [root.clone(), root.join("below")] {
        let refused = at(&home, &at_root, &["ls"]).refused(at_root.to_str().unwrap());
        assert!(refused.contains("Read-only file system"), "{refused}");
        hinted(&refused);
    }
}

/// Publishing is a rename, which cannot leave a filesystem.
#[test]
fn a_home_is_one_filesystem() {
    let home = Home::bare();
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("home");
    at(&home, &root, &["ls"]).ok();
    let part = root.join("images/tmp");
    let Some(mounted) = Mounted::new(&["-t", "tmpfs"], Path::new("none"), &part) else { return };
    let refused = at(&home, &root, &["ls"]).refused(part.to_str().unwrap());
    assert!(refused.contains("a home is one filesystem"), "{refused}");
    drop(mounted);
    at(&home, &root, &["ls"]).ok();
}

/// A filesystem in memory, a container's, and one that does not tell its size.
/// Mutation tried: taking a size of 0 for a full disk; the box on ramfs was refused.
#[test]
fn boxes_run_on_tmpfs_overlayfs_and_ramfs() {
    let Some(home) = Home::able() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let memory = scratch.path().join("memory");
    let Some(_tmpfs) = Mounted::new(&["-t", "tmpfs", "-o", "size=4g"], Path::new("none"), &memory) else {
        return;
    };
    for part in ["lower", "upper", "work"] {
        fs::create_dir(memory.join(part)).unwrap();
    }
    let part = |name: &str| memory.join(name).display().to_string();
    let layers = format!("lowerdir={},upperdir={},workdir={}", part("lower"), part("upper"), part("work"));
    let container = scratch.path().join("container");
    let _overlay = Mounted::new(&["-t", "overlay", "-o", &layers], Path::new("none"), &container);
    let sizeless = scratch.path().join("sizeless");
    let _ramfs = Mounted::new(&["-t", "ramfs"], Path::new("none"), &sizeless);
    for place in [memory, container, sizeless] {
        let root = place.join("home");
        let ran = at(&home, &root, &["run", "--rm", &home.image("mini"), "echo", "fine"]);
        assert_eq!((ran.code(), ran.text().as_str()), (Some(0), "fine\n"), "{}: {ran:?}", root.display());
        at(&home, &root, &["gc"]).ok();
        at(&home, &root, &["info"]).ok();
    }
}
