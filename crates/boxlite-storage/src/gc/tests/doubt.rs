//! Boxes without a record whose disk cannot be read: they keep what they might need, and nothing else.

use boxlite_types::gc::{Fate, HolderKind, Skip};
use boxlite_types::{ErrorKind, GcOptions};

use super::place::{AGED, Place, digest};
use super::{dry_run, fate, skipped};
use crate::catalog::IntentKind;
use crate::disk::qcow2::BackingFormat::{Qcow2, Raw};
use crate::gc::purge;

const LOST: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// A home with the orphans `i` and `o`, a base that may go, and a box without a record above `i`.
fn unexplained() -> Place {
    let place = Place::new();
    for image in ["i", "o", "b"] {
        place.image(image, 4096, AGED);
    }
    place.base("b", &place.image_path("b"), Raw, AGED);
    lose(&place, LOST);
    place
}

fn lose(place: &Place, id: &str) {
    place.overlay(id, &place.image_path("i"), Raw);
    place.describe(id, "i");
    place.age_box(id);
}

/// Without `box.json` nobody knows what such a box needs; with it, the disk image is known. Bases stay in both cases,
/// with what they stand on.
/// Mutations tried: no pin by `box.json` (the image of the box went); doubt about nothing (the base went); every broken
/// overlay blocks everything (the orphan stayed).
#[test]
fn a_broken_overlay_of_an_unexplained_box_blocks_only_what_it_might_need() {
    type Break = fn(&Place) -> std::path::PathBuf;
    let breaks: [Break; 4] = [
        |place| place.overlay_bytes(LOST, b"QFI\xfb"),
        |place| {
            place.overlay(LOST, &place.beside("unplugged.qcow2"), Qcow2);
            place.base_path("unplugged")
        },
        |place| {
            let disks = place.home.of_box(LOST).disks();
            std::fs::remove_dir_all(&disks).unwrap();
            std::fs::write(&disks, b"").unwrap();
            disks
        },
        |place| {
            let path = place.home.of_box(LOST).overlay();
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/nonexistent", &path).unwrap();
            path
        },
    ];
    for (what, damage) in breaks.into_iter().enumerate() {
        let place = unexplained();
        let path = damage(&place);
        for options in [dry_run(), GcOptions::default()] {
            let report = place.gc(&options);
            let removed: Vec<_> = report.removed().map(|item| item.name.clone()).collect();
            assert_eq!(removed, [format!("{}.ext4", digest("o"))], "{what}: {report:#?}");
            let Fate::Kept { by, .. } = fate(&report, &digest("i")) else { panic!("{what}: {report:#?}") };
            assert_eq!((by[0].name.as_str(), by[0].kind), (LOST, HolderKind::Description), "{what}");
            assert_eq!(skipped(&report, "b.qcow2"), Skip::Unknown, "{what}");
            assert!(matches!(fate(&report, &digest("b")), Fate::Kept { .. }), "{what}");
            assert_eq!(skipped(&report, LOST), Skip::Unexplained, "{what}");
            let named = report.unreadable.iter().find(|found| found.path == path);
            let named = named.unwrap_or_else(|| panic!("{what}: {:?}", report.unreadable));
            assert!(named.reason.contains(&format!("gc --purge {LOST}")), "{what}: {named:?}");
        }
        purge(&place.home, &place.catalog(), &place.settings, LOST).unwrap();
        let report = place.gc(&GcOptions::default());
        assert_eq!((report.failed(), place.images(), place.base_path("b").exists()), (false, 0, false));
    }
}

/// Makes the description of the box without a record unusable.
type Spoil = fn(&Place);

/// Mutations tried: `box.json` of any box believed; an unusable one taken for none.
#[test]
fn a_broken_overlay_beside_an_unusable_description_keeps_everything() {
    let spoil: [(&str, Spoil); 5] = [
        ("absent", |place| std::fs::remove_file(place.home.of_box(LOST).description()).unwrap()),
        ("no JSON", |place| std::fs::write(place.home.of_box(LOST).description(), "{").unwrap()),
        ("another box's", |place| {
            place.describe(OTHER, "i");
            std::fs::rename(place.home.of_box(OTHER).description(), place.home.of_box(LOST).description())
                .unwrap();
        }),
        ("a later format", |place| {
            let path = place.home.of_box(LOST).description();
            let text = std::fs::read_to_string(&path).unwrap().replace("\"format\":1", "\"format\":2");
            std::fs::write(path, text).unwrap();
        }),
        ("a FIFO", |place| {
            let path = place.home.of_box(LOST).description();
            std::fs::remove_file(&path).unwrap();
            let mode = rustix::fs::Mode::RWXU;
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }),
    ];
    for (what, spoil) in spoil {
        let place = unexplained();
        spoil(&place);
        // The chain says what the box needs, so nothing else does.
        let report = place.gc(&dry_run());
        assert!(!report.failed(), "{what}: {report:#?}");
        assert!(matches!(fate(&report, &digest("i")), Fate::Kept { .. }), "{what}");
        assert!(matches!(fate(&report, &digest("o")), Fate::Removed { .. }), "{what}");
        place.overlay_bytes(LOST, b"");
        let report = place.gc(&GcOptions::default());
        assert_eq!((report.failed(), report.removed().count()), (true, 0), "{what}: {report:#?}");
        assert_eq!(skipped(&report, &digest("o")), Skip::Unknown, "{what}");
        assert_eq!(skipped(&report, LOST), Skip::Unexplained, "{what}");
    }
}

/// A box with a record is somebody's for certain: unknown means keep.
/// Mutation tried: treating it as one without a record.
#[test]
fn a_broken_overlay_of_a_recorded_box_keeps_everything() {
    let place = unexplained();
    place.record(LOST, "i");
    place.overlay_bytes(LOST, b"");
    let report = place.gc(&GcOptions::default());
    assert_eq!((report.failed(), report.removed().count()), (true, 0), "{report:#?}");
    assert_eq!(skipped(&report, &digest("o")), Skip::Unknown);
}

/// Two boxes whose `rm` was killed, with broken overlays: neither waits for the other, and what only they might need
/// goes with them.
/// Mutation tried: a box that is meant to go keeps others as one that stays does; both stayed for ever.
#[test]
fn broken_boxes_that_are_meant_to_go_do_not_keep_each_other() {
    let place = unexplained();
    lose(&place, OTHER);
    for id in [LOST, OTHER] {
        place.overlay_bytes(id, b"");
        std::fs::remove_file(place.home.of_box(id).description()).unwrap();
        place.age_box(id);
        place.intend(IntentKind::Box, id);
    }
    // One of them is still being removed: it stays in this pass, and what it might need does.
    let lock = boxlite_home::durable::Lock::exclusive(&place.home.of_box(OTHER).state_lock()).unwrap();
    place.age_box(OTHER);
    let report = place.gc(&GcOptions::default());
    assert_eq!(skipped(&report, OTHER), Skip::InUse);
    assert!(matches!(fate(&report, LOST), Fate::Removed { .. }), "{report:#?}");
    assert_eq!(skipped(&report, "b.qcow2"), Skip::Unknown);
    lock.release();
    place.gc(&GcOptions::default());
    let report = place.gc(&GcOptions::default());
    assert_eq!((report.failed(), place.images(), place.base_path("b").exists()), (false, 0, false));
}

/// A box that was never started has no overlay yet: its description alone says what it needs, and its image's blobs may
/// be all that is left of an image that was never in a registry.
/// Mutations tried: blobs judged as ever; no pin by `box.json`; not looking at the boxes' intents.
#[test]
fn an_unexplained_box_keeps_its_disk_image_and_the_blobs_that_nothing_refers_to() {
    let place = Place::new();
    for image in ["i", "o"] {
        place.image(image, 4096, AGED);
    }
    std::fs::create_dir_all(place.home.of_box(LOST).disks()).unwrap();
    place.describe(LOST, "i");
    place.age_box(LOST);
    let blob = place.blob("loose", AGED);
    place.catalogue("sha256:idle", &["idle"], AGED);
    let idle = place.blob("idle", AGED);
    let all = GcOptions { all: true, ..GcOptions::default() };
    let report = place.gc(&all);
    assert!(!report.failed(), "{report:#?}");
    let Fate::Kept { by, .. } = fate(&report, &digest("i")) else { panic!("{report:#?}") };
    assert_eq!(by[0].kind, HolderKind::Description);
    assert_eq!(skipped(&report, &digest("loose")), Skip::MayBeNeeded);
    assert!(blob.exists() && idle.exists() && !place.image_path("o").exists());

    // One without a description can never be adopted.
    std::fs::remove_file(place.home.of_box(LOST).description()).unwrap();
    place.age_box(LOST);
    let report = place.gc(&GcOptions::default());
    assert!(matches!(fate(&report, &digest("i")), Fate::Removed { .. }), "{report:#?}");
    assert!(blob.exists());
    place.intend(IntentKind::Box, LOST);
    place.gc(&GcOptions::default());
    assert!(!blob.exists() && !place.home.of_box(LOST).root().exists());
}

/// The directory of a box that is a file was reported as purged. Mutation tried: the look at what is there left out.
#[test]
fn a_purge_refuses_what_boxlite_did_not_make() {
    let place = Place::new();
    let purge = |name: &str| purge(&place.home, &place.catalog(), &place.settings, name).unwrap_err().kind();
    let file = place.home.boxes().join(LOST);
    std::fs::write(&file, "notes").unwrap();
    std::fs::create_dir(place.base_path("d")).unwrap();
    place.intend(IntentKind::Box, LOST);
    place.intend(IntentKind::Base, "d.qcow2");
    assert_eq!((purge(LOST), purge("d.qcow2")), (ErrorKind::Corrupt, ErrorKind::Corrupt));
    assert!(file.exists() && place.intents().len() == 2);
}
