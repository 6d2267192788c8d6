//! Clients' requests.

use std::sync::Arc;

use boxlite_proto::{
    EXECUTIONS, FROZEN_SWITCH, Frame, MAIN_CHANNEL, MainState, Op, PROTOCOL_VERSION, ProtoError, ShimError,
    ShimReply, ShimRequest, ShimStatus, ToGuest,
};

use super::disk::{DiskStep, DiskTools};
use super::health::HealthWatch;
use super::hold::GuestHold;
use super::main_process::ClientId;
use super::ops::{MAX_TUNNELS, Refused};
use super::{Driver, DriverPhase};
use crate::shim::quota::DiskQuota;

impl Driver {
    pub(super) fn client_frame(&mut self, id: ClientId, frame: Frame) -> Result<(), ProtoError> {
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        match frame {
            Frame::Control(payload) => {
                let request = Frame::parse_control(&payload)?;
                if !client.greeted && !matches!(request, ShimRequest::Hello { .. }) {
                    return Err(ProtoError::Control("the first message must be a hello".into()));
                }
                self.request(id, request);
                Ok(())
            }
            frame => match frame.channel() {
                Some(channel) if self.main.is_attached(id, channel) => {
                    self.main.client_frame(id, frame, &self.guest)
                }
                Some(channel) if self.executions.is_attached(id, channel) => {
                    self.executions.client_frame(id, frame, &self.guest)
                }
                _ => self.ops.client_frame(id, frame, &self.guest),
            },
        }
    }

    fn request(&mut self, id: ClientId, request: ShimRequest) {
        match request {
            ShimRequest::Hello { version } => self.hello(id, version),
            ShimRequest::Status => self.reply(id, &ShimReply::Status(self.status())),
            ShimRequest::Attach { id: channel, from, stdin, tty } => {
                if self.spec.main.is_none() {
                    self.refuse(id, ShimError::Invalid, "this box has no main process to attach to");
                } else if let Some(client) = self.clients.get(&id) {
                    self.main.attach(id, client.sink.clone(), channel, from, stdin);
                    if let Some(size) = tty {
                        self.for_main(Op::Resize { id: MAIN_CHANNEL, size });
                    }
                }
            }
            ShimRequest::Op(op) => self.op(id, op),
            ShimRequest::Kill { .. } if self.spec.main.is_none() => {
                self.refuse(id, ShimError::Invalid, "this box has no main process to signal");
            }
            ShimRequest::PrepareDisk | ShimRequest::SwitchDisk { .. } | ShimRequest::SetPaused { .. }
                if !matches!(self.phase, DriverPhase::Running) =>
            {
                self.refuse(id, ShimError::NotRunning, "the box is coming up or stopping");
            }
            ShimRequest::PrepareDisk => self.change_disk(id, DiskStep::Prepare),
            ShimRequest::SwitchDisk { limit_ms } => self.switch_disk(id, limit_ms),
            ShimRequest::SetPaused { paused } => {
                self.vcpus.set_paused_by_user(paused);
                self.show_pause();
                self.reply(id, &ShimReply::Done);
            }
            ShimRequest::Kill { signo } => {
                // A guest that does not run cannot be killed.
                if signo == libc::SIGKILL {
                    self.vcpus.set_paused_by_user(false);
                }
                self.for_main(Op::Signal { id: MAIN_CHANNEL, signo });
                self.reply(id, &ShimReply::Done);
            }
            ShimRequest::Stop { signo, timeout_ms } => {
                self.wait_for_end(id);
                self.stop(signo, Some(timeout_ms));
            }
            ShimRequest::Wait => self.wait_for_end(id),
            ShimRequest::SetDiskQuota { bytes } => {
                self.vcpus.set_quota(bytes.map(DiskQuota));
                self.look_at_space();
                self.reply(id, &ShimReply::Done);
            }
            request @ (ShimRequest::Begin { .. }
            | ShimRequest::Inspect { .. }
            | ShimRequest::ListExecutions
            | ShimRequest::AttachExecution { .. }
            | ShimRequest::Taken { .. }
            | ShimRequest::LeaveExecution { .. }
            | ShimRequest::ReleaseExecution { .. }
            | ShimRequest::SignalExecution { .. }
            | ShimRequest::EndExecution { .. }
            | ShimRequest::ResizeExecution { .. }) => self.execution_request(id, request),
        }
    }

    fn switch_disk(&mut self, id: ClientId, limit_ms: u64) {
        // The guest is asked only for what follows at once.
        if !self.disk.is_prepared() {
            return self.refuse(id, ShimError::Invalid, "no new disk is prepared for the box");
        }
        match GuestHold::ask(&mut self.ops, &self.guest, limit_ms) {
            Ok(hold) => self.change_disk(id, DiskStep::Switch(hold)),
            Err(_) => self.refuse(id, ShimError::TooMany, "too many operations are under way in the box"),
        }
    }

    fn change_disk(&mut self, id: ClientId, step: DiskStep) {
        let tools = DiskTools {
            steward: Arc::clone(&self.steward),
            qmp: Arc::clone(&self.qmp),
            flushing: !self.spec.discard,
        };
        if !self.disk.begin(id, step, tools) {
            self.refuse(id, ShimError::Invalid, "the box's disk is being switched already");
        }
    }

    fn hello(&mut self, id: ClientId, version: u32) {
        let abilities = [EXECUTIONS, FROZEN_SWITCH].map(str::to_owned).to_vec();
        self.reply(id, &ShimReply::Hello { version: PROTOCOL_VERSION, abilities });
        if version == PROTOCOL_VERSION {
            if let Some(client) = self.clients.get_mut(&id) {
                client.greeted = true;
            }
        } else {
            let message = format!(
                "this box's shim speaks version {PROTOCOL_VERSION} of the protocol and not {version}; \
                 stop the box with the boxlite that started it"
            );
            self.refuse(id, ShimError::Version, &message);
        }
    }

    fn op(&mut self, id: ClientId, op: Op) {
        let Some(client) = self.clients.get(&id) else { return };
        if self.main.is_attached(id, op.id()) {
            if matches!(op, Op::Signal { .. } | Op::Resize { .. }) {
                self.for_main(op.with_id(MAIN_CHANNEL));
            } else {
                self.refuse(id, ShimError::Invalid, "the operation's id is that of the main process");
            }
            return;
        }
        if matches!(self.phase, DriverPhase::Stopping(_)) {
            self.refuse(id, ShimError::NotRunning, "the box is stopping");
            return;
        }
        match self.ops.begin(id, &client.sink, op, &self.guest) {
            Ok(()) => {}
            Err(Refused::IdInUse) => self.refuse(id, ShimError::Invalid, "the operation's id is in use"),
            Err(Refused::TooManyTunnels) => {
                let message = format!("this box has its most tunnels, {MAX_TUNNELS}; close some");
                self.refuse(id, ShimError::TooMany, &message);
            }
            Err(Refused::TooMany) => self.refuse(id, ShimError::Invalid, "too many operations are under way"),
        }
    }

    pub(super) fn for_main(&self, op: Op) {
        let _ = self.guest.control(&ToGuest::Op(op));
    }

    fn wait_for_end(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.waits = true;
        }
    }

    fn refuse(&self, id: ClientId, kind: ShimError, message: &str) {
        self.reply(id, &ShimReply::Error { kind, message: message.to_owned() });
    }

    fn status(&self) -> ShimStatus {
        ShimStatus {
            shim_pid: std::process::id(),
            vm_pid: Some(self.vm_pid),
            main: match (&self.phase, self.main.state) {
                (DriverPhase::Booting, MainState::Running { .. }) => MainState::Booting,
                (_, state) => state,
            },
            out_of_space: self.vcpus.out_of_space(),
            disk: self.disk.identity(),
            network: self.network.as_ref().map(|counts| counts.usage()),
            probes: self.health.as_ref().map(HealthWatch::probes).unwrap_or_default(),
            guest_start: Some(self.spec.guest_start()),
        }
    }
}
