use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const FLOORS: DiskFloors = DiskFloors { pause_below: 512 * MIB, resume_at: 768 * MIB };

fn policy() -> PausePolicy {
    PausePolicy::new(vec![FLOORS], None)
}

fn reading(free: u64, grown: u64) -> SpaceReadings {
    of(vec![SpaceReading { free: Some(free), grown: Some(grown) }])
}

fn of(places: Vec<SpaceReading>) -> SpaceReadings {
    SpaceReadings { places, overlay: None, written: None }
}

fn unknown() -> SpaceReadings {
    of(vec![SpaceReading { free: None, grown: None }])
}

/// A measurement of a box whose overlay has so much allocated.
fn with_overlay(used: u64, measurement: SpaceReadings) -> SpaceReadings {
    SpaceReadings { overlay: Some(used), ..measurement }
}

/// Mutation tried: `<=` instead of `<` fails the first line, and two more tests.
#[test]
fn a_fast_writer_is_paused_below_the_floor_and_goes_on_above_the_hysteresis() {
    let mut policy = policy();
    let fast = |free| reading(free, 400 * MIB);
    assert_eq!(policy.measured(&fast(512 * MIB)), Action::None);
    assert_eq!(policy.measured(&fast(512 * MIB - 1)), Action::Pause);
    assert_eq!(policy.paused(), Some(PausedBy::Host(HostPause::Floor(0))));
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
    let unknown = of(vec![SpaceReading { free: Some(511 * MIB), grown: None }]);
    assert_eq!(policy().measured(&unknown), Action::Pause, "growth that is not known may be any");
}

#[test]
fn a_full_disk_is_waited_out_and_an_unknown_one_never_blocks() {
    let mut policy = PausePolicy::new(vec![DiskFloors { pause_below: 0, resume_at: 0 }], None);
    assert_eq!(policy.measured(&reading(0, MIB)), Action::None);
    policy.disk_full();
    assert_eq!(policy.measured(&reading(0, MIB)), Action::None);
    assert_eq!(policy.measured(&reading(MIB - 1, MIB)), Action::None);
    assert_eq!(policy.measured(&reading(MIB, MIB)), Action::Resume);
    policy.disk_full();
    assert_eq!(policy.measured(&unknown()), Action::Resume);
    assert_eq!(policy.measured(&unknown()), Action::None);
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
    let mut policy = PausePolicy::new(vec![FLOORS, small], None);
    let both = |home: u64, volume: u64| {
        let reading = |(free, grown)| SpaceReading { free: Some(free), grown };
        of([(home, Some(0)), (volume, None)].map(reading).to_vec())
    };
    assert_eq!(policy.measured(&both(900 * MIB, 7 * MIB)), Action::Pause);
    assert_eq!(
        (policy.paused(), policy.resumes_at(1)),
        (Some(PausedBy::Host(HostPause::Floor(1))), 12 * MIB)
    );
    assert_eq!(policy.measured(&both(900 * MIB, 11 * MIB)), Action::None);
    assert!(!policy.needs_space(&both(100 * MIB, 11 * MIB).places), "gc frees nothing there");
    assert_eq!(policy.measured(&both(100 * MIB, 12 * MIB)), Action::Resume);
}

#[test]
fn space_is_asked_for_before_the_pause_and_during_it() {
    let mut policy = policy();
    assert!(!policy.needs_space(&reading(600 * MIB, 0).places), "an idle box needs none");
    assert!(policy.needs_space(&reading(600 * MIB, 100 * MIB).places));
    assert!(!policy.needs_space(&reading(700 * MIB, 100 * MIB).places));
    assert_eq!(policy.measured(&reading(511 * MIB, 600 * MIB)), Action::Pause);
    assert!(policy.needs_space(&reading(700 * MIB, 0).places));
}

const QUOTA: DiskQuota = DiskQuota(100 * MIB);

/// Mutations tried: a quota that cannot be changed, and one that asks for a garbage collection.
#[test]
fn a_box_is_paused_by_its_quota_and_goes_on_once_that_is_raised() {
    let mut policy = PausePolicy::new(vec![FLOORS], Some(QUOTA));
    let used = |used| with_overlay(used, reading(900 * MIB, 400 * MIB));
    assert_eq!(policy.measured(&used(99 * MIB)), Action::None);
    assert_eq!(policy.measured(&used(120 * MIB)), Action::Pause);
    assert_eq!(policy.paused(), Some(PausedBy::Quota));
    assert!(!policy.needs_space(&reading(0, 400 * MIB).places), "gc frees nothing under a quota");
    assert_eq!(policy.measured(&used(120 * MIB)), Action::None);
    policy.set_quota(Some(DiskQuota(121 * MIB)));
    assert_eq!(policy.paused(), Some(PausedBy::Quota), "until it is measured");
    assert_eq!(policy.measured(&used(120 * MIB)), Action::Resume);
    assert_eq!(policy.measured(&used(121 * MIB)), Action::Pause);
    policy.set_quota(None);
    assert_eq!(policy.measured(&used(121 * MIB)), Action::Resume);
}

/// Mutations tried: the host's cause shown first fails the second cause and the property below; a host that is forgotten
/// while the quota is used up fails the line about its figure.
#[test]
fn the_quota_is_shown_before_the_host_and_either_keeps_the_guest_from_running() {
    let mut policy = PausePolicy::new(vec![FLOORS], Some(QUOTA));
    let (short, ample) = (reading(300 * MIB, 400 * MIB), reading(900 * MIB, 0));
    assert_eq!(policy.measured(&with_overlay(0, short.clone())), Action::Pause);
    assert_eq!(policy.paused(), Some(PausedBy::Host(HostPause::Floor(0))));
    assert_eq!(policy.measured(&with_overlay(QUOTA.0, short)), Action::None);
    assert_eq!(policy.paused(), Some(PausedBy::Quota));
    policy.set_quota(None);
    let between = with_overlay(QUOTA.0, reading(600 * MIB, 0));
    assert_eq!(policy.measured(&between), Action::None, "the host has not reached its figure");
    assert_eq!(policy.paused(), Some(PausedBy::Host(HostPause::Floor(0))));
    policy.set_quota(Some(QUOTA));
    assert_eq!(policy.measured(&with_overlay(QUOTA.0, ample.clone())), Action::None);
    assert_eq!(policy.paused(), Some(PausedBy::Quota), "the host has room again, and the quota has not");
    policy.disk_full();
    assert_eq!(policy.paused(), Some(PausedBy::Quota));
    assert_eq!(policy.measured(&with_overlay(0, ample)), Action::Resume);
}

/// Mutation tried: a quota that stays in force during a stop.
#[test]
fn a_guest_that_is_stopping_may_pass_its_quota() {
    let mut policy = PausePolicy::new(vec![FLOORS], Some(QUOTA));
    let used = |used| with_overlay(used, reading(900 * MIB, 400 * MIB));
    assert_eq!(policy.measured(&used(QUOTA.0)), Action::Pause);
    policy.stopping();
    assert_eq!(policy.measured(&used(QUOTA.0)), Action::Resume);
    assert_eq!(policy.measured(&used(2 * QUOTA.0)), Action::None);
}

proptest! {
    /// The guest is told to run exactly when nothing keeps it from that, whatever came before.
    #[test]
    fn the_guest_runs_while_neither_quota_nor_host_forbids_it(
        steps in proptest::collection::vec((0..1000u64, 0..1000u64, 0..200u64, 0..200u64, 0..20u8), 1..40),
    ) {
        let mut policy = PausePolicy::new(vec![FLOORS], Some(QUOTA));
        let mut runs = true;
        for (free, grown, used, quota, event) in steps {
            match event {
                0 => policy.stopping(),
                1 => policy.set_quota(None),
                2..8 => policy.set_quota(Some(DiskQuota(quota * MIB))),
                8 => {
                    policy.disk_full();
                    runs = false;
                }
                _ => {}
            }
            let told = policy.measured(&with_overlay(used * MIB, reading(free * MIB, grown * MIB)));
            match told {
                Action::Pause => prop_assert!(std::mem::replace(&mut runs, false)),
                Action::Resume => prop_assert!(!std::mem::replace(&mut runs, true)),
                Action::None | Action::Release => {}
            }
            prop_assert_eq!(runs, policy.paused().is_none());
            let stops = policy.finishing != Finishing::No;
            let over = policy.quota().is_some_and(|quota| quota.is_reached(used * MIB));
            prop_assert!(!over || stops || policy.paused() == Some(PausedBy::Quota));
        }
    }

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
