//! Whether the virtual processors run: the host's disk decides, except while a template is kept.

use std::sync::Arc;

use super::space::{Action, PausePolicy, PausedBy, SpaceReading};
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
    /// Those of a running guest that may fill filesystems with these floors; the first is the overlay's.
    pub(super) fn new(floors: Vec<DiskFloors>, qmp: Arc<Qmp>) -> Self {
        Self { policy: PausePolicy::new(floors), held: false, qmp }
    }

    /// Whether the host's disk keeps the guest from running.
    pub(super) fn out_of_space(&self) -> bool {
        self.policy.paused().is_some()
    }

    /// The filesystem for which the guest is paused, and its free bytes at which it goes on.
    pub(super) fn paused_for(&self) -> Option<(usize, u64)> {
        let place = self.policy.paused().map(PausedBy::place)?;
        Some((place, self.policy.resumes_at(place)))
    }

    /// Free bytes of the overlay's filesystem that the guest needs in order to run on, where they run short.
    pub(super) fn wants_space(&self, readings: &[SpaceReading]) -> Option<u64> {
        self.policy.needs_space(readings).then(|| self.policy.resumes_at(0))
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

    /// Acts on a measurement of each watched filesystem; says whether the home's flush reserve is to be released.
    pub(super) fn measured(&mut self, readings: &[SpaceReading]) -> bool {
        match self.policy.measured(readings) {
            Action::None => {}
            Action::Pause => self.tell(false),
            Action::Resume => self.tell(true),
            Action::Release => return true,
        }
        false
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
