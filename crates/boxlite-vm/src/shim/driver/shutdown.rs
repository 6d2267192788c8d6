//! How a box ends: who wanted it, which step it has reached, and what is published.
//!
//! A stop has one deadline for all its steps: its timeout and [`STOP_GRACE`]. Each step leaves the later ones their
//! reserve of that, and at the deadline QEMU is killed, whatever it or its guest does.

use std::io;
use std::process::ExitStatus as VmStatus;
use std::time::Duration;

use boxlite_proto::{ExecFailure, MAIN_CHANNEL, MainState, Op, ToGuest};
use tokio::time::Instant;

use super::{Driver, DriverPhase, boot_timeout};
use crate::shim::launch::Purpose;
use crate::shim::log::unix_ms;
use crate::shim::outcome::{Outcome, OutcomeCause};
use crate::shim::vmm::process;

/// How long, after a stop's own timeout, a box may take to be gone; QEMU is killed then.
const STOP_GRACE: Duration = Duration::from_secs(8);

/// The part of a stop's grace that is kept for QEMU's exit.
const QUIT_RESERVE: Duration = Duration::from_secs(2);

/// The part of a stop's grace that is kept for the guest's flush and QEMU's exit.
const FLUSH_RESERVE: Duration = Duration::from_secs(5);

/// How long the guest may take to end its processes and flush its filesystems.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for a guest that hangs once it has flushed its disks, in the flush of a device that is not served any more.
const LOST_DEVICE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the main process may take to be gone after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long QEMU may take to flush its images and exit.
const QUIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole sequence's limit where nobody waits for a stop.
const UNREQUESTED_STOP_TIMEOUT: Duration = FLUSH_TIMEOUT.saturating_add(QUIT_TIMEOUT);

#[derive(Debug)]
pub(super) struct ShutdownSequence {
    end: OutcomeCause,
    step: Step,
    /// When the step has taken too long.
    deadline: Instant,
    /// When the whole sequence has.
    last: Instant,
    /// Whether the guest was up, so that there may be something to flush.
    was_up: bool,
    /// When the main process was signalled, and after how long it was killed.
    signalled: Instant,
    killed_after: Option<Duration>,
    flushed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The main process was asked to end.
    Signalled,
    /// The main process was killed.
    Killed,
    /// The guest ends what is left and flushes.
    Flushing,
    /// QEMU was asked to exit.
    Quitting,
    /// QEMU was killed.
    VmKilled,
}

impl ShutdownSequence {
    /// Shortens the step so that the later ones keep their reserve of the whole.
    fn hurry(&mut self) {
        let reserve = match self.step {
            Step::Signalled | Step::VmKilled => return,
            Step::Killed => FLUSH_RESERVE,
            Step::Flushing => QUIT_RESERVE,
            Step::Quitting => Duration::ZERO,
        };
        self.deadline = self.deadline.min(self.last - reserve);
    }

    /// Returns the cause of the run's end, unless the guest's writes were lost by that.
    fn cause(&self) -> OutcomeCause {
        match &self.end {
            OutcomeCause::Stopped | OutcomeCause::MainExited if self.was_up && !self.flushed => {
                OutcomeCause::Unflushed
            }
            end => end.clone(),
        }
    }
}

impl Driver {
    /// Stops the box on request; a second request can only shorten the first one's timeout.
    pub(super) fn stop(&mut self, signo: Option<i32>, timeout_ms: Option<u64>) {
        self.asked_to_stop = true;
        let timeout = Duration::from_millis(timeout_ms.unwrap_or(self.spec.stop_timeout_ms));
        let deadline = Instant::now() + timeout;
        let last = match self.spec.purpose {
            Purpose::Run => deadline + STOP_GRACE,
            // A copy is worth waiting for; its client can still kill this shim.
            Purpose::Maintenance => deadline + UNREQUESTED_STOP_TIMEOUT,
        };
        if let DriverPhase::Stopping(ending) = &mut self.phase {
            ending.last = ending.last.min(last);
            if ending.step == Step::Signalled {
                ending.deadline = ending.deadline.min(deadline);
            }
            ending.hurry();
            return;
        }
        let has_main = self.spec.main.is_some() && !matches!(self.main.state, MainState::Exited(_));
        if has_main {
            let signo = signo.unwrap_or(self.spec.stop_signal);
            self.for_main(Op::Signal { id: MAIN_CHANNEL, signo });
            self.begin(OutcomeCause::Stopped, Step::Signalled, deadline, last);
        } else {
            self.begin(OutcomeCause::Stopped, Step::Flushing, deadline + FLUSH_TIMEOUT, last);
            self.ask_to_flush(timeout);
        }
    }

    /// The starter that the box is tied to has ended, and nobody waits for what the box would still do: it goes at once if
    /// nothing of it stays, and else without a grace for its main process.
    pub(super) fn end_with_starter(&mut self) {
        tracing::info!("the process that the box is tied to has ended");
        if !self.spec.discard {
            return self.stop(None, Some(0));
        }
        self.asked_to_stop = true;
        self.begin_unhurried(OutcomeCause::Stopped);
        self.kill_vm();
    }

    pub(super) fn main_exited(&mut self) {
        let end = match &self.phase {
            DriverPhase::Stopping(ending) if ending.step >= Step::Flushing => return,
            DriverPhase::Stopping(ending) => ending.end.clone(),
            DriverPhase::Booting | DriverPhase::Running if self.spec.discard => {
                self.begin_unhurried(OutcomeCause::MainExited);
                return self.kill_vm();
            }
            DriverPhase::Booting | DriverPhase::Running => OutcomeCause::MainExited,
        };
        self.flush(end);
    }

    pub(super) fn main_not_started(&mut self, failure: ExecFailure, message: String) {
        if matches!(&self.phase, DriverPhase::Stopping(ending) if ending.step >= Step::Flushing) {
            return;
        }
        self.flush(OutcomeCause::MainNotStarted { failure, message });
    }

    pub(super) fn guest_is_down(&mut self) {
        match &mut self.phase {
            DriverPhase::Stopping(ending) => {
                ending.flushed = true;
                if ending.step < Step::Quitting {
                    self.quit();
                }
            }
            DriverPhase::Booting | DriverPhase::Running => {
                self.begin_unhurried(OutcomeCause::VmCrashed {
                    reason: "the guest went down unasked".into(),
                });
                self.guest_is_down();
            }
        }
    }

    /// The virtual machine is broken: end it without asking the guest.
    pub(super) fn fail(&mut self, reason: String) {
        self.fail_boot(reason, false);
    }

    /// The same where another boot `may_retry` what the guest's first has failed in.
    pub(super) fn fail_boot(&mut self, reason: String, may_retry: bool) {
        tracing::error!(reason, "the virtual machine failed");
        let end = match &self.phase {
            DriverPhase::Booting => OutcomeCause::BootFailed { reason, may_retry },
            DriverPhase::Running => OutcomeCause::VmCrashed { reason },
            // The first cause of the end stays its cause.
            DriverPhase::Stopping(ending) if ending.step >= Step::Quitting => return,
            DriverPhase::Stopping(ending) => ending.end.clone(),
        };
        self.begin_unhurried(end);
        self.quit();
    }

    /// Somebody has killed the steward, without which the box cannot be kept up: it ends with nothing lost.
    pub(super) fn end_without_steward(&mut self) {
        if matches!(self.phase, DriverPhase::Stopping(_)) {
            return;
        }
        tracing::error!("the steward was killed: the box ends");
        let reason = "the box's steward was killed".to_owned();
        match self.phase {
            DriverPhase::Booting => self.fail(reason),
            DriverPhase::Running | DriverPhase::Stopping(_) => self.flush(OutcomeCause::VmCrashed { reason }),
        }
    }

    /// A device is not served any more, and whatever the guest does with it hangs: the box ends, its root disk flushed.
    pub(super) fn end_without_device(&mut self, reason: String) {
        match &self.phase {
            DriverPhase::Stopping(_) => return,
            // QEMU is about to go, and what serves its devices has gone with it.
            DriverPhase::Booting | DriverPhase::Running if self.shutdown_reason.is_some() => return,
            DriverPhase::Booting => return self.fail(reason),
            DriverPhase::Running => {}
        }
        tracing::error!(reason, "the box cannot go on and ends");
        let now = Instant::now();
        let end = OutcomeCause::VmCrashed { reason };
        self.begin(end, Step::Flushing, now + LOST_DEVICE_TIMEOUT, now + UNREQUESTED_STOP_TIMEOUT);
        self.ask_to_flush(Duration::ZERO);
    }

    pub(super) fn deadline(&self) -> Instant {
        match &self.phase {
            DriverPhase::Booting => self.boot_deadline,
            DriverPhase::Running => Instant::now() + Duration::from_secs(3600),
            DriverPhase::Stopping(ending) => ending.deadline,
        }
    }

    pub(super) fn deadline_passed(&mut self) {
        match &mut self.phase {
            DriverPhase::Running => {}
            // A guest that is not allowed to run cannot be late.
            DriverPhase::Booting if self.vcpus.out_of_space() => {
                self.boot_deadline = Instant::now() + boot_timeout(&self.spec);
            }
            DriverPhase::Booting => {
                let limit = boot_timeout(&self.spec);
                self.fail(format!("the guest did not come up within {} s", limit.as_secs()));
            }
            DriverPhase::Stopping(ending) => match ending.step {
                Step::Signalled => {
                    ending.step = Step::Killed;
                    ending.killed_after =
                        Some(ending.signalled.elapsed()).filter(|after| after.as_secs() > 0);
                    ending.deadline = Instant::now() + KILL_TIMEOUT;
                    ending.hurry();
                    self.for_main(Op::Signal { id: MAIN_CHANNEL, signo: 9 });
                }
                Step::Killed => {
                    let end = ending.end.clone();
                    self.flush(end);
                }
                Step::Flushing => {
                    tracing::warn!("the guest did not flush in time and is ended without it");
                    self.quit();
                }
                Step::Quitting | Step::VmKilled => {
                    tracing::warn!("QEMU did not exit in time and is killed");
                    self.kill_vm();
                }
            },
        }
    }

    /// Has the guest end what is left at once, and flush.
    fn flush(&mut self, end: OutcomeCause) {
        self.begin_unhurried(end);
        self.ask_to_flush(Duration::ZERO);
    }

    /// The disk is as fast as it can be from now on: a bound on its rate must not cost data that was written in time.
    fn ask_to_flush(&self, grace: Duration) {
        if self.spec.disk_io.is_some() {
            let qmp = std::sync::Arc::clone(&self.qmp);
            tokio::spawn(async move {
                if let Err(error) = qmp.limit_disk(None).await {
                    tracing::warn!(%error, "the disk stays slow while the guest flushes");
                }
            });
        }
        let _ = self.guest.control(&ToGuest::Shutdown { grace_ms: grace.as_millis() as u64 });
    }

    /// Begins the flush of an end that is in no hurry by itself; the deadline of a stop that has begun stays.
    fn begin_unhurried(&mut self, end: OutcomeCause) {
        let now = Instant::now();
        self.begin(end, Step::Flushing, now + FLUSH_TIMEOUT, now + UNREQUESTED_STOP_TIMEOUT);
    }

    fn begin(&mut self, end: OutcomeCause, step: Step, deadline: Instant, last: Instant) {
        self.vcpus.stopping();
        let now = Instant::now();
        let (last, was_up, signalled, killed_after) = match &self.phase {
            DriverPhase::Stopping(ending) => {
                (ending.last.min(last), ending.was_up, ending.signalled, ending.killed_after)
            }
            DriverPhase::Booting => (last, false, now, None),
            DriverPhase::Running => (last, true, now, None),
        };
        let mut sequence =
            ShutdownSequence { end, step, deadline, last, was_up, signalled, killed_after, flushed: false };
        sequence.hurry();
        self.phase = DriverPhase::Stopping(sequence);
    }

    fn quit(&mut self) {
        let DriverPhase::Stopping(ending) = &mut self.phase else { return };
        ending.step = Step::Quitting;
        ending.deadline = Instant::now() + QUIT_TIMEOUT;
        ending.hurry();
        let qmp = std::sync::Arc::clone(&self.qmp);
        tokio::spawn(async move {
            if let Err(error) = qmp.quit().await {
                tracing::debug!(%error, "QEMU left without an answer");
            }
        });
    }

    /// Ends QEMU without letting it flush or clean up.
    fn kill_vm(&mut self) {
        let DriverPhase::Stopping(ending) = &mut self.phase else { return };
        ending.step = Step::VmKilled;
        ending.deadline = Instant::now() + KILL_TIMEOUT;
        let _ = self.ender.end();
    }

    /// The outcome to publish once the virtual machine has ended with `vm`.
    pub(super) fn outcome(&self, vm: &io::Result<VmStatus>) -> Outcome {
        let (end, flushed) = match &self.phase {
            // Writes that are discarded with their box are not missed.
            DriverPhase::Stopping(ending) if self.spec.discard => (ending.end.clone(), ending.flushed),
            DriverPhase::Stopping(ending) => (ending.cause(), ending.flushed),
            DriverPhase::Booting => {
                (OutcomeCause::BootFailed { reason: self.unexpected(vm), may_retry: false }, false)
            }
            DriverPhase::Running => (OutcomeCause::VmCrashed { reason: self.unexpected(vm) }, false),
        };
        let main = match end {
            OutcomeCause::MainNotStarted { .. } => None,
            _ => self.main.status(),
        };
        let killed_after_ms = match &self.phase {
            DriverPhase::Stopping(ending) => ending.killed_after.map(|after| after.as_millis() as u64),
            DriverPhase::Booting | DriverPhase::Running => None,
        };
        Outcome {
            run_id: self.spec.run_id.clone(),
            at_unix_ms: unix_ms(),
            end,
            main,
            flushed,
            memory_kills: self.memory_kills,
            killed_after_ms,
            unused_for_ms: self.unused_for.map(|unused| unused.as_millis() as u64),
            asked_to_stop: self.asked_to_stop,
        }
    }

    fn unexpected(&self, vm: &io::Result<VmStatus>) -> String {
        match self.shutdown_reason.as_deref() {
            Some("guest-reset" | "guest-panic") => "the guest's kernel panicked".into(),
            Some("guest-shutdown") => "the guest powered itself off".into(),
            Some(reason) => format!("{} ({reason})", process::describe(vm)),
            None => process::describe(vm),
        }
    }
}
