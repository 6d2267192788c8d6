mod automatic;
mod boot_files;
mod deltas;
mod doubt;
mod explaining;
mod figures;
mod full;
mod homes;
mod intents;
mod layers;
mod place;
mod stale;
mod strangers;
mod volumes;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use boxlite_home::lease::Leased;
use boxlite_home::settings::Settings;
use boxlite_types::gc::{Fate, HolderKind, Skip};
use boxlite_types::{GcOptions, GcReport};
use place::{AGED, FRESH, Place, digest, du};
use proptest::prelude::*;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::rules::Rules;
use super::{Catalog, usage};
use crate::catalog::IntentKind;
use crate::disk::qcow2::BackingFormat::{Qcow2, Raw};

fn fate<'a>(report: &'a GcReport, name: &str) -> &'a Fate {
    let item = report.items().find(|item| item.name.starts_with(name));
    &item.unwrap_or_else(|| panic!("{name} is not in the report")).fate
}

fn skipped(report: &GcReport, name: &str) -> Skip {
    match fate(report, name) {
        Fate::Skipped { why } => *why,
        other => panic!("{name}: {other:?}"),
    }
}

fn dry_run() -> GcOptions {
    GcOptions { dry_run: true, ..GcOptions::default() }
}

/// The proof of scale: exactly the aged orphans go, byte for byte, and a second pass reclaims nothing.
/// Mutation tried: ignoring the mark (box-backed images went), ignoring the grace (fresh ones went), file length
/// for allocated bytes (the sum differed).
#[test]
fn exactly_the_aged_orphans_go() {
    let place = Place::new();
    let mut orphans = 0;
    for index in 0..150 {
        place.image(&format!("a{index}"), 4096 * (index % 7 + 1), AGED);
        orphans += du(&place.home.disk_image(&digest(&format!("a{index}"))));
    }
    for index in 0..40 {
        place.image(&format!("f{index}"), 4096, FRESH);
    }
    for index in 0..20 {
        place.image(&format!("b{index}"), 4096, AGED);
        // Half of them pinned by the chain alone, half by the record alone.
        if index % 2 == 0 {
            place.overlay(&format!("box{index}"), &place.image_path(&format!("b{index}")), Raw);
        } else {
            place.record(&format!("box{index}"), &format!("b{index}"));
        }
        place.record(&format!("unrelated{index}"), "none");
    }
    for index in (0..20).step_by(2) {
        place.record(&format!("box{index}"), "none");
    }
    let plan = place.gc(&dry_run());
    assert_eq!(place.images(), 210);
    let report = place.gc(&GcOptions::default());
    assert!(!report.failed(), "{report:?}");
    assert_eq!(place.images(), 60);
    assert_eq!((report.removed().count(), report.reclaimed), (150, orphans));
    assert_eq!((plan.removed().count(), plan.reclaimed), (150, orphans));
    assert_eq!(plan.disk_images, report.disk_images);
    for index in 0..20 {
        let kind = if index % 2 == 0 { HolderKind::Chain } else { HolderKind::Record };
        let Fate::Kept { by, holders: 1 } = fate(&report, &digest(&format!("b{index}"))) else { panic!() };
        assert_eq!((by[0].name.as_str(), by[0].kind), (format!("box{index}").as_str(), kind));
    }
    assert_eq!(skipped(&report, &digest("f3")), Skip::Grace);
    let second = place.gc(&GcOptions::default());
    assert_eq!((second.reclaimed, second.removed().count()), (0, 0));
}

/// Mutation tried: `<=` for `<` in `is_young`.
#[test]
fn the_grace_ends_exactly() {
    let (settings, options) = (Settings::default(), GcOptions::default());
    let rules = |now: i64| Rules { now, grace: 600, ..Rules::new(&settings, &options, &[]) };
    assert!(rules(1_599).is_young(1_000));
    assert!(!rules(1_600).is_young(1_000));
    assert!(rules(1_000).is_young(1_500), "a time in the future is young");
    assert!(rules(i64::MAX).is_young(i64::MAX));
    assert!(!rules(i64::MAX).is_young(i64::MIN));
}

/// Mutation tried: searching by the name without its suffix, which is not how they are sorted; the image went.
#[test]
fn a_copy_beside_a_disk_image_does_not_hide_what_a_record_pins() {
    let place = Place::new();
    place.image("x", 4096, AGED);
    let beside = place.home.disk_images().join(format!("{}-backup.ext4", digest("x")));
    std::fs::copy(place.image_path("x"), &beside).unwrap();
    for other in ["a", "b", "z"] {
        place.image(other, 4096, FRESH);
    }
    place.record("box", "x");
    let report = place.gc(&GcOptions::default());
    assert!(place.image_path("x").exists(), "{report:#?}");
}

/// Mutation tried: not looking at the name; both directories went.
#[test]
fn foreign_directories_beside_boxes_stay_and_are_roots() {
    let place = Place::new();
    place.image("x", 4096, AGED);
    std::fs::create_dir(place.home.boxes().join("lost+found")).unwrap();
    place.age(&place.home.boxes().join("lost+found"), AGED);
    place.overlay("notes", &place.image_path("x"), Raw);
    let paths = place.home.of_box("notes");
    for path in [paths.overlay(), paths.disks(), paths.root().to_owned()] {
        place.age(&path, AGED);
    }
    let report = place.gc(&GcOptions::default());
    assert_eq!((report.removed().count(), report.box_directories.len()), (0, 0), "{report:#?}");
    assert!(paths.overlay().exists() && place.home.boxes().join("lost+found").exists());
    assert_eq!(place.images(), 1);
}

/// Mutation tried: matching every name, and following symlinks; the directory listing differed.
#[test]
fn strays_beside_disk_images_are_never_touched_or_counted() {
    let place = Place::new();
    let directory = place.home.disk_images();
    place.image("x", 4096, AGED);
    for name in ["a.ext4.partial", "b.tmp", "c.qcow2", ".d.ext4", "e", "f.EXT4", "ext4"] {
        std::fs::write(directory.join(name), vec![7; 9000]).unwrap();
        place.age(&directory.join(name), AGED);
    }
    std::fs::create_dir(directory.join("g.ext4")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", directory.join("h.ext4")).unwrap();
    let report = place.gc(&GcOptions::default());
    assert!(!report.failed());
    assert_eq!(report.disk_images.len(), 1);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 9);
    let usage =
        usage(&place.home, &place.catalog(), &place.settings, &std::collections::BTreeSet::new()).unwrap();
    assert_eq!(usage.disk_images.count, 0);
}

#[test]
fn a_leased_image_is_in_use() {
    let place = Place::new();
    place.image("x", 4096, AGED);
    let lease = Leased::acquire(&place.image_path("x")).unwrap().unwrap();
    for options in [dry_run(), GcOptions::default()] {
        assert_eq!(skipped(&place.gc(&options), &digest("x")), Skip::InUse);
    }
    drop(lease);
    assert_eq!(place.gc(&GcOptions::default()).removed().count(), 1);
}

/// An intent that is left over from a snapshot before does not matter.
#[test]
fn a_snapshot_keeps_its_base_and_what_that_stands_on() {
    let place = Place::new();
    place.image("i", 4096, AGED);
    place.base("low", &place.image_path("i"), Raw, AGED);
    place.base("high", &place.base_path("low"), Qcow2, AGED);
    place.overlay("one", &place.image_path("i"), Raw);
    place.record("one", "none");
    place.intend(IntentKind::Base, "high.qcow2");
    place.intend(IntentKind::Base, "low.qcow2");
    place.snapshot("one", "high");
    let report = place.gc(&GcOptions::default());
    assert_eq!(report.removed().count(), 0);
    let Fate::Kept { by, .. } = fate(&report, "high") else { panic!("{report:?}") };
    assert_eq!((by[0].name.as_str(), by[0].kind), ("one", HolderKind::Snapshot));
    let Fate::Kept { by, .. } = fate(&report, "low") else { panic!("{report:?}") };
    assert_eq!(by[0].kind, HolderKind::Base);
    place.remove_snapshots();
    assert_eq!(place.gc(&GcOptions::default()).removed().count(), 2);
}

#[test]
fn bases_pin_what_they_stand_on_and_go_with_it_in_one_pass() {
    let place = Place::new();
    place.image("i", 4096, AGED);
    place.base("low", &place.image_path("i"), Raw, AGED);
    place.base("high", &place.base_path("low"), Qcow2, AGED);
    place.overlay("one", &place.base_path("high"), Qcow2);
    place.record("one", "none");
    let report = place.gc(&GcOptions::default());
    assert_eq!(report.removed().count(), 0);
    let Fate::Kept { by, holders } = fate(&report, &digest("i")) else { panic!() };
    assert_eq!((*holders, by[0].kind), (3, HolderKind::Chain));

    place.forget("one");
    std::fs::remove_dir_all(place.home.of_box("one").root()).unwrap();
    // A young base is a root: it keeps the aged ones and the image below it.
    place.base("young", &place.base_path("low"), Qcow2, FRESH);
    let report = place.gc(&GcOptions::default());
    let names: Vec<&str> = report.removed().map(|item| item.name.as_str()).collect();
    assert_eq!(names, ["high.qcow2"]);
    place.age(&place.base_path("young"), AGED);

    // A start is about to use `low`: it stays, and so does the image, while `young` is removed.
    let lease = Leased::acquire(&place.base_path("low")).unwrap().unwrap();
    let report = place.gc(&GcOptions::default());
    assert_eq!(skipped(&report, "low"), Skip::InUse);
    assert!(matches!(fate(&report, "young"), Fate::Removed { .. }));
    assert!(matches!(fate(&report, &digest("i")), Fate::Kept { .. }));
    drop(lease);
    let plan = place.gc(&dry_run());
    let report = place.gc(&GcOptions::default());
    assert_eq!((plan.bases, plan.disk_images), (report.bases.clone(), report.disk_images.clone()));
    assert_eq!(report.removed().count(), 2);
    assert_eq!(place.gc(&GcOptions::default()).reclaimed, 0);
}

/// Mutation tried: returning an empty list for a directory that cannot be read; every image went.
#[test]
fn whatever_cannot_be_read_keeps_everything_and_is_named() {
    type Break = fn(&Place) -> std::path::PathBuf;
    let breaks: [(&str, Break); 11] = [
        ("truncated overlay", |place| place.overlay_bytes("bad", b"QFI\xfb")),
        ("empty overlay", |place| place.overlay_bytes("bad", b"")),
        ("json name", |place| {
            let path = place.overlay("bad", Path::new("/XXXX/x"), Qcow2);
            let bytes = std::fs::read(&path).unwrap();
            let at = bytes.windows(5).position(|window| window == b"/XXXX").unwrap();
            let mut bytes = bytes;
            bytes[at..at + 5].copy_from_slice(b"json:");
            std::fs::write(&path, bytes).unwrap();
            path
        }),
        ("fifo", |place| {
            let path = place.overlay_bytes("bad", b"");
            std::fs::remove_file(&path).unwrap();
            let mode = rustix::fs::Mode::RWXU;
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            path
        }),
        ("symlink overlay", |place| {
            let path = place.overlay_bytes("bad", b"");
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/nonexistent", &path).unwrap();
            path
        }),
        ("directory for an overlay", |place| {
            let path = place.overlay_bytes("bad", b"");
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
            path
        }),
        ("symlink for a box", |place| {
            let path = place.home.boxes().join("bad");
            std::os::unix::fs::symlink("/nonexistent", &path).unwrap();
            path
        }),
        ("file for disks", |place| {
            std::fs::create_dir(place.home.boxes().join("bad")).unwrap();
            let path = place.home.of_box("bad").disks();
            std::fs::write(&path, b"").unwrap();
            path
        }),
        ("broken base", |place| {
            let path = place.base_path("bad");
            std::fs::write(&path, b"QFI").unwrap();
            path
        }),
        ("boxes vanished", |place| {
            std::fs::remove_dir(place.home.boxes()).unwrap();
            place.home.boxes()
        }),
        ("database", |place| {
            place.break_catalog();
            place.home.database()
        }),
    ];
    for (what, damage) in breaks {
        let place = Place::new();
        place.image("x", 4096, AGED);
        place.base("b", &place.image_path("x"), Raw, AGED);
        place.blob("c", AGED);
        let path = damage(&place);
        for options in [dry_run(), GcOptions::default()] {
            let report = place.gc(&options);
            assert!(report.failed(), "{what}");
            assert!(
                report.unreadable.iter().any(|found| found.path == path),
                "{what}: {:?}",
                report.unreadable
            );
            assert_eq!(place.images(), 1, "{what}");
            assert!(place.base_path("b").exists(), "{what}");
            assert!(matches!(skipped(&report, "b.qcow2"), Skip::Unknown), "{what}");
            assert_eq!(report.disk_images.len(), 1);
        }
    }
}

/// Runs `look` on a thread that may only read what its permissions let it, since root reads everything.
fn without_privileges<T: Send>(look: impl Send + FnOnce() -> T) -> T {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    let bare = move || {
        rustix::thread::set_capabilities(None, sets).unwrap();
        look()
    };
    std::thread::scope(|scope| scope.spawn(bare).join().unwrap())
}

/// Mutation tried: taking what cannot be opened for no overlay; nothing was unreadable.
#[test]
fn a_file_among_disks_that_cannot_be_opened_may_be_an_overlay() {
    let place = Place::new();
    place.image("x", 4096, AGED);
    let path = place.overlay("b", &place.image_path("x"), Raw).with_file_name("old-disk");
    std::fs::rename(place.home.of_box("b").overlay(), &path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    std::os::unix::fs::symlink("/nonexistent", path.with_file_name("link")).unwrap();
    std::os::unix::net::UnixListener::bind(path.with_file_name("socket")).unwrap();
    let report = without_privileges(|| place.gc(&GcOptions::default()));
    let unreadable: Vec<_> = report.unreadable.iter().map(|found| &found.path).collect();
    assert_eq!((unreadable, place.images()), (vec![&path], 1));
}

/// As an unprivileged user, since root reads everything.
#[test]
fn a_directory_without_permission_keeps_everything() {
    let place = Place::new();
    place.image("x", 4096, AGED);
    place.overlay("secret", &place.image_path("x"), Raw);
    let disks = place.home.of_box("secret").disks();
    std::fs::set_permissions(&disks, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read_dir(&disks).is_ok() {
        boxlite_testkit::oracle::skip_even_in_ci("this user reads directories without permission");
        std::fs::set_permissions(&disks, std::fs::Permissions::from_mode(0o700)).unwrap();
        return;
    }
    let report = place.gc(&GcOptions::default());
    std::fs::set_permissions(&disks, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(report.failed());
    assert_eq!(place.images(), 1);
}

#[test]
fn unfinished_files_go_when_their_owner_is_gone() {
    let place = Place::new();
    let tmp = place.home.tmp();
    let alive = boxlite_home::durable::Staged::create(&tmp, "alive").unwrap();
    std::fs::write(tmp.join("dead.partial"), vec![1; 5000]).unwrap();
    std::fs::create_dir(tmp.join("trash-box.1")).unwrap();
    std::fs::create_dir(tmp.join("foreign")).unwrap();
    let report = place.gc(&GcOptions::default());
    assert!(matches!(fate(&report, "dead"), Fate::Removed { .. }));
    assert_eq!(skipped(&report, "alive"), Skip::InUse);
    assert_eq!(skipped(&report, "trash-box"), Skip::Grace);
    assert_eq!(report.reclaimed, 8192);
    drop(alive);
    let mut place = place;
    place.settings.grace.value = Duration::ZERO;
    assert_eq!(place.gc(&GcOptions::default()).removed().count(), 1);
    let left: Vec<_> = std::fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["foreign"]);
}

#[test]
fn box_directories_without_a_record_go_when_aged_and_idle() {
    const LOST: &str = "0123456789abcdef0123456789abcdef";
    let place = Place::new();
    place.intend(IntentKind::Box, LOST);
    place.image("i", 4096, AGED);
    let overlay = place.overlay(LOST, &place.image_path("i"), Raw);
    place.overlay("clone", &overlay, Qcow2);
    place.record("clone", "none");
    for path in [overlay, place.home.of_box(LOST).disks(), place.home.of_box(LOST).root().to_owned()] {
        place.age(&path, AGED);
    }
    std::fs::write(place.home.of_box(LOST).shim_lock(), b"").unwrap();
    place.age(place.home.of_box(LOST).root(), AGED);

    // The clone stands on the lost box's overlay.
    assert!(matches!(fate(&place.gc(&GcOptions::default()), LOST), Fate::Kept { holders: 1, .. }));
    std::fs::remove_dir_all(place.home.of_box("clone").root()).unwrap();
    place.forget("clone");

    // Its shim lives.
    let shim = boxlite_home::durable::Lock::exclusive(&place.home.of_box(LOST).shim_lock()).unwrap();
    assert_eq!(skipped(&place.gc(&GcOptions::default()), LOST), Skip::InUse);
    assert_eq!(place.images(), 1);
    shim.release();

    let plan = place.gc(&dry_run());
    assert!(matches!(fate(&plan, &digest("i")), Fate::Removed { .. }));
    let report = place.gc(&GcOptions::default());
    assert_eq!(plan.reclaimed, report.reclaimed);
    assert_eq!((report.removed().count(), place.images()), (2, 0));
    assert!(!place.home.of_box(LOST).root().exists());
}

#[test]
fn blobs_go_when_no_image_refers_to_them() {
    let place = Place::new();
    let (used, loose, young) = (place.blob("a", AGED), place.blob("b", AGED), place.blob("c", FRESH));
    let leased = place.blob("d", AGED);
    place.catalogue("sha256:img", &["a"], AGED);
    let lease = Leased::acquire(&leased).unwrap().unwrap();
    let plan = place.gc(&dry_run());
    let report = place.gc(&GcOptions::default());
    assert_eq!(plan.blobs, report.blobs);
    assert_eq!((used.exists(), loose.exists(), young.exists(), leased.exists()), (true, false, true, true));
    assert_eq!((skipped(&report, &digest("c")), skipped(&report, &digest("d"))), (Skip::Grace, Skip::InUse));
    drop(lease);

    // A box uses one image, another is young, and the third is removed with only its own blob.
    place.catalogue("sha256:used", &["a", "d"], AGED);
    place.catalogue("sha256:young", &["a"], FRESH);
    place.catalogue("sha256:idle", &["e", "a"], AGED);
    let idle = place.blob("e", AGED);
    place.record_of("box", "none", "sha256:used");
    let all = GcOptions { all: true, ..GcOptions::default() };
    let plan = place.gc(&GcOptions { dry_run: true, ..all.clone() });
    let report = place.gc(&all);
    assert_eq!((&plan.images, &plan.blobs), (&report.images, &report.blobs));
    assert!(!idle.exists() && used.exists() && leased.exists());
    assert_eq!(report.removed().count(), 3, "{report:#?}");
    assert_eq!(place.gc(&all).reclaimed, 0);
}

#[test]
fn bounds_keep_what_was_used_last() {
    let place = Place::new();
    for (index, name) in ["old", "middle", "new"].into_iter().enumerate() {
        place.image(name, 8192, AGED);
        place.used(&place.image_path(name), Duration::from_secs(90_000 - 10_000 * index as u64));
    }
    let until = GcOptions { until: Some(Duration::from_secs(75_000)), ..dry_run() };
    let report = place.gc(&until);
    assert_eq!(skipped(&report, &digest("new")), Skip::Recent);
    assert_eq!(report.removed().count(), 2);
    let each = du(&place.image_path("new"));
    for (keep, left) in [(3 * each, 3), (3 * each - 1, 2), (each, 1), (0, 0)] {
        let report = place.gc(&GcOptions { keep_storage: Some(keep), ..dry_run() });
        assert_eq!(3 - report.removed().count(), left, "{keep}");
        if left == 2 {
            assert!(matches!(fate(&report, &digest("old")), Fate::Removed { .. }));
            assert_eq!(skipped(&report, &digest("new")), Skip::Enough);
        }
    }
}

/// Mutation tried: counting blobs that a dry run only would have removed; it would have removed an image as well.
#[test]
fn a_dry_run_keeps_as_much_storage_as_a_run() {
    let place = Place::new();
    for name in ["old", "new"] {
        place.image(name, 8192, AGED);
    }
    place.blob("loose", AGED);
    let keep_storage = Some(du(&place.image_path("old")) * 2);
    let plan = place.gc(&GcOptions { keep_storage, ..dry_run() });
    let report = place.gc(&GcOptions { keep_storage, ..GcOptions::default() });
    assert_eq!((plan.removed().count(), report.removed().count()), (1, 1));
}

/// Mutation tried: keeping each kind of lock until the end of its stage; all were found held.
#[test]
fn a_dry_run_is_in_nobodys_way() {
    let place = Place::new();
    place.image("x", 4096, AGED);
    place.base("b", &place.image_path("x"), Raw, AGED);
    let blob = place.blob("l", AGED);
    place.intend(IntentKind::Box, "0123456789abcdef0123456789abcdef");
    let lost = place.home.of_box("0123456789abcdef0123456789abcdef");
    std::fs::create_dir_all(lost.disks()).unwrap();
    for lock in [lost.state_lock(), lost.shim_lock()] {
        std::fs::write(lock, b"").unwrap();
    }
    place.age(&lost.disks(), AGED);
    place.age(lost.root(), AGED);
    let locks = [place.image_path("x"), place.base_path("b"), blob, lost.state_lock(), lost.shim_lock()];
    place.watch(&locks);
    assert_eq!(place.gc(&dry_run()).removed().count(), 4);
    assert_eq!(place.found_held(), [""; 0].map(std::path::PathBuf::from).into());
    assert_eq!(place.gc(&GcOptions::default()).removed().count(), 4);
    assert_eq!(place.found_held(), locks.into(), "the watch sees nothing");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Any home: what a chain or record reaches stays, dry run and run agree, and a second pass reclaims nothing.
    #[test]
    fn any_home_keeps_what_it_needs(
        images in proptest::collection::vec(any::<bool>(), 1..6),
        bases in proptest::collection::vec((any::<bool>(), 0usize..12), 0..5),
        boxes in proptest::collection::vec((any::<bool>(), 0usize..12, 0usize..6), 0..6),
    ) {
        let place = Place::new();
        let age = |aged: bool| if aged { AGED } else { FRESH };
        for (index, aged) in images.iter().enumerate() {
            place.image(&format!("i{index}"), 4096, age(*aged));
        }
        let target = |at: usize, bases: usize| {
            let at = at % (images.len() + bases);
            if at < images.len() {
                (place.image_path(&format!("i{at}")), Raw)
            } else {
                (place.base_path(&format!("b{}", at - images.len())), Qcow2)
            }
        };
        for (index, (aged, below)) in bases.iter().enumerate() {
            let (path, format) = target(*below, index);
            place.base(&format!("b{index}"), &path, format, age(*aged));
        }
        for (index, (recorded, below, named)) in boxes.iter().enumerate() {
            let (path, format) = target(*below, bases.len());
            place.overlay(&format!("box{index}"), &path, format);
            if *recorded {
                place.record(&format!("box{index}"), &format!("i{named}"));
            }
        }
        let plan = place.gc(&dry_run());
        let report = place.gc(&GcOptions::default());
        prop_assert!(!report.failed());
        prop_assert_eq!((&plan.disk_images, &plan.bases), (&report.disk_images, &report.bases));
        prop_assert_eq!(place.gc(&GcOptions::default()).reclaimed, 0);
        // The chain of every box is whole, said by a walk that shares nothing with gc's.
        for index in 0..boxes.len() {
            place.assert_whole(&place.home.of_box(&format!("box{index}")).overlay());
        }
        for (recorded, _, named) in &boxes {
            if *recorded && *named < images.len() {
                let pinned = place.image_path(&format!("i{named}"));
                prop_assert!(pinned.exists());
            }
        }
    }
}

#[test]
fn the_database_answers_for_the_catalogue() {
    let place = Place::new();
    let store = crate::store::Store::open(&place.home.database()).unwrap();
    let catalog: Arc<dyn Catalog> = Arc::new(store);
    let mut seen = 0;
    catalog.boxes(&mut |_| seen += 1).unwrap();
    catalog.images(&mut |_| seen += 1).unwrap();
    catalog.blobs(&mut |_| seen += 1).unwrap();
    assert_eq!(seen, 0);
    assert!(!catalog.has_box("b").unwrap());
    assert!(!catalog.blob_is_referenced(&digest("b")).unwrap());
    assert!(!catalog.forget_image("sha256:x", SystemTime::now()).unwrap());
}
