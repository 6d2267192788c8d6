//! Whether the virtual processors run: the host's disk, the box's quota and its user decide, except while a template is kept.
//!
//! Each reason holds by itself: a box whose user lets it go on may still wait for space, and the other way round.

use std::sync::Arc;

use super::space::{Action, PausePolicy, PausedBy, SpaceReadings};
use crate::shim::launch::DiskFloors;
use crate::shim::quota::DiskQuota;
use crate::shim::vmm::qmp::Qmp;

#[derive(Debug)]
pub(super) struct Vcpus {
    policy: PausePolicy,
    /// The user has paused the guest.
    by_user: bool,
    /// While a template is being kept, that alone pauses and resumes them.
    held: bool,
    /// By QEMU's word; its own stop after a failed write may come after our command to go on.
    stopped: bool,
    qmp: Arc<Qmp>,
}

impl Vcpus {
    /// Those of a running guest that may fill filesystems with these floors, of which the first is the overlay's, and
    /// that has this quota.
    pub(super) fn new(floors: Vec<DiskFloors>, quota: Option<DiskQuota>, qmp: Arc<Qmp>) -> Self {
        Self { policy: PausePolicy::new(floors, quota), by_user: false, held: false, stopped: false, qmp }
    }

    /// Whether want of space keeps the guest from running.
    pub(super) fn out_of_space(&self) -> bool {
        self.policy.paused().is_some()
    }

    /// Whether nothing keeps the guest from running.
    pub(super) fn may_run(&self) -> bool {
        !self.by_user && !self.out_of_space()
    }

    /// Whether its user keeps the guest from running.
    pub(super) fn is_paused_by_user(&self) -> bool {
        self.by_user
    }

    /// Pauses the guest for its user, or lets it go on as far as the user is concerned.
    pub(super) fn set_paused_by_user(&mut self, paused: bool) {
        if std::mem::replace(&mut self.by_user, paused) != paused && !self.out_of_space() {
            self.tell(!paused);
        }
    }

    /// Why want of space has the guest paused, if it has.
    pub(super) fn paused_by(&self) -> Option<PausedBy> {
        self.policy.paused()
    }

    /// Free bytes of the watched filesystem `place` at which a guest goes on that was paused for it.
    pub(super) fn resumes_at(&self, place: usize) -> u64 {
        self.policy.resumes_at(place)
    }

    /// The box's quota.
    pub(super) fn quota(&self) -> Option<DiskQuota> {
        self.policy.quota()
    }

    /// Gives the box another quota, which counts from the next measurement on.
    pub(super) fn set_quota(&mut self, quota: Option<DiskQuota>) {
        self.policy.set_quota(quota);
    }

    /// Free bytes of the overlay's filesystem that the guest needs in order to run on, where they run short.
    pub(super) fn wants_space(&self, readings: &SpaceReadings) -> Option<u64> {
        self.policy.needs_space(&readings.places).then(|| self.policy.resumes_at(0))
    }

    /// Leaves them to the keeper of a template, who has paused them by the time of [`Vcpus::release`].
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// Pauses or resumes them as want of space demands by now.
    pub(super) fn release(&mut self) {
        self.held = false;
        self.tell(self.may_run());
    }

    /// QEMU tells that they have stopped or go on.
    pub(super) fn told_by_qemu(&mut self, stopped: bool) {
        self.stopped = stopped;
    }

    /// The box is being stopped: its guest must run to finish.
    pub(super) fn stopping(&mut self) {
        self.set_paused_by_user(false);
        self.policy.stopping();
    }

    pub(super) fn disk_full(&mut self) {
        self.policy.disk_full();
    }

    /// Acts on a measurement; says whether the home's flush reserve is to be released.
    pub(super) fn measured(&mut self, readings: &SpaceReadings) -> bool {
        match self.policy.measured(readings) {
            Action::None if self.stopped && self.may_run() => self.tell(true),
            Action::None => {}
            Action::Pause => self.tell(false),
            Action::Resume => self.tell(self.may_run()),
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
