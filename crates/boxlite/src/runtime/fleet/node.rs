//! One server of a fleet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boxlite_types::{Error, Result};
use tokio::time::timeout;

use crate::runtime::rest::{Remote, RemoteOptions};

/// How long a server may take to say what it has.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A server, and whether it can be asked.
#[derive(Debug)]
pub(super) struct FleetNode {
    url: String,
    remote: Remote,
    down: AtomicBool,
}

impl FleetNode {
    pub(super) fn new(options: &RemoteOptions) -> Result<Self> {
        let remote = Remote::new(options)?;
        Ok(Self { url: remote.server().to_owned(), remote, down: AtomicBool::new(false) })
    }

    /// The server's URL, by which messages and lists name it.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Whether it could not be asked since this process began.
    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// The server's answer; `None` where it cannot be asked, which is said once.
    pub(super) async fn ask<T>(&self, asking: impl Future<Output = Result<T>>) -> Option<Result<T>> {
        if self.is_down() {
            return None;
        }
        match timeout(ANSWER_TIMEOUT, asking).await {
            // It is not there, wants another key, or is no server of ours.
            Ok(Err(error)) if error.server().is_some() => {
                self.leave_out(&error.chain().to_string());
                None
            }
            Ok(answer) => Some(answer),
            Err(_) => {
                self.leave_out(&format!("it does not answer within {} s", ANSWER_TIMEOUT.as_secs()));
                None
            }
        }
    }

    /// Does without the server from now on.
    fn leave_out(&self, why: &str) {
        if !self.down.swap(true, Ordering::Relaxed) {
            tracing::warn!("server {} is left out: {why}", self.url);
        }
    }

    /// Says that the server had no room for a box.
    pub(super) fn warn_full(&self, error: &Error) {
        tracing::warn!("server {} has no room for the box: {}", self.url, error.chain());
    }
}
