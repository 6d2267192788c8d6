//! Automatic gc: what it spares, when it stops, and when a pass is repeated.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use boxlite_home::admission::{Collector, Goal, Missing, Reclaimable};
use boxlite_home::durable::Lock;
use boxlite_home::lease::Leased;
use boxlite_types::Verdict;

use super::place::{AGED, FRESH, Place, digest};
use crate::gc::note_release;

/// Mutation tried: treating a small share like a floor; both went at once.
#[test]
fn a_small_share_alone_spares_what_was_used_within_a_day() {
    let place = Place::new();
    place.image("old", 4096, AGED);
    place.used(&place.image_path("old"), Duration::from_secs(86_500));
    place.image("new", 4096, AGED);
    place.used(&place.image_path("new"), Duration::from_secs(86_300));
    for (share_only, left) in [(true, 1), (false, 0)] {
        let missing = || Missing { bytes: 1 << 40, share_only, ..Missing::default() };
        note_release(&place.home);
        assert!(
            place
                .automatic()
                .collect(&Goal { keep: &[], missing: &missing, outlook: &|_| Verdict::Ok })
                .unwrap()
                .ran
        );
        assert_eq!((place.images(), place.image_path("new").exists()), (left, left == 1));
    }
}

/// A start that is merely warned may still evict what a hopeless start spared.
/// Mutation tried: noting a hopeless pass down as any other that spared something.
#[test]
fn a_hopeless_pass_counts_for_nobody_else() {
    let place = Place::new();
    place.image("x", 4096, AGED * 2);
    place.used(&place.image_path("x"), Duration::from_secs(90 * 86_400));
    let missing = || Missing { bytes: 1 << 40, critical: true, ..Missing::default() };
    let goal = Goal { keep: &[], missing: &missing, outlook: &|_| Verdict::Reject };
    assert!(place.automatic().collect(&goal).unwrap().ran);
    assert_eq!(place.images(), 1);
    let missing = || Missing { bytes: 1 << 40, ..Missing::default() };
    let goal = Goal { keep: &[], missing: &missing, outlook: &|_| Verdict::Ok };
    assert!(place.automatic().collect(&goal).unwrap().ran, "it was told that there is nothing to collect");
    assert_eq!(place.images(), 0);
}

/// Garbage is removed all the same, and a later goal within reach is not told to wait.
/// Mutations tried: evicting whatever the outlook; taking that pass for a fruitless one.
#[test]
fn a_refusal_that_gc_cannot_avert_costs_no_disk_image() {
    let place = Place::new();
    place.image("x", 4096, AGED * 2);
    place.image("y", 4096, AGED);
    let blob = place.blob("l", AGED);
    let missing = || Missing { bytes: 1 << 40, critical: true, ..Missing::default() };
    let seen = std::sync::Mutex::new(Vec::new());
    let hopeless = |reclaimable| {
        seen.lock().unwrap().push(reclaimable);
        Verdict::Reject
    };
    let bytes = place.automatic().collectable(&[]).unwrap().now.bytes;
    let goal = Goal { keep: &[], missing: &missing, outlook: &hopeless };
    assert!(place.automatic().collect(&goal).unwrap().ran);
    assert_eq!((place.images(), blob.exists()), (2, false));
    assert_eq!(*seen.lock().unwrap(), [Reclaimable { bytes, inodes: 3 }]);

    let goal = Goal { keep: &[], missing: &missing, outlook: &|_| Verdict::Warn };
    assert!(place.automatic().collect(&goal).unwrap().ran);
    assert_eq!(place.images(), 0);
}

/// Mutation tried: no difference between a start that is refused as it is and one that is admitted.
#[test]
fn what_is_in_play_is_evicted_to_avert_a_refusal_or_a_warning_only() {
    for (critical, outlook, left) in
        [(false, Verdict::Warn, 1), (false, Verdict::Ok, 0), (true, Verdict::Warn, 0), (true, Verdict::Ok, 0)]
    {
        let place = Place::new();
        place.image("idle", 4096, AGED);
        place.image("used", 4096, AGED);
        place.used(&place.image_path("used"), Duration::from_secs(60));
        let missing = || Missing { bytes: 1 << 40, critical, ..Missing::default() };
        let goal = Goal { keep: &[], missing: &missing, outlook: &|_| outlook };
        assert!(place.automatic().collect(&goal).unwrap().ran);
        assert_eq!(
            (place.images(), place.image_path("used").exists()),
            (left, left == 1),
            "{critical} {outlook:?}"
        );
    }
}

/// Mutation tried: collecting in name order, and not asking again after each batch.
#[test]
fn automatic_gc_takes_the_least_recently_used_until_there_is_enough() {
    let place = Place::new();
    for (index, name) in ["m", "z", "a", "k"].into_iter().enumerate() {
        place.image(name, 1 << 20, AGED);
        place.used(&place.image_path(name), Duration::from_secs(90_000 - 10_000 * index as u64));
    }
    let target = 2 << 20;
    let freed = || (4 - place.images()) * (1 << 20);
    let missing = || Missing { bytes: (target as u64).saturating_sub(freed() as u64), ..Missing::default() };
    let keep = [digest("m")];
    let collected = place
        .automatic()
        .collect(&Goal { keep: &keep, missing: &missing, outlook: &|_| Verdict::Ok })
        .unwrap();
    assert!(collected.ran);
    assert_eq!(collected.evicted, [digest("a")[..12].to_owned(), digest("z")[..12].to_owned()]);
    let left = |name: &str| place.image_path(name).exists();
    assert_eq!([left("m"), left("z"), left("a"), left("k")], [true, false, false, true]);
}

#[test]
fn a_fruitless_pass_is_not_repeated_until_something_changes() {
    let place = Place::new();
    place.image("f", 4096, FRESH);
    let missing = || Missing { bytes: 1, ..Missing::default() };
    let goal = Goal { keep: &[], missing: &missing, outlook: &|_| Verdict::Ok };
    let automatic = place.automatic();
    let ran = || automatic.collect(&goal).unwrap().ran;
    assert!(ran());
    assert!(!ran(), "a fruitless pass was repeated");
    note_release(&place.home);
    assert!(ran());
    assert!(!ran());
    place.image("g", 4096, AGED);
    assert!(ran(), "a new disk image went unnoticed");
    assert_eq!(place.images(), 1);

    // One pass serves all who waited for it.
    note_release(&place.home);
    let passes = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..16).map(|_| scope.spawn(ran)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).filter(|ran| *ran).count()
    });
    assert_eq!(passes, 1);
}

/// Mutation tried: noting the pass down as fruitless whatever happened meanwhile; the second did not run.
#[test]
fn a_release_during_a_pass_is_not_forgotten() {
    let place = Place::new();
    std::fs::create_dir(place.home.tmp().join("foreign")).unwrap();
    let asked = AtomicU32::new(0);
    let missing = || {
        // First asked before the pass, then for each entry of the staging directory.
        if asked.fetch_add(1, Ordering::Relaxed) == 1 {
            note_release(&place.home);
        }
        Missing { bytes: 1, ..Missing::default() }
    };
    let goal = Goal { keep: &[], missing: &missing, outlook: &|_| Verdict::Ok };
    let automatic = place.automatic();
    assert!(automatic.collect(&goal).unwrap().ran);
    assert!(automatic.collect(&goal).unwrap().ran, "the release was forgotten");
    assert!(!automatic.collect(&goal).unwrap().ran);
}

/// Before: each start that found space short waited for a stopped process for ever, with a thread of its own.
#[test]
fn a_pass_of_a_stopped_process_is_given_up_and_said() {
    let place = Place::new();
    place.image("x", 4096, AGED);
    let missing = || Missing { bytes: 1, ..Missing::default() };
    let goal = Goal { keep: &[], missing: &missing, outlook: &|_| Verdict::Ok };
    let stopped = Lock::exclusive(&place.home.claims()).unwrap();
    let automatic = place.automatic().waiting_for(Duration::from_millis(50));
    let (figures, collected) = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| automatic.collect(&goal).unwrap())).collect();
        let figures = automatic.collectable(&[]).unwrap();
        (figures, starts.into_iter().map(|start| start.join().unwrap()).collect::<Vec<_>>())
    });
    assert!(figures.now.bytes > 0);
    for collected in collected {
        assert!(!collected.ran && collected.failures[0].contains("does not end"), "{collected:?}");
    }
    assert_eq!(place.images(), 1);
    stopped.release();
    assert!(place.automatic().collect(&goal).unwrap().ran);
    assert_eq!(place.images(), 0);
}

/// Mutation tried: waiting a minute all the same; the image stayed.
#[test]
fn what_was_in_use_is_looked_at_again_at_once() {
    let place = Place::new();
    place.image("x", 4096, AGED);
    let missing = || Missing { bytes: 1, ..Missing::default() };
    let goal = Goal { keep: &[], missing: &missing, outlook: &|_| Verdict::Ok };
    let lease = Leased::acquire(&place.image_path("x")).unwrap().unwrap();
    assert!(place.automatic().collect(&goal).unwrap().ran);
    drop(lease);
    // A child that another test spawns has a copy of the lease for the instant between its fork and its exec.
    let path = place.image_path("x");
    let is_free = || {
        Lock::try_lock_open(std::fs::File::open(&path).unwrap(), &path).unwrap().map(Lock::release).is_some()
    };
    while !is_free() {}
    assert!(place.automatic().collect(&goal).unwrap().ran);
    assert_eq!(place.images(), 0);
}
