//! `kill -9` at every durable step: afterwards the home opens, no overlay lacks its base, gc converges.

use std::os::unix::process::ExitStatusExt;

use boxlite_types::GcOptions;

use crate::place::{self, assert_deltas_whole, assert_whole, collect, put_delta, put_image, spawn, start};

/// Every named point that these jobs pass. A job must die there or end well where it does not pass it.
const POINTS: [&str; 18] = [
    "lease.opened",
    "lease.locked",
    "publish.written",
    "publish.written=kill:2",
    "publish.synced",
    "publish.synced=kill:2",
    "publish.renamed",
    "publish.renamed=kill:2",
    "publish.durable",
    "publish.durable=kill:2",
    "gc.planned",
    "gc.locked",
    "gc.marked",
    "discard.start",
    "discard.renamed",
    "discard.unlinked",
    "sweep.locked",
    "sweep.unlinking",
];

fn survive(job: &str, point: &str, action: &str, prepare: impl Fn(&boxlite_home::Home)) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let home = place::open(&directory.path().join("home"));
    prepare(&home);
    let fault = match point.split_once('=') {
        Some((name, nth)) => format!("{name}={}", nth.replace("kill", action)),
        None => format!("{point}={action}"),
    };
    let output = spawn(&home, job, &fault).wait_with_output().unwrap();
    let killed = output.status.signal() == Some(9);
    if action == "kill" {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(killed || output.status.success(), "{job} at {point}: {stderr}");
    }

    let home = place::open(home.root());
    assert_whole(&home);
    let first = collect(&home, &GcOptions::default());
    assert!(!first.failed(), "{job} at {point}: {first:?}");
    assert_whole(&home);
    let second = collect(&home, &GcOptions::default());
    assert_eq!((second.reclaimed, second.removed().count()), (0, 0), "{job} at {point}: {second:?}");
    // Work goes on.
    start(&home, "after", 1);
    assert_whole(&home);
    killed || !output.status.success()
}

/// A disk image, a delta over it, and two over that one: of all but the first one is ever needed by another.
fn put_family(home: &boxlite_home::Home) {
    put_image(home, 1);
    put_delta(home, 11, 1);
    put_delta(home, 12, 11);
    put_delta(home, 13, 11);
}

/// An unneeded delta goes before what it stands on: a kill between any two steps leaves none without it.
///
/// Mutation tried: `remove_files` that begins with the lowest.
#[test]
fn a_pass_that_is_killed_among_deltas_leaves_none_without_what_it_stands_on() {
    let mut hit = 0;
    for point in
        ["gc.planned", "gc.locked", "gc.marked", "discard.start", "discard.renamed", "discard.unlinked"]
    {
        for nth in 1..=4 {
            let directory = tempfile::tempdir().unwrap();
            let home = place::open(&directory.path().join("home"));
            put_family(&home);
            let output = spawn(&home, "gc", &format!("{point}=kill:{nth}")).wait_with_output().unwrap();
            hit += usize::from(output.status.signal() == Some(9));
            let home = place::open(home.root());
            assert_deltas_whole(&home);
            let report = collect(&home, &GcOptions::default());
            assert!(!report.failed(), "{point} {nth}: {report:?}");
            assert_eq!(std::fs::read_dir(home.deltas()).unwrap().count(), 0, "{point} {nth}");
            assert_eq!((place::images(&home), collect(&home, &GcOptions::default()).reclaimed), (0, 0));
        }
    }
    assert!(hit >= 12, "only {hit} passes were killed");
}

#[test]
fn whatever_step_is_the_last_the_home_recovers() {
    for action in ["kill", "fail"] {
        let mut hit = std::collections::BTreeSet::new();
        for point in POINTS {
            // A start that finds its image, one that builds it, a pass of gc, a removal.
            hit.extend(survive("start b 1", point, action, |home| put_image(home, 1)).then_some(point));
            hit.extend(survive("start b 1", point, action, |_| {}).then_some(point));
            let garbage = |home: &boxlite_home::Home| {
                put_image(home, 1);
                put_image(home, 2);
                start(home, "kept", 2);
                std::fs::write(home.tmp().join("dead.partial"), b"unfinished").unwrap();
            };
            hit.extend(survive("gc", point, action, garbage).then_some(point));
            hit.extend(survive("remove kept", point, action, garbage).then_some(point));
        }
        let missed: Vec<_> = POINTS.iter().filter(|point| !hit.contains(*point)).collect();
        assert!(missed.is_empty(), "no job passes {missed:?}");
    }
}
