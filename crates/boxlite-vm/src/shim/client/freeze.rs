//! A guest whose root filesystem stands still while a snapshot is taken, and what its shim does meanwhile.

use std::time::Duration;

use boxlite_proto::{Frame, Op, OpEvent, PREPARED_SWITCH, ShimReply, ShimRequest, Stream};
use boxlite_types::{Error, ErrorKind, Result};

use super::session::ShimConnection;
use super::{CHANNEL, ShimClient, connection_lost, failure, not_running, refusal, unexpected};

/// How long each step may take; the longest is that of a guest that writes out what it holds of its filesystem. A guest that is
/// paused meanwhile, and a QEMU that hangs, must not keep the box's guard for good.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for a step.
async fn within<T>(what: &str, step: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(STEP_TIMEOUT, step).await.map_err(|_| {
        let message = format!("the box has not {what} for {} s", STEP_TIMEOUT.as_secs());
        Error::new(ErrorKind::Unavailable, message)
    })?
}

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
        within("written out its disk", standing).await?;
        Ok(FrozenGuest { connection })
    }
}

/// A switch to another overlay for which everything is ready that can be, on a connection that stands.
#[derive(Debug)]
pub struct DiskSwitch {
    client: ShimClient,
    connection: ShimConnection,
}

impl ShimClient {
    /// Has QEMU open the overlay that lies at the box's path by now, and not use it yet. The caller holds the box's guard, and
    /// has put that overlay above the one in use. An older shim opens it when it switches.
    ///
    /// # Errors
    /// `Conflict` when the box does not run, comes up or stops; `InvalidInput` when the overlay is in use already; `Io` when
    /// QEMU refuses it.
    pub async fn prepare_switch(&self) -> Result<DiskSwitch> {
        let (connection, abilities) = self.greet().await?;
        let mut switch = DiskSwitch { client: self.clone(), connection };
        if abilities.iter().any(|able| able == PREPARED_SWITCH) {
            switch.ask(&ShimRequest::PrepareDisk).await?;
        }
        Ok(switch)
    }
}

impl DiskSwitch {
    /// Has QEMU go over to the overlay.
    ///
    /// # Errors
    /// As for [`ShimClient::prepare_switch`].
    pub async fn switch(mut self) -> Result<()> {
        self.ask(&ShimRequest::SwitchDisk).await
    }

    async fn ask(&mut self, request: &ShimRequest) -> Result<()> {
        self.connection.send(request)?;
        match within("gone over to its new disk", self.connection.answer()).await? {
            Some(ShimReply::Done) => Ok(()),
            Some(ShimReply::Stopped { .. }) | None => Err(not_running(self.client.paths().root())),
            Some(other) => Err(unexpected(&other)),
        }
    }
}

impl FrozenGuest {
    /// Lets the guest write again.
    ///
    /// # Errors
    /// `Conflict` when the box has ended; `Unavailable` when the guest does not answer for a minute, as one does that is paused.
    /// It thaws all the same, once it runs.
    pub async fn thaw(self) -> Result<Thaw> {
        self.connection.sink.send(Frame::Eof { channel: CHANNEL, stream: Stream::Stdin });
        within("gone on writing", self.thawed()).await
    }

    async fn thawed(mut self) -> Result<Thaw> {
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
