//! Ending a guest through its shim, or by killing a shim that does not answer.

use std::time::Duration;

use boxlite_types::{ErrorKind, Result};
use boxlite_vm::shim::ShimClient;

/// How long, after the stop's own timeout, shim and QEMU may take to be gone; the shim itself kills QEMU 2 s earlier.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The same for a maintenance boot, whose guest may have whole files to flush.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a forced removal waits for the shim's answer.
const KILL_TIMEOUT: Duration = Duration::from_secs(3);

/// The sequence that ends a guest: the request to its shim, and when the shim itself is killed instead.
#[derive(Debug, Clone, Copy)]
pub(super) struct StopSequence {
    /// The main process's first signal; its stop signal when absent.
    signal: Option<i32>,
    /// Between that signal and KILL.
    grace_ms: u64,
    /// A shim that has not answered by then is killed.
    answer_timeout: Duration,
}

impl StopSequence {
    /// At once, for a box whose disk is about to be removed.
    pub(super) const KILL: Self =
        Self { signal: Some(libc::SIGKILL), grace_ms: 0, answer_timeout: KILL_TIMEOUT };

    /// For a maintenance boot, which has no main process and is to keep what was written.
    pub(super) const FLUSH: Self = Self { signal: None, grace_ms: 0, answer_timeout: FLUSH_TIMEOUT };

    /// In order: the stop signal, KILL after so many seconds, then a clean unmount.
    pub(super) fn graceful(seconds: u32) -> Self {
        let answer_timeout = Duration::from_secs(seconds.into()) + STOP_GRACE;
        Self { signal: None, grace_ms: u64::from(seconds) * 1000, answer_timeout }
    }

    fn kills(self) -> bool {
        self.signal == Some(libc::SIGKILL)
    }

    /// Ends the guest and returns when it has ended.
    pub(super) async fn run(self, client: &ShimClient) -> Result<()> {
        match tokio::time::timeout(self.answer_timeout, client.stop(self.signal, self.grace_ms)).await {
            // A shim of another version takes no request, and with KILL nothing is to be kept.
            Ok(Err(error)) if self.kills() && error.kind() == ErrorKind::Unsupported => {
                client.kill_shim().await
            }
            Ok(stopped) => stopped,
            Err(_) => client.kill_shim().await,
        }
    }
}
