//! Whether the virtual processors run: the host's disk decides, except while a template is kept.

use std::sync::Arc;

use super::space::{Action, Cause, PausePolicy};
use crate::shim::launch::DiskFloors;
use crate::shim::vmm::qmp::Qmp;

#[derive(Debug)]
pub(super) struct Vcpus {
    policy: PausePolicy,
    /// While a template is being kept, that alone pauses and resumes them.
    held: bool,
    qmp: Arc<Qmp>,
}

impl Vcpus {
    pub(super) fn new(floors: DiskFloors, qmp: Arc<Qmp>) -> Self {
        Self { policy: PausePolicy::new(floors), held: false, qmp }
    }

    /// Whether the host's disk keeps the guest from running.
    pub(super) fn out_of_space(&self) -> bool {
        self.policy.paused().is_some()
    }

    /// Leaves them to the keeper of a template, who has paused them by the time of [`Vcpus::release`].
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// Pauses or resumes them as the host's disk demands by now.
    pub(super) fn release(&mut self) {
        self.held = false;
        self.tell(!self.out_of_space());
    }

    /// The box is being stopped: its guest must run to finish.
    pub(super) fn stopping(&mut self) {
        self.policy.stopping();
    }

    pub(super) fn disk_full(&mut self) {
        self.policy.disk_full();
    }

    /// Acts on a measurement of free bytes on the overlay's filesystem.
    pub(super) fn measured(&mut self, free: Option<u64>) {
        match self.policy.measured(free) {
            Action::None => {}
            Action::Pause => {
                if let Some(Cause::BelowFloor { free }) = self.policy.paused() {
                    tracing::warn!(
                        free,
                        "the host's disk is nearly full: the guest is paused until there is room"
                    );
                }
                self.tell(false);
            }
            Action::Resume => {
                tracing::info!(?free, "the host's disk has room again: the guest resumes");
                self.tell(true);
            }
        }
    }

    fn tell(&self, run: bool) {
        if self.held {
            return;
        }
        let qmp = Arc::clone(&self.qmp);
        // Tasks of this runtime run in the order they were spawned, so the last wish is the last command.
        tokio::spawn(async move {
            let told = if run { qmp.cont().await } else { qmp.stop().await };
            if let Err(error) = told {
                tracing::warn!(%error, "the guest could not be paused or resumed");
            }
        });
    }
}
