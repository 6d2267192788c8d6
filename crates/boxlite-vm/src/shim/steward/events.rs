//! The events that a steward notes in the home: that its box stands still, goes on, is healthy or not, and has ended.

use std::time::Instant;

use boxlite_home::{EventLog, Home};
use boxlite_types::{EventAction, HealthStatus, HomeEvent, PauseCause};

use crate::shim::launch::{LaunchSpec, Purpose};
use crate::shim::outcome::Outcome;

/// The events of one run of a box.
#[derive(Debug)]
pub(super) struct RunEvents {
    /// None of a boot for a copy, which only the copy cares for.
    log: Option<EventLog>,
    box_id: String,
    pauses: ChangeAllowance,
    health: ChangeAllowance,
}

/// How many changes of one kind may be noted now: a shim that is taken over must not push everybody's events out of the log.
#[derive(Debug)]
struct ChangeAllowance {
    left: u32,
    /// When it was last made more.
    at: Instant,
}

impl ChangeAllowance {
    /// So many at once; one more each second.
    const MOST: u32 = 8;

    fn full(now: Instant) -> Self {
        Self { left: Self::MOST, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let seconds = now.duration_since(self.at).as_secs();
        if seconds > 0 {
            self.left = self.left.saturating_add(seconds.try_into().unwrap_or(u32::MAX)).min(Self::MOST);
            self.at = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

impl RunEvents {
    pub(super) fn of(spec: &LaunchSpec, home: &Home) -> Self {
        let log = match spec.purpose {
            Purpose::Run => Some(EventLog::of(home)),
            Purpose::Maintenance => None,
        };
        let (pauses, health) = (ChangeAllowance::full(Instant::now()), ChangeAllowance::full(Instant::now()));
        Self { log, box_id: spec.box_id.clone(), pauses, health }
    }

    pub(super) fn paused(&mut self, cause: PauseCause) {
        if self.pauses.take(Instant::now()) {
            self.note(&self.event(EventAction::Pause).with("cause", cause.name()));
        }
    }

    pub(super) fn resumed(&mut self) {
        if self.pauses.take(Instant::now()) {
            self.note(&self.event(EventAction::Unpause));
        }
    }

    pub(super) fn health_changed(&mut self, status: HealthStatus) {
        if self.health.take(Instant::now()) {
            self.note(&self.event(EventAction::HealthStatus).with("health_status", status.name()));
        }
    }

    /// The run has ended; without an outcome where its shim was killed.
    pub(super) fn died(&self, outcome: Option<&Outcome>) {
        self.note(&ended(self.event(EventAction::Die), outcome));
    }

    fn event(&self, action: EventAction) -> HomeEvent {
        HomeEvent::of_box(action, &self.box_id, None)
    }

    fn note(&self, event: &HomeEvent) {
        if let Some(log) = &self.log {
            log.note(event);
        }
    }
}

fn ended(event: HomeEvent, outcome: Option<&Outcome>) -> HomeEvent {
    let Some(outcome) = outcome else { return event.with("reason", "its shim was killed") };
    let event = match outcome.exit_code() {
        Some(code) => event.with("exit_code", &code),
        None => event,
    };
    match outcome.failure().map(str::to_owned).or_else(|| outcome.remark()) {
        Some(reason) => event.with("reason", &reason),
        None => event,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_shim_that_only_pauses_and_resumes_is_noted_once_a_second() {
        let begin = Instant::now();
        let mut pauses = ChangeAllowance::full(begin);
        let noted = (0..100_000).filter(|ms| pauses.take(begin + Duration::from_millis(*ms))).count();
        assert!((100..=108).contains(&noted), "{noted}");
    }
}
