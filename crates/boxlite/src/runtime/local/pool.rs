//! Keeping guests that wait for boxes.

use std::sync::Arc;
use std::time::Duration;

use boxlite_types::Result;

use super::{Local, LocalContext};
use crate::pool::PoolPlace;

/// How often to look whether boxes of other processes want the memory of waiting guests.
const TEND_INTERVAL: Duration = Duration::from_secs(1);

/// How long a box that has taken a guest has the processors for itself, before another guest is made.
const REFILL_DELAY: Duration = Duration::from_millis(300);

impl Local {
    /// Keeps guests waiting; never returns.
    pub(in crate::runtime) async fn keep_pool(&self) {
        if !self.context.pool.is_wanted() {
            return std::future::pending().await;
        }
        loop {
            match self.in_context(tend).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = %error.chain(), "no guest waits for the next box"),
            }
            if tokio::time::timeout(TEND_INTERVAL, self.context.pool.changed()).await.is_ok() {
                tokio::time::sleep(REFILL_DELAY).await;
            }
        }
    }
}

fn tend(context: &Arc<LocalContext>) -> Result<bool> {
    context.pool.tend(PoolPlace { home: &context.home, settings: &context.settings })
}
