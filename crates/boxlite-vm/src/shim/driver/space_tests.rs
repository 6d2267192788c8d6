use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const FLOORS: DiskFloors = DiskFloors { pause_below: 512 * MIB, resume_at: 768 * MIB };

fn policy() -> PausePolicy {
    PausePolicy::new(vec![FLOORS])
}

fn reading(free: u64, grown: u64) -> [SpaceReading; 1] {
    [SpaceReading { free: Some(free), grown: Some(grown) }]
}

const UNKNOWN: [SpaceReading; 1] = [SpaceReading { free: None, grown: None }];

/// Mutation tried: `<=` instead of `<` fails the first line, and two more tests.
#[test]
fn a_fast_writer_is_paused_below_the_floor_and_goes_on_above_the_hysteresis() {
    let mut policy = policy();
    let fast = |free| reading(free, 400 * MIB);
    assert_eq!(policy.measured(&fast(512 * MIB)), Action::None);
    assert_eq!(policy.measured(&fast(512 * MIB - 1)), Action::Pause);
    assert_eq!(policy.paused(), Some(PausedBy::Floor(0)));
    assert_eq!(policy.measured(&reading(600 * MIB, 0)), Action::None);
    assert_eq!(policy.measured(&reading(768 * MIB, 0)), Action::Resume);
    assert_eq!(policy.paused(), None);
    assert_eq!(policy.measured(&fast(700 * MIB)), Action::None);
}

/// Mutation tried: without the case of a box that wrote nothing, the first line pauses it.
#[test]
fn an_idle_box_runs_on_and_a_slow_writer_goes_further_down() {
    assert_eq!(policy().measured(&reading(0, 0)), Action::None);
    assert_eq!(policy().measured(&reading(300 * MIB, MIB)), Action::None);
    assert_eq!(policy().measured(&reading(257 * MIB, MIB)), Action::Pause);
    let unknown = [SpaceReading { free: Some(511 * MIB), grown: None }];
    assert_eq!(policy().measured(&unknown), Action::Pause, "growth that is not known may be any");
}

#[test]
fn a_full_disk_is_waited_out_and_an_unknown_one_never_blocks() {
    let mut policy = PausePolicy::new(vec![DiskFloors { pause_below: 0, resume_at: 0 }]);
    assert_eq!(policy.measured(&reading(0, MIB)), Action::None);
    policy.disk_full();
    assert_eq!(policy.measured(&reading(0, MIB)), Action::None);
    assert_eq!(policy.measured(&reading(MIB - 1, MIB)), Action::None);
    assert_eq!(policy.measured(&reading(MIB, MIB)), Action::Resume);
    policy.disk_full();
    assert_eq!(policy.measured(&UNKNOWN), Action::Resume);
    assert_eq!(policy.measured(&UNKNOWN), Action::None);
}

#[test]
fn a_guest_that_is_stopping_may_flush_further_down() {
    let mut policy = policy();
    let fast = |free| reading(free, 400 * MIB);
    assert_eq!(policy.measured(&fast(300 * MIB)), Action::Pause);
    policy.stopping();
    assert_eq!(policy.measured(&fast(300 * MIB)), Action::Resume);
    assert_eq!(policy.measured(&fast(128 * MIB)), Action::None);
    assert_eq!(policy.measured(&fast(127 * MIB)), Action::Release);
    assert_eq!(policy.measured(&fast(MIB)), Action::None, "then down to a full disk");
    policy.disk_full();
    assert_eq!(policy.measured(&fast(0)), Action::None, "it is released once");
    assert_eq!(policy.measured(&fast(2 * MIB)), Action::Resume);
}

/// Mutation tried: without the case of a paused guest, one that met a full disk before its stop is never released.
#[test]
fn a_paused_guest_that_is_stopped_gets_the_reserve() {
    let mut policy = policy();
    assert_eq!(policy.measured(&reading(MIB, 400 * MIB)), Action::Pause);
    policy.disk_full();
    assert_eq!(policy.measured(&reading(0, 0)), Action::None, "only stops release it");
    policy.stopping();
    assert_eq!(policy.measured(&reading(0, 0)), Action::Release);
    assert_eq!(policy.measured(&reading(64 * MIB, 0)), Action::Resume);
}

/// Mutation tried: a resumption by the first filesystem's figure fails the third line.
#[test]
fn each_filesystem_pauses_and_resumes_by_its_own_figures() {
    let small = DiskFloors { pause_below: 8 * MIB, resume_at: 12 * MIB };
    let mut policy = PausePolicy::new(vec![FLOORS, small]);
    let both = |home: u64, volume: u64| {
        [(home, Some(0)), (volume, None)].map(|(free, grown)| SpaceReading { free: Some(free), grown })
    };
    assert_eq!(policy.measured(&both(900 * MIB, 7 * MIB)), Action::Pause);
    assert_eq!((policy.paused(), policy.resumes_at(1)), (Some(PausedBy::Floor(1)), 12 * MIB));
    assert_eq!(policy.measured(&both(900 * MIB, 11 * MIB)), Action::None);
    assert!(!policy.needs_space(&both(100 * MIB, 11 * MIB)), "gc frees nothing there");
    assert_eq!(policy.measured(&both(100 * MIB, 12 * MIB)), Action::Resume);
}

#[test]
fn space_is_asked_for_before_the_pause_and_during_it() {
    let mut policy = policy();
    assert!(!policy.needs_space(&reading(600 * MIB, 0)), "an idle box needs none");
    assert!(policy.needs_space(&reading(600 * MIB, 100 * MIB)));
    assert!(!policy.needs_space(&reading(700 * MIB, 100 * MIB)));
    assert_eq!(policy.measured(&reading(511 * MIB, 600 * MIB)), Action::Pause);
    assert!(policy.needs_space(&reading(700 * MIB, 0)));
}

proptest! {
    /// Mutation tried: a limit that falls with what was written pauses the slower ones first.
    #[test]
    fn whoever_writes_more_is_paused_no_later(free in 0..800u64, grown in 0..800u64, more in 0..800u64) {
        let pauses = |grown| policy().measured(&reading(free * MIB, grown * MIB)) == Action::Pause;
        prop_assert!(!pauses(grown) || pauses(grown + more));
    }

    #[test]
    fn more_space_never_pauses(free in 0..800u64, more in 0..800u64, grown in 0..800u64) {
        let pauses = |free: u64| policy().measured(&reading(free * MIB, grown * MIB)) == Action::Pause;
        prop_assert!(pauses(free) || !pauses(free + more));
    }

    /// Whatever happens, a box that is paused resumes with the room that it is said to resume at, and stays running
    /// there. Mutation tried: a resumption at half the figure makes it flutter.
    #[test]
    fn every_pause_ends_at_the_figure_that_was_shown(
        steps in proptest::collection::vec((0..1000u64, 0..1000u64, any::<bool>(), any::<bool>()), 0..20),
        grown in 0..1000u64,
    ) {
        let mut policy = policy();
        for (free, grown, full, stopping) in steps {
            policy.measured(&reading(free * MIB, grown * MIB));
            if full { policy.disk_full() }
            if stopping { policy.stopping() }
        }
        if policy.paused().is_some() {
            let enough = policy.resumes_at(0);
            prop_assert_ne!(policy.clone().measured(&reading(enough - 1, grown * MIB)), Action::Resume);
            prop_assert_eq!(policy.measured(&reading(enough, grown * MIB)), Action::Resume);
            prop_assert_eq!(policy.measured(&reading(enough, grown * MIB)), Action::None);
        }
    }
}
