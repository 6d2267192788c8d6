//! The removal of what was confirmed.
//!
//! # Crash safety
//!
//! Each item is renamed out of sight under its lock, the lock is released, and only then comes the slow unlink, so that
//! nobody waits for it. Items that stand on others are renamed first: no crash leaves an overlay, a base or a delta without
//! what it stands on. The next pass removes what a crash left in the staging directory.
//!
//! A pass writes nothing but its removals, so it works with 0 bytes and 0 inodes free. On a disk too full for another
//! name in the staging directory, what is there already makes room; failing that, a file is unlinked where it is.

use std::path::Path;
use std::time::{Duration, SystemTime};

use boxlite_home::durable::{self, FileId, Lock, Trash};
use boxlite_types::gc::{Fate, Holder, HolderKind, Skip};
use boxlite_types::{Error, ErrorKind, GcReport, Result};

use super::category::Category;
use super::confirm::{Confirmed, ConfirmedItem, SecondLook, confirm_blob};
use super::plan::{Planned, failed, skipped};
use super::rules::GcScope;
use crate::catalog::IntentKind;
use crate::image;

impl Confirmed {
    /// Removes everything that was confirmed, and reports the step.
    pub(super) fn sweep(mut self, scope: &GcScope<'_>) -> GcReport {
        let items = std::mem::take(&mut self.items);
        let mut sweep = StepSweep { scope, dry_run: self.dry_run, report: self.report };
        let (chained, others): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| {
            matches!(item.planned.category, Category::Base | Category::Delta | Category::DiskImage)
        });
        for ConfirmedItem { planned, locks, .. } in others {
            sweep.remove(planned, locks);
        }
        sweep.remove_files(chained);
        sweep.report
    }
}

/// One step's removals under way.
struct StepSweep<'a> {
    scope: &'a GcScope<'a>,
    dry_run: bool,
    report: GcReport,
}

/// Items that were renamed out of sight.
type Discarded = Vec<(Planned, Trash)>;

impl StepSweep<'_> {
    fn remove(&mut self, mut planned: Planned, locks: Vec<Lock>) {
        let blobs = std::mem::take(&mut planned.blobs);
        let removed =
            if self.dry_run { Ok(Some(planned.item.fate.clone())) } else { self.remove_one(&planned, locks) };
        let is_removed = matches!(removed, Ok(Some(Fate::Removed { .. })));
        match removed {
            Ok(Some(fate)) => self.report(planned, fate),
            Ok(None) => {}
            Err(error) => self.fail(planned, error),
        }
        for blob in blobs.into_iter().filter(|_| is_removed) {
            self.remove_blob_of_image(blob);
        }
    }

    /// The fate of an item that was to be removed; `None` when another process was faster.
    fn remove_one(&mut self, planned: &Planned, locks: Vec<Lock>) -> Result<Option<Fate>> {
        let (path, tmp) = (&planned.item.path, self.scope.home.tmp());
        let removed = Some(planned.item.fate.clone());
        match planned.category {
            Category::Unfinished if path.is_dir() => {
                if !durable::sweep_staged_dir(path, false)? {
                    return Ok(path.exists().then(|| skipped(Skip::InUse)));
                }
            }
            Category::Unfinished => {
                if durable::sweep_staged(path, false)?.is_none() {
                    return Ok(path.exists().then(|| skipped(Skip::InUse)));
                }
            }
            Category::Blob | Category::Layer => {
                locks.into_iter().try_for_each(|lock| image::remove_blob(lock, &tmp))?;
            }
            Category::BootFile => locks.into_iter().try_for_each(|lock| discard_boot_file(lock, &tmp))?,
            Category::BoxDirectory => {
                durable::discard_dir(path, &tmp)?;
                self.drop_intent(IntentKind::Box, planned);
            }
            Category::Volume => {
                durable::discard_dir(path, &tmp)?;
                self.drop_intent(IntentKind::Volume, planned);
            }
            Category::CatalogEntry => return self.forget(planned),
            Category::Base | Category::Delta | Category::DiskImage => {}
        }
        Ok(removed)
    }

    /// Drops the intent for what is gone. One that stays, on a full disk say, names nothing any more.
    fn drop_intent(&self, kind: IntentKind, planned: &Planned) {
        let subject = match kind {
            IntentKind::Volume => planned.digest.as_deref().unwrap_or_default(),
            IntentKind::Box | IntentKind::Base => &planned.item.name,
        };
        if let Err(error) = self.scope.catalog.drop_intent(kind, subject) {
            tracing::debug!(error = %error.chain(), "an intent for what is gone stays");
        }
    }

    /// Takes an image out of the catalogue.
    fn forget(&self, planned: &Planned) -> Result<Option<Fate>> {
        let rules = &self.scope.rules;
        let idle_since = Duration::from_nanos(rules.now.saturating_sub(rules.grace).max(0) as u64);
        let digest = planned.digest.as_deref().unwrap_or_default();
        let forgotten = self.scope.catalog.forget_image(digest, SystemTime::UNIX_EPOCH + idle_since)?;
        Ok(Some(if forgotten { planned.item.fate.clone() } else { skipped(Skip::InUse) }))
    }

    /// Removes a blob that only a forgotten image referred to.
    fn remove_blob_of_image(&mut self, blob: Planned) {
        if self.dry_run || !blob.is_candidate() {
            let fate = blob.item.fate.clone();
            return self.report(blob, fate);
        }
        match confirm_blob(&blob, self.scope) {
            Ok(SecondLook::Agrees(locks)) => self.remove(blob, locks),
            Ok(SecondLook::Skips(why)) => self.report(blob, skipped(why)),
            Ok(SecondLook::Gone) => {}
            Err(error) => self.fail(blob, error),
        }
    }

    /// Removes bases, or deltas and disk images.
    fn remove_files(&mut self, mut items: Vec<ConfirmedItem>) {
        items.sort_by_key(|item| std::cmp::Reverse(item.below.len()));
        let mut trash = Discarded::new();
        let mut spared: Vec<(FileId, Holder)> = Vec::new();
        for ConfirmedItem { planned, locks, below } in items {
            if let Some((_, holder)) = spared.iter().find(|(id, _)| Some(*id) == planned.id) {
                let fate = Fate::Kept { by: vec![holder.clone()], holders: 1 };
                self.report(planned, fate);
                continue;
            }
            if self.dry_run {
                let fate = planned.item.fate.clone();
                self.report(planned, fate);
                continue;
            }
            let discarded = locks.iter().map(|lock| self.discard(lock, &mut trash)).next();
            match discarded {
                Some(Ok(Some(discarded))) => trash.push((planned, discarded)),
                Some(Ok(None)) | None => self.report(planned, skipped(Skip::InUse)),
                Some(Err(error)) => {
                    let is_delta = planned.category == Category::Delta;
                    let kind = if is_delta { HolderKind::Delta } else { HolderKind::Base };
                    let holder = Holder { name: planned.item.name.clone(), kind };
                    spared.extend(below.into_iter().map(|id| (id, holder.clone())));
                    self.fail(planned, error);
                }
            }
        }
        self.delete(&mut trash);
    }

    /// Renames what is locked out of sight, making room for its name if need be.
    fn discard(&mut self, lock: &Lock, trash: &mut Discarded) -> Result<Option<Trash>> {
        let tmp = self.scope.home.tmp();
        let is_full = |error: &Error| error.kind() == ErrorKind::ResourceExhausted;
        match durable::discard_locked(lock, &tmp) {
            Err(error) if is_full(&error) => self.delete(trash),
            other => return other,
        }
        match durable::discard_locked(lock, &tmp) {
            Err(error) if is_full(&error) => durable::unlink_locked(lock),
            other => other,
        }
    }

    fn delete(&mut self, trash: &mut Discarded) {
        let mut deleted: Vec<Option<Planned>> = Vec::new();
        let tagged: Vec<_> = trash
            .drain(..)
            .enumerate()
            .map(|(at, (planned, discarded))| {
                deleted.push(Some(planned));
                (at, discarded)
            })
            .collect();
        for (at, error) in durable::delete_all(tagged) {
            if let Some(planned) = deleted[at].take() {
                self.fail(planned, error);
            }
        }
        for planned in deleted.into_iter().flatten() {
            if planned.category == Category::Base {
                self.drop_intent(IntentKind::Base, &planned);
            }
            let fate = planned.item.fate.clone();
            self.report(planned, fate);
        }
    }

    fn report(&mut self, planned: Planned, fate: Fate) {
        planned.category.list(&mut self.report).push(planned.with(fate).item);
    }

    fn fail(&mut self, planned: Planned, reason: impl std::fmt::Display) {
        let fate = failed(&mut self.report.failures, &planned.item.path, reason);
        self.report(planned, fate);
    }
}

fn discard_boot_file(lock: Lock, tmp: &Path) -> Result<()> {
    let trash = match durable::discard_locked(&lock, tmp) {
        Err(error) if error.kind() == ErrorKind::ResourceExhausted => durable::unlink_locked(&lock),
        other => other,
    };
    lock.release();
    trash?.map_or(Ok(()), Trash::delete)
}
