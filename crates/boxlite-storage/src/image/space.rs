//! Space for what one pull or build is about to write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use boxlite_home::Home;
use boxlite_home::admission::{Collector, SpaceGuard};
use boxlite_home::settings::Settings;
use boxlite_types::Result;

/// Asked before one transfer or build writes into the home and while it does; cheap to clone.
///
/// Its claim lives until the last clone is dropped. Callers that only share another's transfer hold none: only
/// the one that writes does.
#[derive(Debug, Clone)]
pub(crate) struct WriteSpace {
    guard: Arc<SpaceGuard>,
    written: Arc<AtomicU64>,
}

impl WriteSpace {
    /// Space in `home`; garbage is collected through `collector` before anything is refused, where `settings` allow that,
    /// but for the disk images of the digests in `keep`.
    pub(crate) fn new(
        home: &Home,
        settings: &Settings,
        collector: &Arc<dyn Collector>,
        keep: Vec<String>,
    ) -> Result<Self> {
        let guard = SpaceGuard::new(home, settings)?.collecting(Arc::clone(collector), keep);
        Ok(Self { guard: Arc::new(guard), written: Arc::default() })
    }

    /// Whether there is room for about `estimate` bytes, without claiming them.
    ///
    /// # Errors
    /// `ResourceExhausted` with the figures.
    pub(crate) fn ask(&self, estimate: u64) -> Result<()> {
        self.guard.check_room(estimate)
    }

    /// Claims about `estimate` bytes.
    ///
    /// # Errors
    /// `ResourceExhausted` with the figures.
    pub(crate) fn reserve(&self, estimate: u64) -> Result<()> {
        self.guard.check_before(estimate)
    }

    /// Whether `bytes` more may be written now.
    ///
    /// # Errors
    /// `ResourceExhausted` at the hard floor.
    pub(crate) fn about_to_write(&self, bytes: u64) -> Result<()> {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.guard.check_streaming(written)
    }
}
