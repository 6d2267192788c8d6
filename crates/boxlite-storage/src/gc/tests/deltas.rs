//! Deltas: what they pin, what pins them, and the order in which they go.

use std::path::PathBuf;
use std::time::Duration;

use boxlite_home::lease::Leased;
use boxlite_types::GcOptions;
use boxlite_types::gc::{Fate, HolderKind, Skip, SubjectKind};

use super::place::{AGED, FRESH, Place, digest};
use super::{dry_run, fate, skipped};
use crate::disk::qcow2::BackingFormat::Qcow2;
use crate::gc::{explain, usage};

/// The image `i` with the deltas `low` and, above it, `high` and `other`.
fn family() -> Place {
    let place = Place::new();
    place.image("i", 4096, AGED);
    place.delta("low", "i", AGED);
    place.delta("high", "low", AGED);
    place.delta("other", "low", AGED);
    place
}

fn removed(place: &Place) -> Vec<String> {
    let report = place.gc(&GcOptions::default());
    assert!(!report.failed(), "{report:?}");
    let mut names: Vec<String> = report.removed().map(|item| item.name.clone()).collect();
    names.sort();
    names
}

fn names(of: &[&str]) -> Vec<String> {
    let suffix = |name: &str| if name == "i" { "ext4" } else { "qcow2" };
    let mut names: Vec<String> = of.iter().map(|name| format!("{}.{}", digest(name), suffix(name))).collect();
    names.sort();
    names
}

/// Mutations tried: records that name disk images alone; a delta that does not keep what it stands on; deltas left out
/// of the census.
#[test]
fn a_record_keeps_the_whole_chain_of_its_deltas() {
    let place = family();
    place.record("one", "high");
    assert_eq!(removed(&place), names(&["other"]));
    let report = place.gc(&GcOptions::default());
    for (name, holder, kind) in [
        ("high", "one".to_owned(), HolderKind::Record),
        ("low", format!("{}.qcow2", digest("high")), HolderKind::Delta),
    ] {
        let Fate::Kept { by, holders: 1 } = fate(&report, &digest(name)) else { panic!("{report:?}") };
        assert_eq!((&by[0].name, by[0].kind), (&holder, kind));
    }
    assert!(place.image_path("i").exists());
    place.forget("one");
    assert_eq!(removed(&place), names(&["high", "low", "i"]));
}

/// Mutation tried: `BackingDirectories::own` without deltas; what the overlay stands on was looked for among bases.
#[test]
fn an_overlay_keeps_the_deltas_in_its_chain() {
    let place = family();
    let overlay = place.overlay("one", &place.delta_path("high"), Qcow2);
    place.record("one", "none");
    assert_eq!(removed(&place), names(&["other"]));
    let below = crate::disk::overlay::below(&place.home, &overlay).unwrap();
    let chain = [place.delta_path("high"), place.delta_path("low"), place.image_path("i")];
    assert_eq!((below.bases.len(), &below.image[..]), (0, &chain[..]));
}

/// An unneeded family goes in one pass, exactly as the dry run says, and leaves nothing for a second one.
///
/// Mutation tried: deltas left out of the census.
#[test]
fn unneeded_deltas_go_in_one_pass_with_what_they_stand_on() {
    let place = family();
    place.age(&place.delta_path("low"), AGED * 3);
    place.age(&place.image_path("i"), AGED * 4);
    let plan = place.gc(&dry_run());
    let report = place.gc(&GcOptions::default());
    assert_eq!((plan.deltas, plan.disk_images), (report.deltas.clone(), report.disk_images.clone()));
    assert_eq!(report.removed().count(), 4);
    assert_eq!(place.gc(&GcOptions::default()).reclaimed, 0);
}

/// However little is asked for, what goes is never something that another delta stands on.
///
/// Mutation tried: no order by use within the step.
#[test]
fn a_pass_that_stops_early_takes_the_tops_of_chains() {
    let place = family();
    let used = |path: PathBuf, seconds| place.used(&path, AGED + Duration::from_secs(seconds));
    used(place.image_path("i"), 90);
    used(place.delta_path("low"), 80);
    used(place.delta_path("high"), 20);
    used(place.delta_path("other"), 30);
    for expected in ["other", "high", "low", "i"] {
        let report = place.gc(&GcOptions { free: Some(1), ..GcOptions::default() });
        let gone: Vec<&str> = report.removed().map(|item| item.name.as_str()).collect();
        assert_eq!(gone, names(&[expected]));
        assert!(!report.items().any(|item| matches!(item.fate, Fate::Kept { .. })), "{report:?}");
    }
}

/// Mutation tried: a leased delta that does not keep what it stands on.
#[test]
fn a_leased_young_or_protected_delta_keeps_what_it_stands_on() {
    let place = family();
    let lease = Leased::acquire(&place.delta_path("high")).unwrap().unwrap();
    assert_eq!(removed(&place), names(&["other"]));
    assert_eq!(skipped(&place.gc(&dry_run()), &digest("high")), Skip::InUse);
    drop(lease);
    place.age(&place.delta_path("high"), FRESH);
    assert_eq!(removed(&place), [""; 0]);
    place.age(&place.delta_path("high"), AGED);
    let keep = [digest("high")];
    let missing = || boxlite_home::admission::Missing { bytes: 1 << 40, ..Default::default() };
    let outlook = |_| boxlite_types::Verdict::Ok;
    let goal = boxlite_home::admission::Goal { missing: &missing, keep: &keep, outlook: &outlook };
    let report = place.gc_for(&goal, boxlite_types::Verdict::Ok, false);
    assert_eq!(report.removed().count(), 0, "{report:?}");
    assert_eq!(skipped(&report, &digest("high")), Skip::Protected);
}

/// Mutation tried: a delta that cannot be read counted as one that stands on nothing.
#[test]
fn a_delta_that_cannot_be_read_or_misses_another_keeps_everything() {
    for damage in [0, 1] {
        let place = family();
        match damage {
            0 => std::fs::write(place.delta_path("high"), b"QFI\xfb").unwrap(),
            _ => std::fs::remove_file(place.delta_path("low")).unwrap(),
        }
        let report = place.gc(&GcOptions::default());
        assert_eq!((report.removed().count(), report.failed()), (0, true));
        assert!(place.image_path("i").exists() && place.delta_path("other").exists());
    }
    // A disk image stands on nothing, so that its absence is named and blocks nothing.
    let place = family();
    std::fs::remove_file(place.image_path("i")).unwrap();
    let report = place.gc(&GcOptions::default());
    assert!(report.unreadable.iter().all(|named| named.path == place.image_path("i")), "{report:?}");
    assert_eq!((report.unreadable.is_empty(), report.removed().count()), (false, 3));
}

/// Only what boxlite names like a delta is touched and counted, and a home needs no directory for deltas.
#[test]
fn other_files_among_deltas_are_left_alone() {
    let place = family();
    let strangers = ["notes.txt", "short.qcow2", &format!("{}.qcow2.bak", digest("x"))];
    for name in strangers {
        std::fs::write(place.home.deltas().join(name), b"mine").unwrap();
        place.age(&place.home.deltas().join(name), AGED);
    }
    assert_eq!(removed(&place).len(), 4);
    assert!(strangers.iter().all(|name| place.home.deltas().join(name).exists()));
    std::fs::remove_dir_all(place.home.deltas()).unwrap();
    assert!(!place.gc(&GcOptions::default()).failed());
}

#[test]
fn usage_and_explanation_know_deltas() {
    let place = family();
    place.overlay("one", &place.delta_path("high"), Qcow2);
    place.record("one", "high");
    let found =
        usage(&place.home, &place.catalog(), &place.settings, &std::collections::BTreeSet::new()).unwrap();
    let du = |name: &str| super::place::du(&place.delta_path(name));
    assert_eq!((found.deltas.count, found.deltas.reclaimable), (3, du("other")));
    assert_eq!(found.deltas.allocated, du("low") + du("high") + du("other"));
    let below = super::place::du(&place.image_path("i")) + du("low") + du("high");
    assert_eq!(found.boxes[0].below, below);

    let names = ["one".to_owned()];
    let explanation = explain(&place.home, &place.catalog(), &place.settings, &names).unwrap();
    let needs: Vec<_> = explanation.needs.iter().map(|item| item.kind).collect();
    assert_eq!(needs, [SubjectKind::Delta, SubjectKind::Delta, SubjectKind::DiskImage]);
    assert!(place.settings.grace.value > Duration::ZERO);
}
