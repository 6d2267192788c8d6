//! Having the running box go on with another overlay, for which its guest stands still for a moment.

use std::time::Duration;

use boxlite_proto::{FROZEN_SWITCH, ShimReply, ShimRequest};
use boxlite_types::{Error, ErrorKind, Result};

use super::session::ShimConnection;
use super::{ShimClient, not_running, unexpected};

/// How long QEMU may take to open the overlay.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the switch may take. The shim gives its guest a minute to write out what it holds of its filesystem; a QEMU that
/// hangs, and a shim that does, must not keep the box's guard for good.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(90);

/// A switch to another overlay for which everything is ready that can be, on a connection that stands.
#[derive(Debug)]
pub struct DiskSwitch {
    client: ShimClient,
    connection: ShimConnection,
}

/// How a guest that stood still went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thaw {
    /// For how long it stood still, by its own clock.
    pub frozen: Duration,
    /// Whether it went on by itself, before it was told to.
    pub expired: bool,
}

impl ShimClient {
    /// Has QEMU open the overlay that lies at the box's path by now, and not use it yet. The caller holds the box's guard, and
    /// has put that overlay above the one in use.
    ///
    /// # Errors
    /// `Conflict` when the box does not run, comes up or stops; `InvalidInput` when the overlay is in use already; `Io` when
    /// QEMU refuses it; `Unavailable` when it does not answer; `Unsupported` for a box of an older boxlite.
    pub async fn prepare_switch(&self) -> Result<DiskSwitch> {
        let (connection, abilities) = self.greet().await?;
        if !abilities.iter().any(|able| able == FROZEN_SWITCH) {
            return Err(Error::unsupported(
                "the box was started by a boxlite without snapshots of running boxes; stop it first, or start it again",
            ));
        }
        let mut switch = DiskSwitch { client: self.clone(), connection };
        match switch.ask(&ShimRequest::PrepareDisk, PREPARE_TIMEOUT).await? {
            ShimReply::Done => Ok(switch),
            other => Err(unexpected(&other)),
        }
    }
}

impl DiskSwitch {
    /// Has the guest's root filesystem stand still, `limit` at most, while QEMU goes over to the overlay. Once asked for, it
    /// takes its course without us.
    ///
    /// # Errors
    /// `Conflict` when the box ends meanwhile; `Unavailable` when the guest does not get there within a minute, as one that is
    /// paused, or QEMU does not answer. The guest goes on all the same, once it runs.
    pub async fn switch(mut self, limit: Duration) -> Result<Thaw> {
        let limit_ms = limit.as_millis() as u64;
        match self.ask(&ShimRequest::SwitchDisk { limit_ms }, SWITCH_TIMEOUT).await? {
            ShimReply::Switched { frozen_us, expired } => {
                Ok(Thaw { frozen: Duration::from_micros(frozen_us), expired })
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&mut self, request: &ShimRequest, timeout: Duration) -> Result<ShimReply> {
        self.connection.send(request)?;
        let answer = tokio::time::timeout(timeout, self.connection.answer()).await.map_err(|_| {
            let message = format!("the box has not gone over to its new disk for {} s", timeout.as_secs());
            Error::new(ErrorKind::Unavailable, message)
        })?;
        match answer? {
            Some(ShimReply::Stopped { .. }) | None => Err(not_running(self.client.paths().root())),
            Some(reply) => Ok(reply),
        }
    }
}

#[cfg(test)]
mod tests {
    use boxlite_home::BoxPaths;
    use boxlite_proto::{Frame, PROTOCOL_VERSION};
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixListener;

    use super::*;

    /// A shim that greets, answers `answers`, and then says nothing more.
    fn shim_that_hangs(answers: Vec<ShimReply>) -> (tempfile::TempDir, ShimClient) {
        let directory = tempfile::tempdir().unwrap();
        let paths = BoxPaths::new(directory.path().to_owned());
        std::fs::create_dir_all(paths.socket().parent().unwrap()).unwrap();
        let listener = UnixListener::bind(paths.socket()).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let hello =
                ShimReply::Hello { version: PROTOCOL_VERSION, abilities: vec![FROZEN_SWITCH.to_owned()] };
            for reply in std::iter::once(&hello).chain(&answers) {
                stream.write_all(&Frame::control(reply).unwrap().to_bytes()).await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        (directory, ShimClient::new(paths))
    }

    /// Before, a QEMU that hung in a snapshot kept that, and with it the box's guard, for good.
    ///
    /// Mutation tried: without the timeout in `ask`, neither step ends.
    #[tokio::test(start_paused = true)]
    async fn a_shim_or_a_qemu_that_hangs_keeps_no_snapshot_for_good() {
        let (_directory, client) = shim_that_hangs(Vec::new());
        assert_eq!(client.prepare_switch().await.unwrap_err().kind(), ErrorKind::Unavailable);
        let (_directory, client) = shim_that_hangs(vec![ShimReply::Done]);
        let switch = client.prepare_switch().await.unwrap();
        let switched = switch.switch(Duration::from_secs(5)).await;
        assert_eq!(switched.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
