//! Waiting for the exclusive right to change a box.
//!
//! # Locking
//! [`BoxGuard::try_acquire`] takes the state lock of one box without waiting. Waiters poll it from here instead of
//! blocking a thread, so contention on one box cannot starve the operations on others, and a caller that gives up is
//! no longer in the way.
//!
//! # Leftovers
//! A copy with a box that is not running boots a guest that nothing records (see [`super::maintenance`]). When the
//! copying process was killed, the guest outlives its guard: the next process that acquires the box ends that guest.

use std::time::{Duration, Instant};

use boxlite_types::Result;
use boxlite_vm::shim::ShimClient;

use super::Local;
use super::stop::StopSequence;
use crate::litebox::BoxGuard;

/// The pause between two attempts grows from one to the other with the time already waited.
const MIN_RETRY_INTERVAL: Duration = Duration::from_millis(1);
const MAX_RETRY_INTERVAL: Duration = Duration::from_millis(50);

impl Local {
    /// Acquires the box that `wanted` names, waiting while others change its state.
    ///
    /// # Errors
    /// `NotFound`, also when the box is removed meanwhile; `Corrupt` when it has lost its directory.
    pub(super) async fn acquire(&self, wanted: &str) -> Result<BoxGuard> {
        let began = Instant::now();
        loop {
            if let Some(guard) = self.try_acquire(wanted).await? {
                self.end_leftover_guest(&guard).await?;
                return Ok(guard);
            }
            pause_since(began).await;
        }
    }

    /// Acquires the box `id`, and ends any guest of it that runs until then.
    ///
    /// The holder of the guard may be a copy that waits for its peer: ending its guest makes it give the box back.
    pub(super) async fn acquire_ending(&self, id: &str, sequence: StopSequence) -> Result<BoxGuard> {
        let client = ShimClient::new(self.context.home.of_box(id));
        let began = Instant::now();
        loop {
            if client.listens().await? {
                sequence.run(&client).await?;
            }
            if let Some(guard) = self.try_acquire(id).await? {
                return Ok(guard);
            }
            pause_since(began).await;
        }
    }

    async fn try_acquire(&self, wanted: &str) -> Result<Option<BoxGuard>> {
        let wanted = wanted.to_owned();
        self.in_context(move |context| BoxGuard::try_acquire(context, &context.store.find_box(&wanted)?.id))
            .await
    }

    /// Ends the guest that a killed copy has left behind of a box that is not running.
    async fn end_leftover_guest(&self, guard: &BoxGuard) -> Result<()> {
        if self.is_running(&guard.record).await? {
            return Ok(());
        }
        let client = self.client(&guard.record);
        if client.listens().await? { StopSequence::FLUSH.run(&client).await } else { Ok(()) }
    }
}

/// Pauses before the next attempt of a caller that has waited since `began`.
async fn pause_since(began: Instant) {
    let pause = (began.elapsed() / 8).clamp(MIN_RETRY_INTERVAL, MAX_RETRY_INTERVAL);
    tokio::time::sleep(pause).await;
}
