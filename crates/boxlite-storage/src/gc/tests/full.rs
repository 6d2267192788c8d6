//! gc where nothing at all can be written any more: 0 bytes and 0 inodes free, with the real database.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use boxlite_home::Home;
use boxlite_home::settings::Settings;
use boxlite_testkit::filesystem::SmallFilesystem;
use boxlite_types::GcOptions;
use boxlite_types::gc::Fate;

use super::place::{AGED, digest};
use crate::gc::{Automatic, Catalog, collect, usage};
use crate::store::{IntentKind, Store};

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
    assert_eq!(boxlite_home::durable::free_space(directory).unwrap().bytes, 0);
}

fn fill_inodes(directory: &Path) {
    let filler = directory.join("inodes");
    std::fs::create_dir(&filler).unwrap();
    let mut made = 0;
    while std::fs::File::create(filler.join(made.to_string())).is_ok() {
        made += 1;
    }
    assert_eq!(boxlite_home::durable::free_space(directory).unwrap().inodes, 0);
}

/// Mutation tried: a census that opens its files for writing a note (`Lock::try_exclusive` on a lock file in
/// `images/`) fails here with no space left.
fn frees_when(fill: &[fn(&Path)]) {
    let Some(small) = SmallFilesystem::tmpfs("size=24m,nr_inodes=400") else { return };
    let home = Home::open(&small.path().join("home")).unwrap();
    let settings = Settings::default();
    {
        let store = Store::open(&home.database()).unwrap();
        assert!(!store.has_box("b").unwrap());
    }
    boxlite_home::durable::ensure_file(&home.claims()).unwrap();
    for name in ["one", "two"] {
        std::fs::write(home.disk_image(&digest(name)), vec![1; 1 << 20]).unwrap();
        age(&home.disk_image(&digest(name)));
    }
    std::fs::write(home.blobs().join(digest("loose")), vec![1; 1 << 16]).unwrap();
    age(&home.blobs().join(digest("loose")));
    std::fs::write(home.tmp().join("dead.partial"), vec![1; 1 << 16]).unwrap();
    for fill in fill {
        fill(small.path());
    }

    // A process that begins now opens everything anew.
    let home = Home::open(home.root()).unwrap();
    let catalog: Arc<dyn Catalog> = Arc::new(Store::open(&home.database()).unwrap());
    assert!(
        usage(&home, &catalog, &settings, &std::collections::BTreeSet::new()).unwrap().unreadable.is_empty()
    );
    let plan =
        collect(&home, &catalog, &settings, &GcOptions { dry_run: true, ..GcOptions::default() }).unwrap();
    assert!(!plan.failed(), "{plan:?}");
    let automatic = Automatic::new(home.clone(), Arc::clone(&catalog), settings.clone());
    let missing = || boxlite_home::admission::Missing {
        bytes: u64::from(home.tmp().join("dead.partial").exists()),
        ..boxlite_home::admission::Missing::default()
    };
    let goal = boxlite_home::admission::Goal {
        keep: &[],
        missing: &missing,
        outlook: &|_| boxlite_types::Verdict::Ok,
    };
    let collected = boxlite_home::admission::Collector::collect(&automatic, &goal).unwrap();
    assert_eq!(collected.failures, [""; 0]);
    let report = collect(&home, &catalog, &settings, &GcOptions::default()).unwrap();
    assert!(!report.failed(), "{report:?}");
    let gone = report.disk_images.iter().filter(|item| matches!(item.fate, Fate::Removed { .. })).count();
    assert_eq!(gone, 2);
    assert_eq!(report.reclaimed + collected.bytes, plan.reclaimed);
    // A child that another test spawns keeps what was removed open for the instant between its fork and its exec.
    let began = std::time::Instant::now();
    let before = report.free_before.unwrap().bytes;
    let freed = || boxlite_home::durable::free_space(home.root()).unwrap().bytes - before;
    while freed() != report.reclaimed {
        assert!(
            began.elapsed().as_secs() < 10,
            "df grew by {}, the report says {}",
            freed(),
            report.reclaimed
        );
    }
    assert!(report.free_space_change.unwrap() <= report.reclaimed.cast_signed());
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

/// On a full ext4 the staging directory cannot grow for another trash name; with `crowded` it has not even room
/// for one.
///
/// Mutation tried: renaming alone; in all four tests removals failed with no space left.
fn frees_where_directories_cannot_grow(crowded: bool, make: fn(&Home) -> usize) {
    let Some(small) = SmallFilesystem::ext4(24 << 20, &["-b", "1024", "-m", "0", "-N", "2000"]) else {
        return;
    };
    let home = Home::open(&small.path().join("home")).unwrap();
    let settings = Settings::default();
    let catalog: Arc<dyn Catalog> = Arc::new(Store::open(&home.database()).unwrap());
    let made = make(&home);
    fill_bytes(small.path());
    let mut alive = Vec::new();
    while crowded && let Ok(staged) = boxlite_home::durable::Staged::create(&home.tmp(), "a") {
        alive.push(staged);
    }
    assert_eq!(alive.is_empty(), !crowded);

    let report = collect(&home, &catalog, &settings, &GcOptions::default()).unwrap();
    assert!(!report.failed(), "{:?}", report.failures);
    assert_eq!(report.removed().count(), made);
    for directory in [home.disk_images(), home.blobs(), home.boxes()] {
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "{}", directory.display());
    }
    assert_eq!(std::fs::read_dir(home.tmp()).unwrap().count(), alive.len());
}

fn orphans(home: &Home) -> usize {
    for index in 0..150 {
        let path = home.disk_image(&digest(&format!("i{index}")));
        std::fs::write(&path, vec![1; 4096]).unwrap();
        age(&path);
    }
    150
}

#[test]
fn disk_images_go_at_0_bytes_free_where_a_directory_must_grow() {
    frees_where_directories_cannot_grow(false, orphans);
}

#[test]
fn disk_images_go_at_0_bytes_free_where_a_directory_is_full() {
    frees_where_directories_cannot_grow(true, orphans);
}

#[test]
fn blobs_go_at_0_bytes_free_where_a_directory_is_full() {
    frees_where_directories_cannot_grow(true, |home| {
        std::fs::write(home.blobs().join(digest("loose")), b"loose").unwrap();
        age(&home.blobs().join(digest("loose")));
        1
    });
}

#[test]
fn box_directories_go_at_0_bytes_free_where_a_directory_is_full() {
    frees_where_directories_cannot_grow(true, |home| {
        const LOST: &str = "0123456789abcdef0123456789abcdef";
        let lost = home.of_box(LOST);
        Store::open(&home.database()).unwrap().intend(IntentKind::Box, LOST, "a test").unwrap();
        std::fs::create_dir_all(lost.disks()).unwrap();
        std::fs::write(lost.shim_lock(), b"").unwrap();
        age(&lost.disks());
        age(lost.root());
        1
    });
}
