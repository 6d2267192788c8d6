//! When to probe the box's health, and what came of it.
//!
//! The agent keeps the times because it stands still with its guest: a box that is paused misses no probe and fails none.

use std::time::{Duration, Instant};

use boxlite_proto::{BootConfig, FromGuest, HealthProbe, ProbeEvent, ProbeOutcome, ProbeReport, ProcessExit};
use rustix::process::Pid;

use crate::exec::{PollInterest, ProbeChild, failed_probe};
use crate::port::{Port, PortError};

/// The times of a box's probes.
struct HealthSchedule {
    interval: Duration,
    start_interval: Duration,
    start_period_ends: Instant,
    /// A probe has succeeded, with which the start is over.
    has_succeeded: bool,
}

impl HealthSchedule {
    fn of(probe: &HealthProbe, now: Instant) -> Self {
        Self {
            interval: Duration::from_millis(probe.interval_ms),
            start_interval: Duration::from_millis(probe.start_interval_ms),
            start_period_ends: now + Duration::from_millis(probe.start_period_ms),
            has_succeeded: false,
        }
    }

    fn is_start_period(&self, now: Instant) -> bool {
        now < self.start_period_ends
    }

    /// The time of the next probe, of which none is under way now.
    fn next_after(&self, now: Instant) -> Instant {
        let starting = !self.has_succeeded && self.is_start_period(now);
        now + if starting { self.start_interval } else { self.interval }
    }
}

/// A probe, and whether it began in the start period.
struct StartedProbe {
    probe: ProbeChild,
    in_start_period: bool,
}

/// Probes the box's health from time to time.
pub(crate) struct HealthProber<'a> {
    config: &'a BootConfig,
    probe: &'a HealthProbe,
    schedule: HealthSchedule,
    next: Instant,
    begun: Option<StartedProbe>,
}

impl<'a> HealthProber<'a> {
    /// The check that the box wants, if it wants one; the box counts as started now.
    pub(crate) fn of(config: &'a BootConfig, now: Instant) -> Option<Self> {
        let probe = config.health.as_ref()?;
        let schedule = HealthSchedule::of(probe, now);
        let next = schedule.next_after(now);
        Some(Self { config, probe, schedule, next, begun: None })
    }

    /// The descriptor to poll.
    pub(crate) fn interest(&self) -> Option<PollInterest<'_>> {
        self.begun.as_ref().and_then(|begun| begun.probe.interest())
    }

    /// When to look again even if nothing is ready.
    pub(crate) fn deadline(&self) -> Instant {
        self.begun.as_ref().map_or(self.next, |begun| begun.probe.deadline())
    }

    /// Records that a child of the agent has ended.
    pub(crate) fn child_exited(&mut self, pid: Pid) {
        if let Some(begun) = &mut self.begun {
            begun.probe.child_exited(pid);
        }
    }

    /// Begins a probe when it is time for one, and tells the host of what has begun and ended.
    pub(crate) fn advance(
        &mut self,
        init: Option<Pid>,
        port: &mut Port,
        now: Instant,
    ) -> Result<(), PortError> {
        if self.begun.is_none() && now >= self.next {
            port.send(&FromGuest::Health(ProbeEvent::Began))?;
            match ProbeChild::start(self.probe, self.config, init) {
                Ok(probe) => {
                    let in_start_period = self.schedule.is_start_period(now);
                    self.begun = Some(StartedProbe { probe, in_start_period });
                }
                Err(error) => {
                    let report = failed_probe(format!("the probe could not be started: {error}"));
                    self.ended(report, self.schedule.is_start_period(now), port)?;
                }
            }
        }
        if let Some(begun) = &mut self.begun
            && let Some(report) = begun.probe.advance(now)
        {
            let in_start_period = begun.in_start_period;
            self.begun = None;
            self.ended(report, in_start_period, port)?;
        }
        Ok(())
    }

    fn ended(
        &mut self,
        report: ProbeReport,
        in_start_period: bool,
        port: &mut Port,
    ) -> Result<(), PortError> {
        self.schedule.has_succeeded |= report.outcome == ProbeOutcome::Exited(ProcessExit::Code(0));
        self.next = self.schedule.next_after(Instant::now());
        port.send(&FromGuest::Health(ProbeEvent::Ended(ProbeReport { in_start_period, ..report })))
    }
}

#[cfg(test)]
mod tests {
    use boxlite_proto::ExecSpec;

    use super::*;

    #[test]
    fn probes_are_close_together_only_while_the_box_starts() {
        let begin = Instant::now();
        let probe = HealthProbe {
            spec: ExecSpec::default(),
            interval_ms: 30_000,
            timeout_ms: 1,
            start_period_ms: 20_000,
            start_interval_ms: 2_000,
        };
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut schedule = HealthSchedule::of(&probe, begin);
        assert_eq!(schedule.next_after(begin), after(2));
        assert_eq!(schedule.next_after(after(19)), after(21));
        assert_eq!(schedule.next_after(after(20)), after(50));
        schedule.has_succeeded = true;
        assert_eq!(schedule.next_after(after(4)), after(34));
    }
}
