//! The guest's clock stands still while the guest is paused and while the host sleeps. It is set again then.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use boxlite_proto::ToGuest;

use super::{Driver, DriverPhase};

/// How far the host's clock must have moved against its uptime to be told: more than what a time server corrects step by step.
const JUMP: Duration = Duration::from_secs(1);

/// Notices that the host slept, or that its clock was set: its clock and its uptime, which leaves sleep out, moved apart.
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    last: Option<(SystemTime, Instant)>,
    /// Whether the agent can be told.
    pub(super) is_heard: bool,
}

impl ClockWatch {
    /// Takes a reading of both clocks; says whether they moved apart since the last one.
    fn has_jumped(&mut self, wall: SystemTime, uptime: Instant) -> bool {
        let Some((wall_before, uptime_before)) = self.last.replace((wall, uptime)) else { return false };
        let passed = uptime.saturating_duration_since(uptime_before);
        let expected = wall_before + passed;
        wall.duration_since(expected).unwrap_or_else(|earlier| earlier.duration()) >= JUMP
    }
}

impl Driver {
    /// Sets the guest's clock if the host's has jumped since the last call.
    pub(super) fn follow_clock(&mut self) {
        if self.clock.has_jumped(SystemTime::now(), Instant::now()) {
            tracing::info!("the host's clock jumped, and the guest's follows");
            self.disturb_probe();
            self.set_guest_clock();
        }
    }

    /// Sets the clock of a guest that is up.
    pub(super) fn set_guest_clock(&self) {
        if !self.clock.is_heard || !matches!(self.phase, DriverPhase::Running) {
            return;
        }
        let unix_nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
        let _ = self.guest.control(&ToGuest::SetClock { unix_nanos });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_slept_or_was_set_is_noticed_once() {
        let (wall, uptime) = (UNIX_EPOCH + Duration::from_secs(1_000_000), Instant::now());
        let after = |seconds| Duration::from_millis(seconds);
        let mut watch = ClockWatch::default();
        assert!(!watch.has_jumped(wall, uptime));
        assert!(!watch.has_jumped(wall + after(250), uptime + after(250)));
        assert!(!watch.has_jumped(wall + after(1_100), uptime + after(550)), "a small correction");
        // An hour's sleep.
        assert!(watch.has_jumped(wall + after(3_601_400), uptime + after(800)));
        assert!(!watch.has_jumped(wall + after(3_601_650), uptime + after(1_050)));
        assert!(watch.has_jumped(wall, uptime + after(1_300)), "set back");
        assert!(!watch.has_jumped(wall + after(60_000), uptime + after(61_300)), "a shim that was late");
    }
}
