//! How a box ends: who wanted it, which step it has reached, and what is published.

use std::io;
use std::process::ExitStatus as VmStatus;
use std::time::Duration;

use boxlite_proto::{ExecFailure, MAIN_CHANNEL, MainState, Op, ToGuest};
use tokio::time::Instant;

use super::{Driver, Phase, boot_limit};
use crate::shim::log::unix_ms;
use crate::shim::outcome::{End, Outcome};
use crate::shim::vmm::process;

/// How long the guest may take to end its processes and flush its filesystems.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);

/// How long the main process may take to be gone after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How long QEMU may take to flush its images and exit.
const QUIT_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Ending {
    end: End,
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
    /// Stops the box at somebody's wish; a second wish may only shorten the first one's patience.
    pub(super) fn stop(&mut self, signo: Option<i32>, timeout_ms: Option<u64>) {
        let timeout = Duration::from_millis(timeout_ms.unwrap_or(self.spec.stop_timeout_ms));
        let deadline = Instant::now() + timeout;
        if let Phase::Stopping(ending) = &mut self.phase {
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
            self.phase = Phase::Stopping(Ending {
                end: End::Stopped,
                step: Step::Signalled,
                deadline,
                flushed: false,
            });
        } else {
            self.flush(End::Stopped, timeout);
        }
    }

    pub(super) fn main_exited(&mut self) {
        let end = match &self.phase {
            Phase::Stopping(ending) if ending.step >= Step::Flushing => return,
            Phase::Stopping(ending) => ending.end.clone(),
            Phase::Booting | Phase::Running if self.spec.discard => {
                self.begin(End::MainExited, Step::Flushing);
                return self.kill_vm();
            }
            Phase::Booting | Phase::Running => End::MainExited,
        };
        self.flush(end, Duration::ZERO);
    }

    pub(super) fn main_not_started(&mut self, failure: ExecFailure, message: String) {
        if matches!(&self.phase, Phase::Stopping(ending) if ending.step >= Step::Flushing) {
            return;
        }
        self.flush(End::MainNotStarted { failure, message }, Duration::ZERO);
    }

    pub(super) fn guest_is_down(&mut self) {
        match &mut self.phase {
            Phase::Stopping(ending) => {
                ending.flushed = true;
                if ending.step < Step::Quitting {
                    self.quit();
                }
            }
            Phase::Booting | Phase::Running => {
                self.begin(End::VmCrashed { reason: "the guest went down unasked".into() }, Step::Flushing);
                self.guest_is_down();
            }
        }
    }

    /// The virtual machine is no good any more: end it without asking the guest.
    pub(super) fn fail(&mut self, reason: String) {
        tracing::error!(reason, "the virtual machine failed");
        let end = match &self.phase {
            Phase::Booting => End::BootFailed { reason },
            Phase::Running => End::VmCrashed { reason },
            // What began the end stays its cause.
            Phase::Stopping(ending) if ending.step >= Step::Quitting => return,
            Phase::Stopping(ending) => ending.end.clone(),
        };
        self.begin(end, Step::Flushing);
        self.quit();
    }

    pub(super) fn deadline(&self) -> Instant {
        match &self.phase {
            Phase::Booting => self.boot_deadline,
            Phase::Running => Instant::now() + Duration::from_secs(3600),
            Phase::Stopping(ending) => ending.deadline,
        }
    }

    pub(super) fn deadline_passed(&mut self) {
        match &mut self.phase {
            Phase::Running => {}
            // A guest that is not allowed to run cannot be late.
            Phase::Booting if self.vcpus.paused() => {
                self.boot_deadline = Instant::now() + boot_limit(&self.spec.origin);
            }
            Phase::Booting => {
                let limit = boot_limit(&self.spec.origin);
                self.fail(format!("the guest did not come up within {} s", limit.as_secs()));
            }
            Phase::Stopping(ending) => match ending.step {
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

    fn flush(&mut self, end: End, grace: Duration) {
        self.begin(end, Step::Flushing);
        if let Phase::Stopping(ending) = &mut self.phase {
            ending.deadline += grace;
        }
        let _ = self.guest.control(&ToGuest::Shutdown { grace_ms: grace.as_millis() as u64 });
    }

    fn begin(&mut self, end: End, step: Step) {
        self.vcpus.stopping();
        self.phase =
            Phase::Stopping(Ending { end, step, deadline: Instant::now() + FLUSH_LIMIT, flushed: false });
    }

    fn quit(&mut self) {
        let Phase::Stopping(ending) = &mut self.phase else { return };
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
        let Phase::Stopping(ending) = &mut self.phase else { return };
        ending.step = Step::VmKilled;
        ending.deadline = Instant::now() + KILL_LIMIT;
        let _ = rustix::process::pidfd_send_signal(&self.vm_handle, rustix::process::Signal::KILL);
    }

    /// What is published once the virtual machine has ended with `vm`.
    pub(super) fn outcome(&self, vm: &io::Result<VmStatus>) -> Outcome {
        let (end, flushed) = match &self.phase {
            Phase::Stopping(ending) => (ending.end.clone(), ending.flushed),
            Phase::Booting => (End::BootFailed { reason: self.unexpected(vm) }, false),
            Phase::Running => (End::VmCrashed { reason: self.unexpected(vm) }, false),
        };
        let main = match end {
            End::MainNotStarted { .. } => None,
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
