use boxlite_types::{BoxOptions, ImageConfig};
use jiff::SignedDuration;

use super::*;

fn record(restart: &str, count: u32, delay_ms: u64) -> BoxRecord {
    BoxRecord {
        id: "b".into(),
        name: "b".into(),
        image: String::new(),
        image_reference: String::new(),
        disk_digest: String::new(),
        disk_image_size: 0,
        image_config: ImageConfig::default(),
        volumes: Vec::new(),
        named_volumes: Vec::new(),
        memberships: Vec::new(),
        options: BoxOptions { restart: restart.parse().unwrap(), ..BoxOptions::default() },
        created_at: Timestamp::UNIX_EPOCH,
        phase: Phase::Created,
        restarts: Restarts { run: "r".into(), count, delay_ms, ..Restarts::default() },
        snapshots: Vec::new(),
    }
}

fn ended(exit_code: i32, up: i64) -> Phase {
    let at = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(up);
    let outcome = RunOutcome { at: Some(at), exit_code: Some(exit_code), reason: None };
    Phase::Ended { started_at: Some(Timestamp::UNIX_EPOCH), outcome }
}

fn crashed() -> Phase {
    let at = Some(Timestamp::UNIX_EPOCH);
    Phase::Failed { started_at: at, at, exit_code: None, reason: "it fell".into() }
}

/// Mutation tried: with the lock alone, a box that has done its work is taken for one that will be restarted.
#[test]
fn a_keeper_shows_a_restart_only_of_a_box_that_may_be_restarted() {
    let directory = tempfile::tempdir().unwrap();
    let paths = BoxPaths::new(directory.path().to_owned());
    let shown = |record: &BoxRecord, phase: &Phase| PendingRestart::is_shown(&paths, record, phase).unwrap();
    assert!(!shown(&record("always", 0, 0), &ended(0, 1)), "nobody is there");
    let _keeper = PendingRestart::begin(&paths).unwrap();
    assert!(shown(&record("always", 0, 0), &ended(0, 1)));
    assert!(shown(&record("on-failure:2", 2, 0), &ended(1, 1)), "the last restart may be under way");
    assert!(!shown(&record("on-failure", 0, 0), &ended(0, 1)));
    assert!(!shown(&record("no", 0, 0), &crashed()));
    assert!(!shown(&record("always", 0, 0), &Phase::Created));
    let mut stopped = record("always", 0, 0);
    stopped.restarts.halted = true;
    assert!(!shown(&stopped, &ended(0, 1)));
}

/// Returns count and pause of the restart, if there is one.
fn restarted(record: &BoxRecord, phase: &Phase) -> Option<(u32, u64)> {
    match decide(record, phase) {
        Decision::Stay => None,
        Decision::Restart(restarts) => Some((restarts.count, restarts.delay_ms)),
    }
}

#[test]
fn each_policy_restarts_what_it_names() {
    for (policy, success, failure, crash) in [
        ("no", false, false, false),
        ("on-failure", false, true, true),
        ("on-failure:3", false, true, true),
        ("always", true, true, true),
        ("unless-stopped", true, true, true),
    ] {
        let record = record(policy, 2, 0);
        let found = [ended(0, 1), ended(3, 1), crashed()].map(|phase| restarted(&record, &phase).is_some());
        assert_eq!(found, [success, failure, crash], "{policy}");
        let mut halted = record;
        halted.restarts.halted = true;
        assert_eq!(restarted(&halted, &ended(3, 1)), None, "{policy}");
        assert_eq!(restarted(&halted, &Phase::Created), None, "{policy}");
    }
}

/// Mutation tried: `<=` instead of `<`.
#[test]
fn a_limit_counts_restarts() {
    let limited = |count| restarted(&record("on-failure:3", count, 0), &ended(1, 1));
    assert_eq!(limited(2), Some((3, 100)));
    assert_eq!(limited(3), None);
    let refused = |count| {
        let record = record("on-failure:3", count, 400);
        after_refusal(record.options.restart, &record.restarts, &Error::conflict("no"))
            .map(|next| (next.count, next.delay_ms, next.refused))
    };
    assert_eq!(refused(2), Some((3, 800, Some("no".into()))));
    assert_eq!(refused(3), None);
}

/// Mutations tried: without the reset; without the upper bound.
#[test]
fn pauses_double_from_a_tenth_of_a_second_to_a_minute_and_begin_anew_after_ten_seconds_up() {
    let mut record = record("always", 0, 0);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let Decision::Restart(next) = decide(&record, &ended(1, 9)) else { panic!("it stays") };
        pauses.push(next.delay_ms);
        record.restarts = next;
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
    assert_eq!(restarted(&record, &ended(1, 10)), Some((13, 100)));
}
