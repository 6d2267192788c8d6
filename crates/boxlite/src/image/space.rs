//! Room for what one pull or build is about to write.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::durable::FreeSpace;
use crate::error::{Error, Result, Shortage};
use crate::home::Home;
use crate::settings::Settings;

/// Asked before one operation writes into the home and while it does; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    path: PathBuf,
    floor: u64,
    written: Arc<AtomicU64>,
}

impl Room {
    pub(crate) fn new(home: &Home, settings: &Settings) -> Self {
        let floor = settings.hard_floor.value.0;
        Self { path: home.root().to_owned(), floor, written: Arc::default() }
    }

    /// Whether about `estimate` bytes may be written.
    ///
    /// # Errors
    /// `ResourceExhausted` with the figures.
    pub(crate) fn admit(&self, estimate: u64) -> Result<()> {
        // A measurement that fails never refuses anything.
        let Ok(free) = FreeSpace::at(&self.path) else { return Ok(()) };
        let need = self.floor.saturating_add(estimate);
        if free.bytes >= need {
            return Ok(());
        }
        let message = format!(
            "{estimate} bytes are to be written and {} are to stay free at {}, where {} are free; \
             `boxlite gc` may free some",
            self.floor,
            self.path.display(),
            free.bytes
        );
        let shortage = Shortage { need, have: free.bytes, inodes: false, reclaimable: None };
        Err(Error::exhausted(message, shortage).at(&self.path))
    }

    /// Whether `bytes` more may be written now.
    ///
    /// # Errors
    /// `ResourceExhausted` at the hard floor.
    pub(crate) fn about_to_write(&self, bytes: u64) -> Result<()> {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.admit(bytes)
    }
}
