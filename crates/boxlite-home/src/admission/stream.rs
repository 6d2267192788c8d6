//! Room for what streams: pulls, disk-image builds, imports and copies.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use boxlite_types::{Error, Result, Verdict};

use super::claim::{Claim, Claims};
use super::classify::{Missing, Reclaimable, Thresholds};
use super::start::{Collector, Goal, shortage};
use crate::home::Home;
use crate::settings::Settings;

/// Bytes written between two looks at the filesystem.
const STRIDE: u64 = 4 << 20;

/// Asks for room before one operation writes into the home, and looks again while it does.
///
/// One guard belongs to one operation. Its claim lasts until the bytes have been written or the guard is
/// dropped. All methods may be called from any thread; they block for microseconds, unless garbage is collected.
pub struct SpaceGuard {
    path: PathBuf,
    thresholds: Thresholds,
    claims: Claims,
    claim: Mutex<Option<Claim>>,
    estimate: AtomicU64,
    look_at: AtomicU64,
    collector: Option<Arc<dyn Collector>>,
    /// Whether the collector may remove something, rather than only tell what it could.
    collects: bool,
    keep: Vec<String>,
}

impl std::fmt::Debug for SpaceGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpaceGuard").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SpaceGuard {
    /// A guard for one operation that writes into `home`.
    pub fn new(home: &Home, settings: &Settings) -> Result<Self> {
        let collects = settings.auto_gc.value;
        Ok(Self { collects, ..Self::under(home, Thresholds::of(settings))? })
    }

    /// The same under thresholds of its own.
    pub fn under(home: &Home, thresholds: Thresholds) -> Result<Self> {
        Ok(Self {
            path: home.root().to_owned(),
            thresholds,
            claims: Claims::open(home)?,
            claim: Mutex::new(None),
            estimate: AtomicU64::new(0),
            look_at: AtomicU64::new(0),
            collector: None,
            collects: true,
            keep: Vec::new(),
        })
    }

    /// Collects garbage through `collector` before refusing, unless the setting `auto_gc` forbids it; never the disk images
    /// of the digests in `keep`. A refusal, in mid-stream as well, says what it could free.
    #[must_use]
    pub fn collecting(mut self, collector: Arc<dyn Collector>, keep: Vec<String>) -> Self {
        self.collector = Some(collector);
        self.keep = keep;
        self
    }

    /// Asks for room for `estimate` bytes (allocated) before the first is written, and claims them.
    ///
    /// An estimate of 0 asks only whether the floor is kept. Free space that cannot be measured does not block.
    ///
    /// # Errors
    /// `ResourceExhausted` with need, have, path and, where known, what gc could free; nothing is claimed then.
    pub fn check_before(&self, estimate: u64) -> Result<()> {
        let claim = self.claims.take(estimate)?;
        self.admit(&claim, estimate)?;
        self.estimate.store(estimate, Ordering::Relaxed);
        self.look_at.store(STRIDE, Ordering::Relaxed);
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = Some(claim);
        Ok(())
    }

    /// Asks whether there is room for `estimate` bytes without claiming them: for work that others may share.
    ///
    /// # Errors
    /// As for [`SpaceGuard::check_before`].
    pub fn check_room(&self, estimate: u64) -> Result<()> {
        self.admit(&self.claims.take(0)?, estimate)
    }

    /// Refuses, after a collection if need be, unless `wanted` bytes fit above what others have claimed.
    fn admit(&self, claim: &Claim, wanted: u64) -> Result<()> {
        let refusal = self.refuse(claim.promised_before()?, wanted);
        let wanting = self.collects && refusal.is_err();
        let Some(collector) = self.collector.as_ref().filter(|_| wanting) else { return refusal };
        if let Err(error) = &refusal
            && self.is_hopeless(error, claim, wanted)
        {
            return refusal;
        }
        let missing = || self.missing(claim, wanted).unwrap_or_default();
        // The new measurement decides, not the figures that gc reports.
        let outlook = |reclaimable: Reclaimable| match self.missing(claim, wanted) {
            Ok(missing) if missing.bytes > reclaimable.bytes || missing.inodes > reclaimable.inodes => {
                Verdict::Reject
            }
            _ => Verdict::Ok,
        };
        let _ = collector.collect(&Goal { keep: &self.keep, missing: &missing, outlook: &outlook });
        self.refuse(claim.promised_before()?, wanted)
    }

    /// Whether even all that gc could free would not make room: then nothing should be evicted in vain.
    fn is_hopeless(&self, refusal: &Error, claim: &Claim, wanted: u64) -> bool {
        let Some(shortage) = refusal.shortage() else { return false };
        // Measured after that figure, because getting it may have waited for another caller's pass.
        let Ok(missing) = self.missing(claim, wanted) else { return false };
        let lacking = if shortage.inodes { missing.inodes } else { missing.bytes };
        shortage.reclaimable.is_some_and(|reclaimable| lacking > reclaimable)
    }

    /// Looks again when another 4 MiB have been written; `written` counts the operation's bytes so far.
    ///
    /// Returns the bytes that were written to the claim, because the filesystem counts them from now on.
    ///
    /// # Errors
    /// `ResourceExhausted` when the hard floor is crossed; the caller stops and removes everything it wrote.
    pub fn check_streaming(&self, written: u64) -> Result<()> {
        if written < self.look_at.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.look_at.store(written.saturating_add(STRIDE), Ordering::Relaxed);
        let mut held = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        let promised = match held.as_mut() {
            None => self.claims.promised()?,
            Some(claim) => {
                claim.shrink_to(self.estimate.load(Ordering::Relaxed).saturating_sub(written))?;
                claim.promised_before()?
            }
        };
        drop(held);
        self.refuse(promised, 0)
    }

    /// The home that is written to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The shortage that gc must remove so that the hard floor is kept after writing `wanted` bytes.
    fn missing(&self, claim: &Claim, wanted: u64) -> Result<Missing> {
        let need = self.thresholds.hard_floor.saturating_add(claim.promised_before()?).saturating_add(wanted);
        let space = crate::durable::free_space(&self.path)?;
        let inodes = if space.inodes_total == 0 { 0 } else { self.thresholds.inode_floor };
        let (bytes, inodes) = (need.saturating_sub(space.bytes), inodes.saturating_sub(space.inodes));
        Ok(Missing { bytes, inodes, share_only: false, critical: bytes > 0 || inodes > 0 })
    }

    fn refuse(&self, promised: u64, wanted: u64) -> Result<()> {
        let Ok(space) = crate::durable::free_space(&self.path) else { return Ok(()) };
        let collector = self.collector.as_deref();
        match shortage(&space, promised, wanted, &self.thresholds, &self.path, &|| {
            collector.and_then(|collector| collector.collectable(&self.keep))
        }) {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }
}
