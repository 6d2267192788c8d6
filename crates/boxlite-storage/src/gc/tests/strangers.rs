//! Tests of what gc must not believe, must not touch, and must not remove while something cannot be read.

use std::fs::FileTimes;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use boxlite_home::admission::{Collector, Goal, Missing};
use boxlite_types::gc::{KindUsage, Skip};
use boxlite_types::{GcOptions, Verdict};
use rusqlite::Connection;

use super::place::{AGED, FRESH, Place, digest, du};
use super::{skipped, without_privileges};
use crate::catalog::IntentKind;
use crate::disk::qcow2::BackingFormat::Raw;
use crate::gc::{Catalog, collect, usage};
use crate::store::Store;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Mutations tried: any name that ends in `.ext4`; any file in the staging directory. The user's files were deleted.
#[test]
fn only_names_that_boxlite_writes_are_touched() {
    let place = Place::new();
    let mine = [
        place.home.disk_images().join("user backup.ext4"),
        place.home.disk_images().join("debian.ext4"),
        place.home.disk_images().join(format!("{}.ext4", "A".repeat(64))),
        place.home.tmp().join("user.txt"),
        place.home.tmp().join("notes.2026"),
        place.home.blobs().join("README"),
    ];
    for path in &mine {
        std::fs::write(path, b"mine").unwrap();
        place.age(path, AGED);
    }
    let theirs = [
        place.home.tmp().join(format!("overlay.{}", "0f".repeat(16))),
        place.home.tmp().join(format!("blob-{}.partial", digest("b"))),
        place.home.tmp().join("trash-disk.ext4.1"),
    ];
    for path in &theirs {
        std::fs::write(path, b"unfinished").unwrap();
    }
    let report = place.gc(&GcOptions::default());
    assert!(!report.failed(), "{report:?}");
    assert_eq!(report.items().count(), theirs.len(), "{report:?}");
    assert!(mine.iter().all(|path| path.exists()));
    assert!(theirs.iter().all(|path| !path.exists()));
}

/// A time in the future counts as now: young within the grace, and no reason to stay for ever without one.
/// Mutation tried: the bare difference; the image stayed with a grace of 0.
#[test]
fn a_modification_in_the_future_counts_as_now() {
    let mut place = Place::new();
    place.image("f", 4096, AGED);
    let later = SystemTime::now() + YEAR;
    let times = FileTimes::new().set_modified(later).set_accessed(later);
    std::fs::File::open(place.image_path("f")).unwrap().set_times(times).unwrap();
    assert_eq!(skipped(&place.gc(&GcOptions::default()), &digest("f")), Skip::Grace);
    place.settings.grace.value = Duration::ZERO;
    assert_eq!(place.gc(&GcOptions::default()).removed().count(), 1);
}

/// Mutation tried: believing whatever the times of `claims` say; no pass ran for a year.
#[test]
fn forged_stamps_do_not_suppress_automatic_gc() {
    let place = Place::new();
    let missing = || Missing { bytes: 1, ..Missing::default() };
    let goal = Goal { keep: &[], missing: &missing, outlook: &|_| Verdict::Ok };
    for (ended, again) in [(YEAR, YEAR), (YEAR, 2 * YEAR), (Duration::ZERO, YEAR)] {
        place.image("x", 4096, AGED);
        boxlite_home::durable::ensure_file(&place.home.claims()).unwrap();
        let now = SystemTime::now();
        let times = FileTimes::new().set_modified(now + ended).set_accessed(now + again);
        std::fs::File::options().write(true).open(place.home.claims()).unwrap().set_times(times).unwrap();
        assert!(place.automatic().collect(&goal).unwrap().ran, "{ended:?} {again:?}");
        assert_eq!(place.images(), 0);
    }
}

/// Where blobs or boot files cannot be listed, what would be removed might be needed to make them again.
/// Mutation tried: reporting these without keeping anything; the disk image was removed.
#[test]
fn an_unreadable_cache_keeps_everything() {
    let directories: [fn(&Place) -> std::path::PathBuf; 2] =
        [|place| place.home.blobs(), |place| place.home.vm()];
    for directory in directories {
        let place = Place::new();
        place.image("x", 4096, AGED);
        let blob = place.blob("loose", AGED);
        let directory = directory(&place);
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o000)).unwrap();
        let all = GcOptions { all: true, ..GcOptions::default() };
        place.catalogue("sha256:idle", &["loose"], AGED);
        let report = without_privileges(|| place.gc(&all));
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(report.failed());
        assert!(report.unreadable.iter().any(|found| found.path == directory), "{report:?}");
        assert_eq!((report.removed().count(), report.reclaimed), (0, 0), "{report:?}");
        assert_eq!((place.images(), blob.exists()), (1, true));
    }
}

/// A page of the database that is not about boxes: what its tables say about these may be incomplete as well.
#[test]
fn a_damaged_page_of_the_database_keeps_everything() {
    let place = Place::new();
    place.image("x", 4096, AGED);
    let blob = place.blob("loose", AGED);
    drop(Store::open(&place.home.database()).unwrap());
    let root: i64 = {
        let database = Connection::open(place.home.database()).unwrap();
        let query = "SELECT rootpage FROM sqlite_schema WHERE name = 'image_blobs'";
        database.query_row(query, [], |row| row.get(0)).unwrap()
    };
    let catalog: std::sync::Arc<dyn Catalog> =
        std::sync::Arc::new(Store::open(&place.home.database()).unwrap());
    let mut bytes = std::fs::read(place.home.database()).unwrap();
    let start = 4096 * (root as usize - 1);
    bytes[start..start + 4096].fill(0xa5);
    std::fs::write(place.home.database(), bytes).unwrap();
    let report = collect(&place.home, &catalog, &place.settings, &GcOptions::default()).unwrap();
    assert!(report.failed());
    assert_eq!((report.removed().count(), place.images(), blob.exists()), (0, 1, true), "{report:?}");
}

/// `system df` has a row for every byte of the home, and for every byte that gc can free.
/// Mutations tried: no reclaimable bytes of box directories without a record; a base that is another name of an overlay
/// counted again; no row for what nothing explains.
#[test]
fn the_rows_of_usage_add_up() {
    const LOST: &str = "0123456789abcdef0123456789abcdef";
    let place = Place::new();
    place.image("i", 40_960, AGED);
    place.image("o", 8192, AGED);
    place.image("f", 4096, FRESH);
    place.base("b", &place.image_path("i"), Raw, AGED);
    place.blob("loose", AGED);
    std::fs::write(place.home.tmp().join("dead.partial"), vec![1; 5000]).unwrap();
    let overlay = place.overlay(LOST, &place.image_path("i"), Raw);
    std::fs::write(place.home.of_box(LOST).console_log(), vec![b'x'; 10_000]).unwrap();
    // Written last: a box that has a later log ran again.
    place.intend_at(IntentKind::Box, LOST, 60);
    for path in [overlay, place.home.of_box(LOST).disks(), place.home.of_box(LOST).root().to_owned()] {
        place.age(&path, AGED);
    }
    let unexplained = "f".repeat(32);
    place.overlay(&unexplained, &place.image_path("i"), Raw);
    place.overlay("cloned", &place.image_path("i"), Raw);
    place.record("cloned", "i");
    std::fs::hard_link(place.home.of_box("cloned").overlay(), place.base_path("second-name")).unwrap();
    for (name, bytes) in [("boxlite.db", 9000), ("boxlite.db-journal", 5000), ("reserve-database", 70_000)] {
        std::fs::write(place.home.root().join(name), vec![1; bytes]).unwrap();
    }
    std::fs::write(place.home.root().join("notes.txt"), vec![1; 20_000]).unwrap();
    let found =
        usage(&place.home, &place.catalog(), &place.settings, &std::collections::BTreeSet::new()).unwrap();
    let rows: [KindUsage; 10] = [
        found.disk_images,
        found.overlays,
        found.bases,
        found.blobs,
        found.logs,
        found.boot_files,
        found.unfinished,
        found.unexplained,
        found.database,
        found.reserves,
    ];
    let all = rows.iter().map(|row| row.allocated).sum::<u64>() + found.other;
    assert_eq!(all, du(place.home.root()));
    assert_eq!(found.unexplained.allocated, du(place.home.of_box(&unexplained).root()));
    assert_eq!(found.bases.allocated, du(&place.base_path("b")), "the other is an overlay");
    assert_eq!((found.database.count, found.reserves.count), (2, 1));
    assert_eq!(rows.iter().map(|row| row.reclaimable).sum::<u64>(), found.reclaimable);
    assert!(rows.iter().all(|row| row.reclaimable <= row.allocated));
    let lost = du(place.home.of_box(LOST).root());
    assert_eq!(found.overlays.reclaimable + found.logs.reclaimable, lost);
    let report = place.gc(&GcOptions::default());
    assert_eq!(report.reclaimed, found.reclaimable);
}
