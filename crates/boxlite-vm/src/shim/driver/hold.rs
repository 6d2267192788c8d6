//! The guest's root filesystem, held still while QEMU goes over to another overlay.
//!
//! The shim holds it and not its client, so that the guest waits for no other process to be scheduled, and goes on whatever
//! becomes of the client.

use std::time::Duration;

use boxlite_proto::{Frame, Op, OpEvent, ShimError, ShimReply, Stream, ToGuest};
use tokio::time::timeout;

use super::ops::{Ops, Refused};
use crate::shim::sink::{self, FrameSink, FrameSource};

/// How long the guest may take to write out what it holds of its filesystem. One that is paused must not keep the switch for
/// good.
const STANDING_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the guest may take to go on and say so.
const THAW_TIMEOUT: Duration = Duration::from_secs(15);

/// Why something of a switch failed, for the client that asked.
pub(super) type StepRefusal = (ShimError, String);

/// A request to the guest to hold its root filesystem still. Dropping it lets the guest go on, once it runs.
#[derive(Debug)]
pub(super) struct GuestHold {
    channel: u32,
    guest: FrameSink,
    frames: FrameSource,
    /// The guest has said its last of it.
    over: bool,
}

/// For how long a guest stood still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standstill {
    pub(super) frozen_us: u64,
    /// It had gone on by itself before it was told to.
    pub(super) expired: bool,
}

impl GuestHold {
    /// Asks the guest, which goes on by itself after `limit_ms`.
    pub(super) fn ask(ops: &mut Ops, guest: &FrameSink, limit_ms: u64) -> Result<Self, Refused> {
        let (sink, frames) = sink::queue();
        let channel = ops.begin_own(Op::Freeze { id: 0, timeout_ms: limit_ms }, &sink, guest)?;
        Ok(Self { channel, guest: guest.clone(), frames, over: false })
    }

    /// Waits until the filesystem stands still.
    ///
    /// # Errors
    /// When the guest says that it cannot, or does not get there in time.
    pub(super) async fn standing(&mut self) -> Result<(), StepRefusal> {
        let standing = async {
            loop {
                match self.frames.next().await {
                    Some(Frame::Data { stream: Stream::Stdout, .. }) => return Ok(()),
                    Some(Frame::Control(payload)) => {
                        if let Some(said) = event(&payload) {
                            self.over = true;
                            return Err(match said {
                                OpEvent::Failed { message, .. } => (ShimError::Vm, message),
                                _ => (ShimError::Vm, "the guest's disk did not come to stand still".into()),
                            });
                        }
                    }
                    Some(_) => {}
                    None => return Err((ShimError::NotRunning, "the box has ended".into())),
                }
            }
        };
        timeout(STANDING_TIMEOUT, standing).await.unwrap_or_else(|_| {
            let message =
                format!("the guest has not written out its disk for {} s", STANDING_TIMEOUT.as_secs());
            Err((ShimError::Unavailable, message))
        })
    }

    /// Lets the guest go on.
    pub(super) fn release(&self) {
        self.guest.send(Frame::Eof { channel: self.channel, stream: Stream::Stdin });
    }

    /// Waits until the guest, which was let go on, says that it has.
    ///
    /// # Errors
    /// When it does not in time.
    pub(super) async fn thawed(mut self) -> Result<Standstill, StepRefusal> {
        let thawed = async {
            loop {
                let Some(frame) = self.frames.next().await else {
                    return Err((ShimError::NotRunning, "the box has ended".into()));
                };
                let Frame::Control(payload) = frame else { continue };
                if let Some(said) = event(&payload) {
                    self.over = true;
                    return match said {
                        OpEvent::Thawed { frozen_us, expired, .. } => Ok(Standstill { frozen_us, expired }),
                        OpEvent::Failed { message, .. } => Err((ShimError::Vm, message)),
                        other => Err((ShimError::Vm, format!("the guest answered a freeze with {other:?}"))),
                    };
                }
            }
        };
        timeout(THAW_TIMEOUT, thawed).await.unwrap_or_else(|_| {
            let message = format!("the guest has not gone on writing for {} s", THAW_TIMEOUT.as_secs());
            Err((ShimError::Unavailable, message))
        })
    }
}

/// The agent thaws the filesystem when it has reaped the child that froze it, so the kill is enough wherever that is. One that
/// has ended is not there to be killed.
impl Drop for GuestHold {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let _ = self.guest.control(&ToGuest::Op(Op::Signal { id: self.channel, signo: libc::SIGKILL }));
        self.release();
    }
}

fn event(payload: &[u8]) -> Option<OpEvent> {
    match Frame::parse_control(payload) {
        Ok(ShimReply::Event(event)) => Some(event),
        _ => None,
    }
}
