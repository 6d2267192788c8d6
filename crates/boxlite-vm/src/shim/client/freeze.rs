//! A guest whose root filesystem stands still while a snapshot is taken.

use std::time::Duration;

use boxlite_proto::{Frame, Op, OpEvent, ShimReply, ShimRequest, Stream};
use boxlite_types::{Error, ErrorKind, Result};

use super::session::ShimConnection;
use super::{CHANNEL, ShimClient, connection_lost, failure, not_running, refusal, unexpected};

/// How long a guest may take to write out what it holds of its filesystem.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(60);

/// A guest that writes nothing to its disk. It thaws when this is dropped, when its host is lost, and after its time.
#[derive(Debug)]
pub struct FrozenGuest {
    connection: ShimConnection,
}

/// How a guest thawed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thaw {
    /// For how long it stood still, by its own clock.
    pub frozen: Duration,
    /// Whether it thawed by itself, before it was told to.
    pub expired: bool,
}

impl ShimClient {
    /// Has the guest write out its root filesystem and then write nothing to it, for `limit` at most.
    ///
    /// # Errors
    /// `Conflict` when the box does not run; `Unavailable` when the guest does not get there in a minute.
    pub async fn freeze(&self, limit: Duration) -> Result<FrozenGuest> {
        let timeout_ms = limit.as_millis() as u64;
        let mut connection = self.connect(&ShimRequest::Op(Op::Freeze { id: CHANNEL, timeout_ms })).await?;
        let standing = async {
            loop {
                match connection.frame().await? {
                    None => return Err(not_running(self.paths().root())),
                    Some(Frame::Data { channel: CHANNEL, stream: Stream::Stdout, .. }) => return Ok(()),
                    Some(Frame::Control(payload)) => {
                        match Frame::parse_control(&payload).map_err(connection_lost)? {
                            ShimReply::Hello { .. } => {}
                            ShimReply::Error { kind, message } => return Err(refusal(kind, message)),
                            ShimReply::Event(OpEvent::Failed { kind, message, .. }) => {
                                return Err(failure(kind, message));
                            }
                            ShimReply::Stopped { .. } => return Err(not_running(self.paths().root())),
                            other => return Err(unexpected(&other)),
                        }
                    }
                    Some(_) => {}
                }
            }
        };
        let stood = tokio::time::timeout(FREEZE_TIMEOUT, standing).await;
        stood.map_err(|_| {
            let message = format!("the box has not written out its disk for {} s", FREEZE_TIMEOUT.as_secs());
            Error::new(ErrorKind::Unavailable, message)
        })??;
        Ok(FrozenGuest { connection })
    }
}

impl FrozenGuest {
    /// Lets the guest write again.
    pub async fn thaw(mut self) -> Result<Thaw> {
        self.connection.sink.send(Frame::Eof { channel: CHANNEL, stream: Stream::Stdin });
        loop {
            match self.connection.answer().await? {
                Some(ShimReply::Event(OpEvent::Thawed { frozen_us, expired, .. })) => {
                    return Ok(Thaw { frozen: Duration::from_micros(frozen_us), expired });
                }
                Some(ShimReply::Event(OpEvent::Failed { kind, message, .. })) => {
                    return Err(failure(kind, message));
                }
                Some(ShimReply::Event(_)) => {}
                Some(ShimReply::Stopped { .. }) | None => {
                    return Err(Error::conflict("the box ended while a snapshot of it was taken"));
                }
                Some(other) => return Err(unexpected(&other)),
            }
        }
    }
}
