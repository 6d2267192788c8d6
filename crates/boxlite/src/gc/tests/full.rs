//! gc where nothing at all can be written any more: 0 bytes and 0 inodes free, with the real database.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::place::{AGED, digest};
use crate::durable::FreeSpace;
use crate::gc::{Automatic, Catalog, Fate, GcOptions, collect, usage};
use crate::home::Home;
use crate::settings::Settings;
use crate::store::Store;

/// A small filesystem of its own, unmounted at the end.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "boxlite-test"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            assert!(std::env::var_os("CI").is_none(), "a tmpfs cannot be mounted here");
            eprintln!("SKIPPED: mounting a tmpfs needs root");
            return None;
        }
        Some(Self(directory))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn age(path: &Path) {
    let then = std::time::SystemTime::now() - AGED;
    let times = std::fs::FileTimes::new().set_modified(then).set_accessed(then);
    std::fs::File::open(path).unwrap().set_times(times).unwrap();
}

fn fill_bytes(directory: &Path) {
    let mut file = std::fs::File::create(directory.join("filler")).unwrap();
    let mut block = vec![1; 1 << 20];
    while !block.is_empty() {
        if file.write_all(&block).is_err() {
            block.truncate(block.len() / 2);
        }
    }
    assert_eq!(FreeSpace::at(directory).unwrap().bytes, 0);
}

fn fill_inodes(directory: &Path) {
    let filler = directory.join("inodes");
    std::fs::create_dir(&filler).unwrap();
    let mut made = 0;
    while std::fs::File::create(filler.join(made.to_string())).is_ok() {
        made += 1;
    }
    assert_eq!(FreeSpace::at(directory).unwrap().inodes, 0);
}

/// Mutation tried: a census that opens its files for writing a note (`Lock::try_exclusive` on a lock file in
/// `images/`) fails here with no space left.
fn frees_when(fill: &[fn(&Path)]) {
    let Some(small) = Small::mount("size=24m,nr_inodes=400") else { return };
    let home = Home::open(&small.0.path().join("home")).unwrap();
    let settings = Settings::default();
    {
        let store = Store::open(&home.database()).unwrap();
        assert!(!store.has_box("b").unwrap());
    }
    crate::durable::ensure_file(&home.claims()).unwrap();
    for name in ["one", "two"] {
        std::fs::write(home.disk_image(&digest(name)), vec![1; 1 << 20]).unwrap();
        age(&home.disk_image(&digest(name)));
    }
    std::fs::write(home.blobs().join(digest("loose")), vec![1; 1 << 16]).unwrap();
    age(&home.blobs().join(digest("loose")));
    std::fs::write(home.tmp().join("dead.partial"), vec![1; 1 << 16]).unwrap();
    for fill in fill {
        fill(small.0.path());
    }

    // A process that begins now opens everything anew.
    let home = Home::open(home.root()).unwrap();
    let catalog: Arc<dyn Catalog> = Arc::new(Store::open(&home.database()).unwrap());
    assert!(usage(&home, &catalog, &settings).unwrap().unreadable.is_empty());
    let plan =
        collect(&home, &catalog, &settings, &GcOptions { dry_run: true, ..GcOptions::default() }).unwrap();
    assert!(!plan.failed(), "{plan:?}");
    let automatic = Automatic::new(home.clone(), Arc::clone(&catalog), settings.clone());
    let missing = || crate::admission::Missing {
        bytes: u64::from(home.tmp().join("dead.partial").exists()),
        inodes: 0,
    };
    let goal = crate::admission::Goal { keep: &[], missing: &missing };
    let collected = crate::admission::Collector::collect(&automatic, &goal).unwrap();
    assert_eq!(collected.failures, [""; 0]);
    let report = collect(&home, &catalog, &settings, &GcOptions::default()).unwrap();
    assert!(!report.failed(), "{report:?}");
    let gone = report.disk_images.iter().filter(|item| matches!(item.fate, Fate::Removed { .. })).count();
    assert_eq!(gone, 2);
    assert_eq!(report.reclaimed + collected.bytes, plan.reclaimed);
    assert_eq!(
        report.free_space_change,
        Some(report.reclaimed.cast_signed()),
        "df disagrees with the report"
    );
}

#[test]
fn gc_works_at_0_bytes_free() {
    frees_when(&[fill_bytes]);
}

#[test]
fn gc_works_at_0_inodes_free() {
    frees_when(&[fill_inodes]);
}

#[test]
fn gc_works_at_0_bytes_and_0_inodes_free() {
    frees_when(&[fill_inodes, |directory| {
        // Without an inode left, the filler is one of those that fill them.
        let path = directory.join("inodes/0");
        std::fs::rename(&path, directory.join("filler")).unwrap();
        fill_bytes(directory);
    }]);
}
