//! How a box ends: who wanted it, which step it has reached, and what is published.

use std::io;
use std::process::ExitStatus as VmStatus;
use std::time::Duration;

use boxlite_proto::{ExecFailure, MAIN_CHANNEL, MainState, Op, ToGuest};
use tokio::time::Instant;

use super::{Driver, DriverPhase, boot_limit};
use crate::shim::log::unix_ms;
use crate::shim::outcome::{Outcome, OutcomeCause};
use crate::shim::vmm::process;

/// How long the guest may take to end its processes and flush its filesystems.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);

/// How long the main process may take to be gone after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How long QEMU may take to flush its images and exit.
const QUIT_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct ShutdownSequence {
    end: OutcomeCause,
    step: Step,
    deadline: Instant,
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

impl Driver {
    /// Stops the box on request; a second request can only shorten the first one's timeout.
    pub(super) fn stop(&mut self, signo: Option<i32>, timeout_ms: Option<u64>) {
        let timeout = Duration::from_millis(timeout_ms.unwrap_or(self.spec.stop_timeout_ms));
        let deadline = Instant::now() + timeout;
        if let DriverPhase::Stopping(ending) = &mut self.phase {
            if ending.step == Step::Signalled {
                ending.deadline = ending.deadline.min(deadline);
            }
            return;
        }
        self.vcpus.stopping();
        let has_main = self.spec.main.is_some() && !matches!(self.main.state, MainState::Exited(_));
        if has_main {
            let signo = signo.unwrap_or(self.spec.stop_signal);
            self.for_main(Op::Signal { id: MAIN_CHANNEL, signo });
            self.phase = DriverPhase::Stopping(ShutdownSequence {
                end: OutcomeCause::Stopped,
                step: Step::Signalled,
                deadline,
                flushed: false,
            });
        } else {
            self.flush(OutcomeCause::Stopped, timeout);
        }
    }

    pub(super) fn main_exited(&mut self) {
        let end = match &self.phase {
            DriverPhase::Stopping(ending) if ending.step >= Step::Flushing => return,
            DriverPhase::Stopping(ending) => ending.end.clone(),
            DriverPhase::Booting | DriverPhase::Running if self.spec.discard => {
                self.begin(OutcomeCause::MainExited, Step::Flushing);
                return self.kill_vm();
            }
            DriverPhase::Booting | DriverPhase::Running => OutcomeCause::MainExited,
        };
        self.flush(end, Duration::ZERO);
    }

    pub(super) fn main_not_started(&mut self, failure: ExecFailure, message: String) {
        if matches!(&self.phase, DriverPhase::Stopping(ending) if ending.step >= Step::Flushing) {
            return;
        }
        self.flush(OutcomeCause::MainNotStarted { failure, message }, Duration::ZERO);
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
                self.begin(
                    OutcomeCause::VmCrashed { reason: "the guest went down unasked".into() },
                    Step::Flushing,
                );
                self.guest_is_down();
            }
        }
    }

    /// The virtual machine is broken: end it without asking the guest.
    pub(super) fn fail(&mut self, reason: String) {
        tracing::error!(reason, "the virtual machine failed");
        let end = match &self.phase {
            DriverPhase::Booting => OutcomeCause::BootFailed { reason },
            DriverPhase::Running => OutcomeCause::VmCrashed { reason },
            // What began the end stays its cause.
            DriverPhase::Stopping(ending) if ending.step >= Step::Quitting => return,
            DriverPhase::Stopping(ending) => ending.end.clone(),
        };
        self.begin(end, Step::Flushing);
        self.quit();
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
                self.boot_deadline = Instant::now() + boot_limit(&self.spec.origin);
            }
            DriverPhase::Booting => {
                let limit = boot_limit(&self.spec.origin);
                self.fail(format!("the guest did not come up within {} s", limit.as_secs()));
            }
            DriverPhase::Stopping(ending) => match ending.step {
                Step::Signalled => {
                    ending.step = Step::Killed;
                    ending.deadline = Instant::now() + KILL_LIMIT;
                    self.for_main(Op::Signal { id: MAIN_CHANNEL, signo: 9 });
                }
                Step::Killed => {
                    let end = ending.end.clone();
                    self.flush(end, Duration::ZERO);
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

    fn flush(&mut self, end: OutcomeCause, grace: Duration) {
        self.begin(end, Step::Flushing);
        if let DriverPhase::Stopping(ending) = &mut self.phase {
            ending.deadline += grace;
        }
        let _ = self.guest.control(&ToGuest::Shutdown { grace_ms: grace.as_millis() as u64 });
    }

    fn begin(&mut self, end: OutcomeCause, step: Step) {
        self.vcpus.stopping();
        self.phase = DriverPhase::Stopping(ShutdownSequence {
            end,
            step,
            deadline: Instant::now() + FLUSH_LIMIT,
            flushed: false,
        });
    }

    fn quit(&mut self) {
        let DriverPhase::Stopping(ending) = &mut self.phase else { return };
        ending.step = Step::Quitting;
        ending.deadline = Instant::now() + QUIT_LIMIT;
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
        ending.deadline = Instant::now() + KILL_LIMIT;
        let _ = rustix::process::pidfd_send_signal(&self.vm_handle, rustix::process::Signal::KILL);
    }

    /// The outcome to publish once the virtual machine has ended with `vm`.
    pub(super) fn outcome(&self, vm: &io::Result<VmStatus>) -> Outcome {
        let (end, flushed) = match &self.phase {
            DriverPhase::Stopping(ending) => (ending.end.clone(), ending.flushed),
            DriverPhase::Booting => (OutcomeCause::BootFailed { reason: self.unexpected(vm) }, false),
            DriverPhase::Running => (OutcomeCause::VmCrashed { reason: self.unexpected(vm) }, false),
        };
        let main = match end {
            OutcomeCause::MainNotStarted { .. } => None,
            _ => self.main.status(),
        };
        Outcome { run_id: self.spec.run_id.clone(), at_unix_ms: unix_ms(), end, main, flushed }
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
