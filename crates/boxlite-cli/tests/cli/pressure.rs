//! A real filesystem fills up under a home, and real starts meet its floors.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use boxlite_testkit::filesystem::SmallFilesystem;
use boxlite_testkit::program::{Output, run};
use boxlite_testkit::{deadline, oracle};

use crate::home::Home;

const MIB: u64 = 1 << 20;
/// The soft floor of these tests; the hard floor is the default of 1 GiB.
const SOFT: u64 = 1280 * MIB;
const HARD: u64 = 1024 * MIB;
/// A filesystem named by `BOXLITE_DISKTEST_HOME` may not be larger: it is going to be filled.
const LARGEST: u64 = 8192 * MIB;

/// A small filesystem that holds a home.
struct Disk {
    root: PathBuf,
    /// The mount of this test, unless `BOXLITE_DISKTEST_HOME` names a filesystem.
    _mounted: Option<SmallFilesystem>,
}

impl Disk {
    /// `BOXLITE_DISKTEST_HOME`, or a loop-mounted ext4 of 1600 MiB; `None`, after saying so, without root.
    fn small() -> Option<Self> {
        if let Some(named) = std::env::var_os("BOXLITE_DISKTEST_HOME") {
            let root = PathBuf::from(named);
            let total = boxlite_home::durable::free_space(&root).unwrap().bytes_total;
            assert!(total <= LARGEST, "{} holds {total} bytes, too many to fill", root.display());
            return Some(Self { root, _mounted: None });
        }
        if oracle::skip_unless_root("mounting a small filesystem (BOXLITE_DISKTEST_HOME names one)") {
            return None;
        }
        let mounted = SmallFilesystem::ext4(1600 * MIB, &["-m", "0"])?;
        Some(Self { root: mounted.path().to_owned(), _mounted: Some(mounted) })
    }

    fn free(&self) -> u64 {
        boxlite_home::durable::free_space(&self.root).unwrap().bytes
    }

    /// Runs boxlite on the home that lies here, with this soft floor in bytes.
    fn run(&self, home: &Home, soft_floor: u64, arguments: &[&str]) -> Output {
        let mut command = home.command(arguments);
        command.env("BOXLITE_SOFT_FLOOR", soft_floor.to_string()).env("BOXLITE_SOFT_PERCENT", "0");
        Output::of(command.env("BOXLITE_HOME", &self.root).spawn().unwrap())
    }

    /// Fills the filesystem until so many bytes are free.
    fn leave(&self, wanted: u64) {
        let filler = self.root.join("filler");
        let _ = std::fs::remove_file(&filler);
        // Removed extents are only counted as free once the journal is committed.
        run(&mut Command::new("sync"));
        let length = self.free().checked_sub(wanted).expect("less is free than wanted");
        run(Command::new("fallocate").arg("-l").arg(length.to_string()).arg(&filler));
        let free = self.free();
        assert!(free.abs_diff(wanted) < 4 * MIB, "{free} bytes are free instead of {wanted}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.root.join("filler"));
    }
}

/// Disk images and deltas.
fn disk_images(home: &Path) -> Vec<PathBuf> {
    let directories = ["images/disk-images", "images/deltas"].map(|name| std::fs::read_dir(home.join(name)));
    directories.into_iter().flatten().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// Mutations tried: a guard that always admits fails the refusal; one that never collects fails the second start;
/// automatic gc without the start's own image among those it keeps fails it too, for the image is aged.
#[test]
fn starts_meet_ok_then_warn_with_gc_then_reject_on_a_real_disk() {
    let Some(home) = Home::able() else { return };
    let Some(disk) = Disk::small() else { return };
    let boxlite = |arguments: &[&str]| disk.run(&home, SOFT, arguments);

    // Ok: nothing is said.
    disk.leave(SOFT + 150 * MIB);
    let mini = home.image("mini");
    let started = boxlite(&["run", "--name", "kept", &mini, "echo", "fine"]);
    assert_eq!(started.ok(), "fine\n");
    let kept = disk_images(&disk.root);
    boxlite(&["run", "--rm", &home.image("python"), "true"]).ok();
    let orphan =
        disk_images(&disk.root).into_iter().find(|path| !kept.contains(path)).expect("a second image");
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    for path in disk_images(&disk.root) {
        File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }

    // Warn: the orphan is collected, the start's own aged image is not, and the start goes on.
    let orphaned = std::fs::metadata(&orphan).unwrap().blocks() * 512;
    disk.leave(SOFT - orphaned / 2);
    let started = boxlite(&["start", "kept"]);
    let evicted = &orphan.file_name().unwrap().to_str().unwrap()[..12];
    assert!(started.err.contains("automatic gc freed") && started.err.contains(evicted), "{}", started.err);
    started.ok();
    boxlite(&["wait", "kept"]);
    assert!(!orphan.exists(), "gc freed nothing for the start");
    assert_eq!(disk_images(&disk.root), kept);

    // Warn with nothing left to collect: it is said, and the start goes on.
    disk.leave(SOFT - 64 * MIB);
    let warned = boxlite(&["start", "kept"]);
    assert_eq!(warned.code(), Some(0), "{warned:?}");
    assert!(warned.err.contains("disk space runs short"), "{}", warned.err);
    boxlite(&["wait", "kept"]);

    // Reject: refused with the figures, and the box is as it was.
    disk.leave(HARD - 8 * MIB);
    let before = boxlite(&["inspect", "kept"]).text();
    let refused = boxlite(&["start", "kept"]);
    assert_eq!(refused.code(), Some(75));
    assert!(refused.err.contains("needs 1 GiB free"), "{}", refused.err);
    for part in ["short by ", "`boxlite gc` could free nothing"] {
        assert!(refused.err.contains(part), "{} lacks {part}", refused.err);
    }
    assert_eq!(boxlite(&["inspect", "kept"]).text(), before);
    let refused = boxlite(&["run", "--name", "new", &mini, "true"]);
    assert_eq!(refused.code(), Some(75));

    // Room again: the same box starts.
    disk.leave(SOFT);
    boxlite(&["start", "kept"]).ok();
    boxlite(&["wait", "kept"]);
    for name in ["kept", "new"] {
        boxlite(&["rm", "-f", name]);
    }
}

/// A pull makes room by evicting disk images, but not the one that a box of its own image is about to use, although it
/// was used longest ago. Mutation tried: no disk image kept; the pull's own was evicted first.
#[test]
fn a_pull_keeps_its_own_disk_image() {
    let Some(home) = Home::able() else { return };
    let Some(disk) = Disk::small() else { return };
    let boxlite = |arguments: &[&str]| disk.run(&home, HARD, arguments);
    let (mini, python) = (home.image("mini"), home.image("python"));
    disk.leave(HARD + 380 * MIB);
    boxlite(&["run", "--rm", &mini, "true"]).ok();
    let own = disk_images(&disk.root);
    boxlite(&["run", "--rm", &python, "true"]).ok();
    // The disk image of an image whose layers are gone would be its only copy, and stay.
    boxlite(&["rmi", &mini, &python]).ok();
    for path in disk_images(&disk.root) {
        let hours = if own.contains(&path) { 5 } else { 4 };
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        let times = std::fs::FileTimes::new().set_modified(then).set_accessed(then);
        File::options().write(true).open(path).unwrap().set_times(times).unwrap();
    }
    for blob in std::fs::read_dir(disk.root.join("images/blobs/sha256")).unwrap() {
        std::fs::remove_file(blob.unwrap().path()).unwrap();
    }
    disk.leave(HARD - 2 * MIB);
    boxlite(&["pull", &mini]).ok();
    assert_eq!(disk_images(&disk.root), own);
}

/// A copy that crosses the hard floor removes what it has written, in the box and on the host.
/// Mutation tried: no undoing in the guest's agent; the parts that had arrived stayed.
#[test]
fn a_copy_that_crosses_the_floor_leaves_nothing() {
    let Some(home) = Home::able() else { return };
    let Some(disk) = Disk::small() else { return };
    let boxlite = |arguments: &[&str]| disk.run(&home, HARD, arguments);
    let mini = home.image("mini");
    boxlite(&["run", "-d", "--name", "copied", &mini, "sleep", "1000"]).ok();
    boxlite(&["exec", "copied", "sh", "-c", "mkdir /in; echo old >/in/big"]).ok();
    let elsewhere = tempfile::tempdir().unwrap();
    let (big, tree) = (elsewhere.path().join("big"), elsewhere.path().join("tree"));
    std::fs::create_dir(&tree).unwrap();
    run(Command::new("sh").args(["-c", "head -c 300M /dev/urandom >\"$0\""]).arg(&big));
    run(Command::new("split").args(["-b", "20M"]).arg(&big).arg(tree.join("part")));
    let overlay = || {
        let boxes = std::fs::read_dir(disk.root.join("boxes")).unwrap().next().unwrap().unwrap();
        std::fs::metadata(boxes.path().join("disks/root.qcow2")).unwrap().blocks() * 512
    };
    let before = overlay();
    disk.leave(HARD + 160 * MIB);

    for (source, target) in [(big, "copied:/in/big"), (tree, "copied:/in/new")] {
        let broken = boxlite(&["cp", source.to_str().unwrap(), target]);
        assert_eq!(broken.code(), Some(75), "{broken:?}");
        assert!(broken.err.contains("not enough disk space"), "{}", broken.err);
        // The agent takes it back once it sees the archive's early end.
        let listed = "until [ \"$(ls -A /in)\" = big ]; do sleep 0.2; done; cat /in/big; sync";
        assert_eq!(boxlite(&["exec", "copied", "timeout", "60", "sh", "-c", listed]).ok(), "old\n");
        deadline::until(Duration::from_secs(90), "the overlay's blocks to be given back", || {
            overlay() <= before + 32 * MIB
        });
    }
    boxlite(&["rm", "-f", "copied"]);
}

/// It was refused, although it is how a full disk is emptied.
#[test]
fn files_come_out_of_a_resting_box_below_the_floor() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["run", "--name", "web", &image, "sh", "-c", "echo kept >/root/file"]).ok();
    let floors = [("BOXLITE_HARD_FLOOR", "8000TiB"), ("BOXLITE_SOFT_FLOOR", "8000TiB")];
    let below = |arguments: &[&str]| Output::of(home.command(arguments).envs(floors).spawn().unwrap());
    let copied = home.path().join("copied");
    below(&["cp", "web:/root/file", copied.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(&copied).unwrap(), "kept\n");
    below(&["cp", copied.to_str().unwrap(), "web:/root/back"]).lacks_room("free");
    below(&["start", "web"]).lacks_room("free");
}
