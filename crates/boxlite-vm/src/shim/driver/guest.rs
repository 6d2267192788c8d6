//! The messages of the guest's agent.

use boxlite_proto::{
    CLOCK, DISKS, Frame, FromGuest, HEALTH, MAIN_CHANNEL, MainState, OpEvent, PLUGGED_SHARES,
    PROTOCOL_VERSION, ProtoError, UNTOUCHED,
};

use super::executions::FIRST_HELD;
use super::{Driver, DriverPhase, GuestInput};

impl Driver {
    pub(super) fn guest_input(&mut self, input: GuestInput) {
        if let Err(error) = input.and_then(|frame| self.guest_frame(frame)) {
            // A guest that broke the protocol cannot be asked to flush.
            self.fail(format!("the guest's agent broke the protocol: {error}"));
        }
    }

    fn guest_frame(&mut self, frame: Frame) -> Result<(), ProtoError> {
        match frame {
            Frame::Control(payload) => self.guest_message(Frame::parse_control(&payload)?),
            Frame::Data { channel: MAIN_CHANNEL, stream, bytes } => {
                self.main.output(stream, bytes, &self.guest)?;
            }
            frame if frame.channel() == Some(MAIN_CHANNEL) => self.main.guest_frame(&frame, &self.guest)?,
            frame if frame.channel().is_some_and(|channel| channel >= FIRST_HELD) => {
                self.executions.guest_frame(frame, &self.guest)?;
            }
            frame => self.ops.guest_frame(frame)?,
        }
        Ok(())
    }

    fn guest_message(&mut self, message: FromGuest) {
        match message {
            FromGuest::Hello { version, .. } if version != PROTOCOL_VERSION => self.fail(format!(
                "the guest's agent speaks version {version} of the protocol and this shim version {PROTOCOL_VERSION}"
            )),
            FromGuest::Hello { features, .. } => self.greeted(&features),
            FromGuest::Ready { timings, warnings, features } => {
                tracing::info!(?timings, "the guest is up");
                self.learn(&features);
                self.expect_probes();
                for warning in warnings {
                    tracing::warn!(warning, "the guest came up with trouble");
                }
                if matches!(self.phase, DriverPhase::Booting) {
                    self.phase = DriverPhase::Running;
                }
                if self.spec.main.is_none() {
                    self.main.state = MainState::Running { pid: 0 };
                }
            }
            FromGuest::BootFailed { reason, may_retry } => self.fail_boot(reason, may_retry),
            FromGuest::Health(event) => self.probed(event),
            FromGuest::Down => self.guest_is_down(),
            FromGuest::Event(event) if event.id() == MAIN_CHANNEL => self.main_event(&event),
            FromGuest::Event(event) if event.id() >= FIRST_HELD => self.executions.event(event),
            FromGuest::Event(event) => self.ops.event(event),
        }
    }

    fn greeted(&mut self, features: &[String]) {
        tracing::debug!(?features, "the guest's agent is there");
        if !self.spec.disks.is_empty() && !features.iter().any(|feature| feature == DISKS) {
            return self.fail(
                "the guest's agent is too old to mount named volumes; install the one of this boxlite".into(),
            );
        }
        if self.keeping.has_shares() && !features.iter().any(|feature| feature == PLUGGED_SHARES) {
            return self.fail(
                "the guest's agent is too old to find the box's folders; install the one of this boxlite"
                    .into(),
            );
        }
        self.learn(features);
        let untouched = features.iter().any(|feature| feature == UNTOUCHED);
        let fit = untouched && matches!(self.phase, DriverPhase::Booting) && !self.vcpus.out_of_space();
        if self.keeping.greeted(fit, &self.qmp) {
            self.vcpus.hold();
        }
    }

    /// The agent can do this, whenever it has said so.
    fn learn(&mut self, features: &[String]) {
        let has = |ability| features.iter().any(|feature| feature == ability);
        self.clock.is_heard |= has(CLOCK);
        if let (Some(health), true) = (&mut self.health, has(HEALTH)) {
            health.agent_probes();
        }
    }

    fn main_event(&mut self, event: &OpEvent) {
        self.main.event(event);
        match event {
            OpEvent::ExecFailed { kind, message, .. } => self.main_not_started(*kind, message.clone()),
            OpEvent::Exited { memory_kills, .. } => {
                self.memory_kills = *memory_kills;
                self.main_exited();
            }
            _ => {}
        }
    }
}
