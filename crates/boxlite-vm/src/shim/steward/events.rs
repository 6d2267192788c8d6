//! What a steward notes among the home's events: that its box stands still, goes on, and has ended.

use boxlite_home::{EventLog, Home};
use boxlite_types::{EventAction, HomeEvent, PauseCause};

use crate::shim::launch::{LaunchSpec, Purpose};
use crate::shim::outcome::Outcome;

/// The events of one run of a box.
#[derive(Debug)]
pub(super) struct RunEvents {
    /// None of a boot for a copy, which only the copy cares for.
    log: Option<EventLog>,
    box_id: String,
}

impl RunEvents {
    pub(super) fn of(spec: &LaunchSpec, home: &Home) -> Self {
        let log = match spec.purpose {
            Purpose::Run => Some(EventLog::of(home)),
            Purpose::Maintenance => None,
        };
        Self { log, box_id: spec.box_id.clone() }
    }

    pub(super) fn paused(&self, cause: PauseCause) {
        self.note(&self.event(EventAction::Pause).with("cause", cause.name()));
    }

    pub(super) fn resumed(&self) {
        self.note(&self.event(EventAction::Unpause));
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
