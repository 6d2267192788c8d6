//! The meaning of the probes of a box's health. The agent in the guest makes them; see [`boxlite_proto::HealthProbe`].

use std::collections::VecDeque;
use std::time::Duration;

use boxlite_proto::{HealthProbe, ProbeEvent, ProbeOutcome, ProbeRecord, ProbeReport, ProcessExit};
use boxlite_types::HealthStatus;
use jiff::Timestamp;

use super::Driver;
use crate::shim::bounded_text;
use crate::shim::health::HealthSlot;

/// Probes that are remembered, as many as Docker remembers.
const MAX_PROBES: usize = 5;

/// The cost of a probe besides the processor time that it is charged in the guest: starting its processes, and
/// reading its programs from the disk.
const PROBE_OVERHEAD: Duration = Duration::from_millis(50);

/// The exit status of a probe without one.
const NO_EXIT: i32 = -1;

/// A box's health, by the probes so far.
#[derive(Debug)]
struct HealthState {
    status: HealthStatus,
    failing_streak: u32,
    /// Failures in a row that make it unhealthy.
    retries: u32,
}

impl HealthState {
    /// Takes the result of a probe; a failure in the start period counts only for a box that was healthy already.
    fn probed(&mut self, succeeded: bool, in_start_period: bool) {
        if succeeded {
            (self.status, self.failing_streak) = (HealthStatus::Healthy, 0);
        } else if self.status != HealthStatus::Starting || !in_start_period {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= self.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
    }
}

/// A probe under way.
#[derive(Debug)]
struct BegunProbe {
    began: Timestamp,
    /// The guest stood still meanwhile, so that its failure says nothing.
    is_disturbed: bool,
}

/// Watches a box whose health is probed.
#[derive(Debug)]
pub(super) struct HealthWatch {
    state: HealthState,
    since: Timestamp,
    log: VecDeque<ProbeRecord>,
    begun: Option<BegunProbe>,
    /// Processor time of the machine that all probes together took, generously.
    cpu: Duration,
    /// The agent has said that it can probe.
    has_prober: bool,
    slot: HealthSlot,
}

impl HealthWatch {
    /// The watch over a box that comes up now.
    pub(super) fn new(slot: HealthSlot, retries: u32) -> Self {
        let state = HealthState { status: HealthStatus::Starting, failing_streak: 0, retries };
        let (log, begun, cpu) = (VecDeque::new(), None, Duration::ZERO);
        let watch = Self { state, since: Timestamp::now(), log, begun, cpu, has_prober: false, slot };
        watch.show();
        watch
    }

    /// The last probes, oldest first.
    pub(super) fn probes(&self) -> Vec<ProbeRecord> {
        self.log.iter().cloned().collect()
    }

    /// Whether a probe is under way, whose processor time is not known yet.
    pub(super) fn is_probing(&self) -> bool {
        self.begun.is_some()
    }

    /// Processor time of the machine that is the probes' and not the box's.
    pub(super) fn cpu(&self) -> Duration {
        self.cpu
    }

    /// The agent says that it can probe.
    pub(super) fn agent_probes(&mut self) {
        self.has_prober = true;
    }

    /// The guest stands still, or did.
    pub(super) fn disturbed(&mut self) {
        if let Some(begun) = &mut self.begun {
            begun.is_disturbed = true;
        }
    }

    /// The agent tells of a probe; returns the box's status if that has changed.
    fn heard(&mut self, event: ProbeEvent) -> Option<HealthStatus> {
        match event {
            ProbeEvent::Began => {
                self.begun = Some(BegunProbe { began: Timestamp::now(), is_disturbed: false });
                None
            }
            ProbeEvent::Ended(report) => {
                let begun = self.begun.take()?;
                self.cpu = self
                    .cpu
                    .saturating_add(Duration::from_micros(report.cpu_us).saturating_mul(2))
                    .saturating_add(PROBE_OVERHEAD);
                self.ended(&begun, report)
            }
        }
    }

    fn ended(&mut self, begun: &BegunProbe, report: ProbeReport) -> Option<HealthStatus> {
        let succeeded = report.outcome == ProbeOutcome::Exited(ProcessExit::Code(0));
        if begun.is_disturbed && !succeeded {
            return None;
        }
        let ProbeReport { outcome, mut output, in_start_period, .. } = report;
        bounded_text::cut(&mut output, HealthProbe::MAX_OUTPUT);
        let exit_code = match outcome {
            ProbeOutcome::Exited(exit) => exit.shell_code(),
            ProbeOutcome::TimedOut | ProbeOutcome::Failed => NO_EXIT,
        };
        if outcome == ProbeOutcome::TimedOut {
            output.insert_str(0, "the probe took too long and was killed; its output: ");
        }
        self.remember(ProbeRecord {
            began_unix_ms: begun.began.as_millisecond(),
            ended_unix_ms: Timestamp::now().as_millisecond(),
            exit_code,
            output,
        });
        self.judge(succeeded, in_start_period)
    }

    fn remember(&mut self, probe: ProbeRecord) {
        if self.log.len() >= MAX_PROBES {
            self.log.pop_front();
        }
        self.log.push_back(probe);
    }

    fn judge(&mut self, succeeded: bool, in_start_period: bool) -> Option<HealthStatus> {
        let before = (self.state.status, self.state.failing_streak);
        self.state.probed(succeeded, in_start_period);
        let is_new = self.state.status != before.0;
        if is_new {
            self.since = Timestamp::now();
        }
        if (self.state.status, self.state.failing_streak) != before {
            self.show();
        }
        is_new.then_some(self.state.status)
    }

    /// Notes that no probe is possible, which is no reason to call the box healthy, or to let anybody wait for it.
    fn cannot_probe(&mut self, why: &str) -> HealthStatus {
        let now = Timestamp::now().as_millisecond();
        self.remember(ProbeRecord {
            began_unix_ms: now,
            ended_unix_ms: now,
            exit_code: NO_EXIT,
            output: why.to_owned(),
        });
        (self.state.status, self.since) = (HealthStatus::Unhealthy, Timestamp::now());
        self.show();
        self.state.status
    }

    fn show(&self) {
        if let Err(error) = self.slot.show(self.state.status, self.state.failing_streak, self.since) {
            tracing::warn!(error = %error.chain(), "the box's health is not shown");
        }
    }
}

impl Driver {
    /// The agent tells of a probe, or makes one up: then nobody asked for it.
    pub(super) fn probed(&mut self, event: ProbeEvent) {
        let changed = self.health.as_mut().and_then(|health| health.heard(event));
        self.health_changed(changed);
    }

    /// The guest stands still, or its clock jumps.
    pub(super) fn disturb_probe(&mut self) {
        if let Some(health) = &mut self.health {
            health.disturbed();
        }
    }

    /// The agent is up and has said all that it can do.
    pub(super) fn expect_probes(&mut self) {
        let why = "the guest's agent is too old to check the box's health; install the one of this boxlite";
        let idle = self.health.as_mut().filter(|health| !health.has_prober);
        let changed = idle.map(|health| health.cannot_probe(why));
        self.health_changed(changed);
    }

    fn health_changed(&self, changed: Option<HealthStatus>) {
        if let Some(status) = changed {
            tracing::info!(%status, "the box's health has changed");
            self.steward.health_changed(status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(retries: u32) -> (tempfile::TempDir, HealthWatch) {
        let directory = tempfile::tempdir().unwrap();
        let slot = HealthSlot::reserve(&directory.path().join("health.json"), "r1").unwrap();
        (directory, HealthWatch::new(slot, retries))
    }

    fn report(outcome: ProbeOutcome, in_start_period: bool) -> ProbeEvent {
        ProbeEvent::Ended(ProbeReport { outcome, output: String::new(), in_start_period, cpu_us: 0 })
    }

    const GOOD: ProbeOutcome = ProbeOutcome::Exited(ProcessExit::Code(0));
    const BAD: ProbeOutcome = ProbeOutcome::Exited(ProcessExit::Code(1));

    #[test]
    fn so_many_failures_in_a_row_after_the_start_are_unhealthy() {
        let (_directory, mut watch) = watch(2);
        let mut after = |outcome, in_start_period| {
            watch.heard(ProbeEvent::Began);
            let changed = watch.heard(report(outcome, in_start_period));
            (changed, watch.state.failing_streak)
        };
        assert_eq!(after(BAD, true), (None, 0));
        assert_eq!(after(BAD, true), (None, 0));
        assert_eq!(after(BAD, false), (None, 1));
        assert_eq!(after(GOOD, true), (Some(HealthStatus::Healthy), 0));
        assert_eq!(after(BAD, true), (None, 1), "once it was healthy, the start is over");
        assert_eq!(after(GOOD, false), (None, 0));
        assert_eq!(after(BAD, false), (None, 1));
        assert_eq!(after(ProbeOutcome::TimedOut, false), (Some(HealthStatus::Unhealthy), 2));
        assert_eq!(after(BAD, false), (None, 3));
        assert_eq!(after(GOOD, false), (Some(HealthStatus::Healthy), 0));
    }

    #[test]
    fn a_failure_of_a_guest_that_stood_still_says_nothing() {
        let (_directory, mut watch) = watch(1);
        watch.heard(ProbeEvent::Began);
        watch.disturbed();
        assert_eq!(watch.heard(report(ProbeOutcome::TimedOut, false)), None);
        assert!(watch.probes().is_empty());
        watch.disturbed();
        watch.heard(ProbeEvent::Began);
        assert_eq!(watch.heard(report(BAD, false)), Some(HealthStatus::Unhealthy));
    }

    #[test]
    fn a_guest_that_lies_takes_a_bounded_part_of_the_memory() {
        let (_directory, mut watch) = watch(3);
        for end in 0..20 {
            if end % 2 == 0 {
                watch.heard(ProbeEvent::Began);
            }
            watch.heard(ProbeEvent::Ended(ProbeReport {
                outcome: BAD,
                output: "\u{e9}".repeat(100_001),
                in_start_period: false,
                cpu_us: u64::MAX,
            }));
        }
        let probes = watch.probes();
        assert_eq!((probes.len(), watch.state.failing_streak), (MAX_PROBES, 10));
        assert!(probes.iter().all(|probe| probe.output.len() == HealthProbe::MAX_OUTPUT));
        assert!(watch.cpu() > Duration::from_secs(1 << 40));
    }
}
