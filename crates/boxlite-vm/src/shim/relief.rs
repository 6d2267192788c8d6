//! Asking for a garbage collection on behalf of a guest that is paused or about to be.
//!
//! This crate knows no storage: the program that runs the shim hands over what collects. The collection runs on a thread
//! of its own in the shim's steward, which nothing waits for: a steward that ends takes it along, as a crash would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boxlite_types::Result;
use tokio::time::Instant;

/// Between two requests of one shim; what came of the last one is seen by then.
const REQUEST_INTERVAL: Duration = Duration::from_secs(10);

/// Collects garbage until so many bytes are free on the home's filesystem, as far as there is any. It blocks, and is
/// expected to share its work with those who ask at the same time.
pub type CollectGarbage = Arc<dyn Fn(u64) -> Result<()> + Send + Sync>;

/// The requests of one shim, of which at most one is under way.
pub(super) struct SpaceRelief {
    collect: CollectGarbage,
    under_way: Arc<AtomicBool>,
    last: Option<Instant>,
}

impl std::fmt::Debug for SpaceRelief {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpaceRelief").field("last", &self.last).finish_non_exhaustive()
    }
}

impl SpaceRelief {
    /// Asks `collect`.
    pub(super) fn new(collect: CollectGarbage) -> Self {
        Self { collect, under_way: Arc::default(), last: None }
    }

    /// Asks for `wanted` free bytes, unless that was done a moment ago or is being done.
    pub(super) fn ask(&mut self, wanted: u64) {
        let recently = self.last.is_some_and(|last| last.elapsed() < REQUEST_INTERVAL);
        if recently || self.under_way.swap(true, Ordering::AcqRel) {
            return;
        }
        self.last = Some(Instant::now());
        tracing::info!(wanted, "the host's disk is nearly full: asking for a garbage collection");
        let (collect, under_way) = (Arc::clone(&self.collect), Arc::clone(&self.under_way));
        let spawned = std::thread::Builder::new().name("boxlite-relief".into()).spawn(move || {
            if let Err(error) = collect(wanted) {
                tracing::warn!(error = %error.chain(), "no garbage could be collected");
            }
            under_way.store(false, Ordering::Release);
        });
        if let Err(error) = spawned {
            self.under_way.store(false, Ordering::Release);
            tracing::warn!(%error, "no garbage could be collected");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shim_asks_once_at_a_time_and_not_all_the_time() {
        let (asked, requests) = mpsc::channel();
        let (go_on, gate) = mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let mut relief = SpaceRelief::new(Arc::new(move |wanted| {
            asked.send(wanted).unwrap();
            gate.lock().unwrap().recv().unwrap();
            Ok(())
        }));
        relief.ask(1);
        assert_eq!(requests.recv().unwrap(), 1);
        relief.ask(2);
        tokio::time::advance(REQUEST_INTERVAL).await;
        relief.ask(3);
        go_on.send(()).unwrap();
        while relief.under_way.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        relief.ask(4);
        assert_eq!(requests.recv().unwrap(), 4);
        go_on.send(()).unwrap();
        relief.ask(5);
        assert!(requests.try_recv().is_err());
    }
}
