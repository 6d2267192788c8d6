//! Starts from aged cached images against gc in a loop, by threads and by processes.

use std::time::{Duration, Instant};

use boxlite_home::Home;
use boxlite_testkit::deadline;
use boxlite_types::GcOptions;

use crate::place::{self, collect, images, is_live, put_image, remove, start};

const IMAGES: u64 = 5;

/// Starts and removes boxes until `end`; from its start to its removal each must have its image.
pub(crate) fn keep_starting(home: &Home, seed: u64, end: Instant) -> u64 {
    let mut random = seed | 1;
    let mut started = 0;
    while Instant::now() < end {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let index = random % IMAGES;
        let id = format!("{seed:x}-{started:x}");
        start(home, &id, index);
        for _ in 0..random % 20 {
            assert!(is_live(home, index), "box {id} lost disk image {index}");
            std::thread::yield_now();
        }
        assert!(is_live(home, index), "box {id} lost disk image {index}");
        remove(home, &id);
        started += 1;
    }
    started
}

/// Collects until `end`; returns how many disk images went.
pub(crate) fn keep_collecting(home: &Home, end: Instant) -> usize {
    let mut removed = 0;
    while Instant::now() < end {
        let report = collect(home, &GcOptions::default());
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert!(report.unreadable.is_empty(), "{:?}", report.unreadable);
        removed +=
            report.disk_images.iter().filter(|item| report.removed().any(|gone| gone == *item)).count();
    }
    removed
}

fn seconds() -> u64 {
    std::env::var("BOXLITE_RACE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Mutation tried: a second mark that sees no overlay lost an image within a second, by threads and by processes.
#[test]
fn threads_never_lose_a_live_image() {
    let directory = place::in_memory();
    let home = place::open(&directory.path().join("home"));
    for index in 0..IMAGES + 3 {
        put_image(&home, index);
    }
    let end = Instant::now() + Duration::from_secs(seconds());
    let (started, removed) = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4)
            .map(|seed| {
                scope.spawn({
                    let home = &home;
                    move || keep_starting(home, seed + 77, end)
                })
            })
            .collect();
        let passes: Vec<_> = (0..2).map(|_| scope.spawn(|| keep_collecting(&home, end))).collect();
        let started: u64 = starts.into_iter().map(|worker| worker.join().unwrap()).sum();
        let removed: usize = passes.into_iter().map(|worker| worker.join().unwrap()).sum();
        (started, removed)
    });
    println!("threads: {started} starts, {removed} disk images collected");
    assert!(started > 20 && removed > 3, "{started} starts, {removed} collected");
    collect(&home, &GcOptions::default());
    assert_eq!(images(&home), 0, "aged orphans stayed");
}

#[test]
fn processes_never_lose_a_live_image() {
    let directory = place::in_memory();
    let home = place::open(&directory.path().join("home"));
    for index in 0..IMAGES + 3 {
        put_image(&home, index);
    }
    let seconds = seconds();
    let mut children: Vec<_> =
        (0..3).map(|seed| place::spawn(&home, &format!("hammer {} {seconds}", seed + 11), "")).collect();
    children.extend((0..2).map(|_| place::spawn(&home, &format!("sweep {seconds}"), "")));
    // One is killed in the middle of whatever it does; its locks die with it.
    let mut victim = place::spawn(&home, &format!("hammer 99 {}", seconds * 10), "");
    let removed = keep_collecting(&home, Instant::now() + Duration::from_secs(seconds));
    victim.kill().unwrap();
    victim.wait().unwrap();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(removed > 0);
    place::assert_whole(&home);
    for entry in std::fs::read_dir(home.boxes()).unwrap() {
        remove(&home, entry.unwrap().file_name().to_str().unwrap());
    }
    collect(&home, &GcOptions::default());
    assert_eq!(images(&home), 0, "aged orphans stayed");
    assert_eq!(collect(&home, &GcOptions::default()).reclaimed, 0);
}

/// A reservation shows in every process, counts for the later ones, and ends when its owner is killed.
#[test]
fn a_killed_owner_leaves_no_reservation() {
    let directory = tempfile::tempdir().unwrap();
    let home = place::open(&directory.path().join("home"));
    let claims = boxlite_home::admission::Claims::open(&home).unwrap();
    let mut owners: Vec<_> = (0..3).map(|_| place::spawn(&home, "claim 1000", "")).collect();
    deadline::until(Duration::from_secs(60), "the owners' claims", || claims.promised().unwrap() >= 3000);
    let mine = claims.take(10).unwrap();
    assert_eq!(mine.promised_before().unwrap(), 3000);
    for (killed, owner) in owners.iter_mut().enumerate() {
        owner.kill().unwrap();
        owner.wait().unwrap();
        assert_eq!(mine.promised_before().unwrap(), 3000 - 1000 * (killed as u64 + 1));
    }
}
