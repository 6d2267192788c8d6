//! Ending a guest through its shim, or by killing a shim that does not answer.

use std::time::Duration;

use boxlite_types::Result;
use boxlite_vm::shim::ShimClient;

/// How long, after the stop's own timeout, a guest and its QEMU may take to flush; the shim itself ends them earlier.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a forced removal waits for the shim's answer.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

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

    /// In order: the stop signal, KILL after so many seconds, then a clean unmount.
    pub(super) fn graceful(seconds: u32) -> Self {
        let answer_timeout = Duration::from_secs(seconds.into()) + FLUSH_TIMEOUT;
        Self { signal: None, grace_ms: u64::from(seconds) * 1000, answer_timeout }
    }

    /// Ends the guest and returns when it has ended.
    pub(super) async fn run(self, client: &ShimClient) -> Result<()> {
        match tokio::time::timeout(self.answer_timeout, client.stop(self.signal, self.grace_ms)).await {
            Ok(stopped) => stopped,
            Err(_) => client.kill_shim().await,
        }
    }
}
