//! Whether the virtual processors run: what the user wishes and what the host's disk allows.

use std::sync::Arc;

use super::space::{Action, Cause, SpaceGuard};
use crate::shim::launch::DiskFloors;
use crate::shim::vmm::qmp::Qmp;

#[derive(Debug)]
pub(super) struct Vcpus {
    guard: SpaceGuard,
    paused_by_user: bool,
    /// Whoever holds them pauses them, and nobody else says a word.
    held: bool,
    qmp: Arc<Qmp>,
}

impl Vcpus {
    pub(super) fn new(floors: DiskFloors, qmp: Arc<Qmp>) -> Self {
        Self { guard: SpaceGuard::new(floors), paused_by_user: false, held: false, qmp }
    }

    /// Whether a client paused the box.
    pub(super) fn paused_by_user(&self) -> bool {
        self.paused_by_user
    }

    /// Whether the host's disk keeps the guest from running.
    pub(super) fn out_of_space(&self) -> bool {
        self.guard.paused().is_some()
    }

    /// Whether the guest is kept from running at all.
    pub(super) fn paused(&self) -> bool {
        self.paused_by_user || self.out_of_space()
    }

    /// Leaves them to somebody who will have paused them by the time of [`Vcpus::let_go`].
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// Does what was wished meanwhile.
    pub(super) fn let_go(&mut self) {
        self.held = false;
        self.tell(!self.paused());
    }

    pub(super) fn pause(&mut self) {
        self.paused_by_user = true;
        self.tell(false);
    }

    pub(super) fn resume(&mut self) {
        self.paused_by_user = false;
        if !self.out_of_space() {
            self.tell(true);
        }
    }

    /// The box is being stopped: its guest must run to finish.
    pub(super) fn stopping(&mut self) {
        self.guard.stopping();
        if self.paused_by_user {
            self.resume();
        }
    }

    pub(super) fn disk_full(&mut self) {
        self.guard.disk_full();
    }

    /// Acts on a measurement of free bytes on the overlay's filesystem.
    pub(super) fn measured(&mut self, free: Option<u64>) {
        match self.guard.measured(free) {
            Action::None => {}
            Action::Pause => {
                if let Some(Cause::BelowFloor { free }) = self.guard.paused() {
                    tracing::warn!(
                        free,
                        "the host's disk is nearly full: the guest is paused until there is room"
                    );
                }
                self.tell(false);
            }
            Action::Resume => {
                tracing::info!(?free, "the host's disk has room again: the guest goes on");
                if !self.paused_by_user {
                    self.tell(true);
                }
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
