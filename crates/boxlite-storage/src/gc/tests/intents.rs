//! Tests of data that no intent explains, and of what a person can do about it.

use boxlite_types::ErrorKind;
use boxlite_types::gc::{Fate, Skip};

use super::place::{AGED, FRESH, Place, digest};
use super::{dry_run, fate, skipped};
use crate::catalog::IntentKind;
use crate::disk::qcow2::BackingFormat::{Qcow2, Raw};
use crate::gc::purge;
use boxlite_types::GcOptions;

const LOST: &str = "0123456789abcdef0123456789abcdef";

/// A box without a record above the disk image `i`, as one that a restored database does not know.
fn lost_box(place: &Place) {
    place.overlay(LOST, &place.image_path("i"), Raw);
    place.describe(LOST, "i");
    place.age_box(LOST);
}

/// It was deleted, and its disk image with it. Mutation tried: leaving out the look at the intent.
#[test]
fn a_box_that_no_record_and_no_intent_explains_is_kept_and_shown() {
    let place = Place::new();
    place.image("i", 4096, AGED);
    lost_box(&place);
    for options in [dry_run(), GcOptions::default()] {
        let report = place.gc(&options);
        assert_eq!((skipped(&report, LOST), report.failed()), (Skip::Unexplained, false));
        assert!(matches!(fate(&report, &digest("i")), Fate::Kept { .. }), "{report:#?}");
        let item = report.unexplained().next().unwrap();
        assert_eq!(item.image.as_deref(), Some("alpine:3"));
        assert!(item.allocated >= 4096 && item.modified > 0, "{item:?}");
    }
    place.intend(IntentKind::Box, LOST);
    assert_eq!(place.gc(&GcOptions::default()).removed().count(), 2);
    assert_eq!(place.intents().len(), 0, "what is gone needs no intent");
}

/// A database that was copied while the box was being created has such an intent, and so has one after a killed `rm`
/// whose box was restored from a backup. Mutation tried: every intent counts, however old.
#[test]
fn an_intent_is_not_about_a_box_that_ran_since() {
    let place = Place::new();
    place.image("i", 4096, AGED);
    lost_box(&place);
    place.intend_at(IntentKind::Box, LOST, -60);
    let log = place.home.of_box(LOST).console_log();
    std::fs::write(&log, "up").unwrap();
    place.age(&log, AGED);
    place.age(place.home.of_box(LOST).root(), AGED);
    let report = place.gc(&GcOptions::default());
    assert_eq!((skipped(&report, LOST), report.failed()), (Skip::Unexplained, false));
    // Once a person has said so, the same files go.
    place.intend_at(IntentKind::Box, LOST, 60);
    assert!(matches!(fate(&place.gc(&GcOptions::default()), LOST), Fate::Removed { .. }));
}

/// Mutations tried: leaving out the look at the intent; taking every second name for a box's overlay, which removed
/// both names of the last base.
#[test]
fn a_base_goes_on_an_intent_or_where_it_is_only_another_name() {
    let place = Place::new();
    place.image("i", 4096, AGED);
    place.unexplained_base("old", &place.image_path("i"), Raw, AGED);
    let report = place.gc(&GcOptions::default());
    assert_eq!(skipped(&report, "old.qcow2"), Skip::Unexplained);
    assert!(matches!(fate(&report, &digest("i")), Fate::Kept { .. }), "{report:#?}");

    // A clone that was killed: the base is another name of the origin's overlay.
    let overlay = place.overlay("origin", &place.image_path("i"), Raw);
    place.record("origin", "i");
    place.age(&overlay, AGED);
    std::fs::hard_link(&overlay, place.base_path("made")).unwrap();
    // Two names of one base, which no box has.
    std::fs::hard_link(place.base_path("old"), place.base_path("second")).unwrap();
    let report = place.gc(&GcOptions::default());
    let removed: Vec<&str> = report.removed().map(|item| item.name.as_str()).collect();
    assert_eq!(removed, ["made.qcow2"]);
    assert!(overlay.exists() && place.base_path("old").exists() && place.base_path("second").exists());
}

/// Mutation tried: leaving out the look at the catalogue's home.
#[test]
fn the_records_of_another_home_are_not_believed() {
    let place = Place::new();
    place.image("i", 4096, AGED);
    place.base("b", &place.image_path("i"), Raw, AGED);
    place.estrange(Some("that of another home"));
    let report = place.gc(&GcOptions::default());
    assert!(report.failed() && report.unreadable[0].reason.contains("another home"), "{report:#?}");
    assert_eq!((skipped(&report, "b.qcow2"), report.removed().count()), (Skip::Unknown, 0));
    place.estrange(None);
    assert_eq!(place.gc(&GcOptions::default()).removed().count(), 2);
}

/// Mutation tried: removing what is needed.
#[test]
fn a_purge_removes_what_nothing_needs_whatever_its_age() {
    let place = Place::new();
    let purge = |name: &str| purge(&place.home, &place.catalog(), &place.settings, name);
    let refused = |name: &str| purge(name).unwrap_err().kind();
    place.image("i", 4096, FRESH);
    lost_box(&place);
    place.unexplained_base("low", &place.image_path("i"), Raw, FRESH);
    place.unexplained_base("high", &place.base_path("low"), Qcow2, FRESH);
    assert_eq!(refused("low.qcow2"), ErrorKind::Conflict, "a base stands on it");
    for unknown in ["nobody.qcow2", "../high.qcow2", "", &LOST[..30], &"0".repeat(32)] {
        assert_eq!(refused(unknown), ErrorKind::NotFound, "{unknown}");
    }
    assert!(purge("high.qcow2").unwrap().reclaimed > 0);
    purge("low.qcow2").unwrap();
    assert_eq!(refused("low.qcow2"), ErrorKind::NotFound);

    let shim = boxlite_home::durable::Lock::exclusive(&place.home.of_box(LOST).shim_lock()).unwrap();
    assert_eq!(refused(LOST), ErrorKind::Busy);
    shim.release();
    place.record(LOST, "i");
    assert_eq!(refused(LOST), ErrorKind::Conflict, "it has a record");
    place.forget(LOST);
    // A broken overlay keeps everything that it might pin, and can be purged itself.
    std::fs::write(place.home.of_box(LOST).overlay(), b"QFI").unwrap();
    assert!(purge(LOST).unwrap().reclaimed > 0);
    assert!(!place.home.of_box(LOST).root().exists());
    assert_eq!(place.intents().len(), 0);

    // One that was cut short after its last removal.
    place.intend(IntentKind::Box, LOST);
    assert_eq!(purge(LOST).unwrap().reclaimed, 0);
    assert_eq!(place.intents().len(), 0);
}

/// A killed `create` leaves it; nothing else may be taken for it.
#[test]
fn the_mark_of_a_box_that_was_never_recorded_counts_only_without_data() {
    let place = Place::new();
    place.image("i", 4096, AGED);
    let (mark, disks) = (place.home.of_box(LOST).unrecorded(), place.home.of_box(LOST).disks());
    let collect = |prepare: &dyn Fn()| {
        let _ = std::fs::remove_dir_all(place.home.of_box(LOST).root());
        std::fs::create_dir_all(&disks).unwrap();
        place.describe(LOST, "i");
        prepare();
        place.age_box(LOST);
        let report = place.gc(&dry_run());
        assert!(!report.failed(), "{report:#?}");
        fate(&report, LOST).clone()
    };
    let kept = Fate::Skipped { why: Skip::Unexplained };
    let marked = || std::fs::write(&mark, "").unwrap();
    assert_eq!(collect(&|| {}), kept, "not marked");
    assert!(matches!(collect(&marked), Fate::Removed { .. }));
    let with_disk = || {
        marked();
        place.overlay(LOST, &place.image_path("i"), Raw);
    };
    assert_eq!(collect(&with_disk), kept);
    let that_ran = || {
        marked();
        std::fs::write(place.home.of_box(LOST).console_log(), "up").unwrap();
    };
    assert_eq!(collect(&that_ran), kept);
    let being_made = || {
        marked();
        std::mem::forget(
            boxlite_home::durable::Lock::exclusive(&place.home.of_box(LOST).state_lock()).unwrap(),
        );
    };
    assert_eq!(collect(&being_made), Fate::Skipped { why: Skip::InUse });
}
