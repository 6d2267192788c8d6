//! The second look: candidates of a plan are locked, and a plan made with those locks held must still remove them.
//!
//! # Locking
//!
//! Each candidate is locked exclusively and without waiting; a start that leases it first wins. With the locks held a
//! new census is taken, marked and planned. A start leases a file before it relies on it and checks afterwards that
//! the path still names it (`boxlite_home::lease`), so either this look finds the lease or the overlay, or the start
//! finds the file gone and makes it anew.
//!
//! Each locked candidate is an open file, and automatic gc stops as soon as there is enough, so a plan is confirmed in
//! steps. A dry run takes the same steps, believes the plan, and locks nothing.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use boxlite_home::durable::{FileId, Lock, fault};
use boxlite_types::gc::{Fate, Skip};
use boxlite_types::{Doing, GcReport, Result};

use super::attempt::LockAttempt;
use super::bounds::{Bounds, RemovalTarget};
use super::category::Category;
use super::census::{Census, boot_file_times};
use super::marks::Marks;
use super::plan::{GcPlan, HeldSet, PlanLook, Planned, boot_file_in_use, failed, skipped};
use super::rules::GcScope;
use crate::catalog::{IntentKind, LayerUser};
use crate::disk::image_chain;
use crate::image;
use crate::volume;

/// Fewest and most candidates that are locked at a time; each is an open file, and each step marks everything anew.
const LOCKED_AT_ONCE: std::ops::RangeInclusive<u64> = 256..=8192;

/// Candidates of one kind that may be removed now.
pub(super) struct Confirmed {
    pub(super) dry_run: bool,
    pub(super) items: Vec<ConfirmedItem>,
    /// Items that the step has settled so far.
    pub(super) report: GcReport,
    /// Something could not be read that might pin anything.
    pub(super) blind: bool,
}

/// A candidate whose locks are held until it is out of sight.
pub(super) struct ConfirmedItem {
    pub(super) planned: Planned,
    /// None in a dry run, and for what protects itself otherwise.
    pub(super) locks: Vec<Lock>,
    /// The files that it stands on, nearest first.
    pub(super) below: Vec<FileId>,
}

impl GcPlan {
    /// Takes the next step of the plan: the candidates that the second look agrees to remove. `None` when it is done.
    pub(super) fn confirm(&mut self, bounds: &Bounds<'_>, scope: &GcScope<'_>) -> Option<Confirmed> {
        let step = self.next_step(bounds)?;
        let confirmed = match step.category {
            _ if step.candidates.is_empty() => step.unlocked(false),
            Category::Base | Category::Delta | Category::DiskImage => step.confirm_files(scope),
            Category::BoxDirectory => step.confirm_boxes(scope),
            Category::Blob => step.confirm_each(|planned| confirm_blob(planned, scope)),
            Category::Layer => step.confirm_each(|planned| confirm_layer(planned, scope)),
            Category::BootFile => step.confirm_each(|planned| confirm_boot_file(planned, scope)),
            Category::Volume => step.confirm_each(|planned| confirm_volume(planned, scope)),
            Category::Unfinished | Category::CatalogEntry => step.unlocked(false),
        };
        if confirmed.blind {
            self.give_up_chains();
        }
        Some(confirmed)
    }

    /// Takes the next step of a dry run: what [`GcPlan::confirm`] would agree to, as far as can be told without locks.
    pub(super) fn assume(&mut self, bounds: &Bounds<'_>) -> Option<Confirmed> {
        Some(self.next_step(bounds)?.unlocked(true))
    }

    /// The candidates that come next, and those of their kind that stay because there is enough.
    fn next_step(&mut self, bounds: &Bounds<'_>) -> Option<PlanStep> {
        let category = self.candidates.first()?.category.step();
        let same = self.candidates.partition_point(|planned| planned.category.step() == category);
        let wanted = if category.is_cache() {
            bounds.wanted()
        } else {
            (!bounds.goal_is_reached()).then_some(RemovalTarget::EVERYTHING)
        };
        let Some(wanted) = wanted else { return Some(self.skip(category, same, Skip::Enough)) };
        let mut eligible = same;
        if matches!(category, Category::Layer | Category::DiskImage) {
            let (spared, now) = (bounds.spares_used_within(), self.now);
            // A layer costs nothing as long as its registry is there: it is spared only where nothing can help.
            let spared = if category == Category::Layer && spared < i64::MAX { 0 } else { spared };
            let is_idle = |planned: &Planned| now.saturating_sub(planned.used).max(0) >= spared;
            eligible = self.candidates[..same].partition_point(is_idle);
        }
        if eligible == 0 {
            return Some(self.skip(category, same, Skip::Recent));
        }
        let most = match category {
            Category::Base | Category::DiskImage => at_once(),
            _ => 1,
        };
        let sizes = self.candidates[..eligible].iter().map(|planned| planned.item.allocated);
        let take = wanted.batch(sizes, most);
        let candidates = self.candidates.drain(..take).collect();
        Some(PlanStep { category, candidates, report: GcReport::default() })
    }

    fn skip(&mut self, category: Category, count: usize, why: Skip) -> PlanStep {
        let mut report = GcReport::default();
        for planned in self.candidates.drain(..count) {
            planned.category.list(&mut report).push(planned.with(skipped(why)).item);
        }
        PlanStep { category, candidates: Vec::new(), report }
    }
}

/// How many candidates to take at a time: half of the files that this process may open.
fn at_once() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    (limit / 2).clamp(*LOCKED_AT_ONCE.start(), *LOCKED_AT_ONCE.end()) as usize
}

/// Part of a plan: candidates of one kind.
struct PlanStep {
    category: Category,
    candidates: Vec<Planned>,
    report: GcReport,
}

impl PlanStep {
    /// Believes the plan; what is removed in this way protects itself.
    fn unlocked(self, dry_run: bool) -> Confirmed {
        let item = |planned| ConfirmedItem { planned, locks: Vec::new(), below: Vec::new() };
        let items = self.candidates.into_iter().map(item).collect();
        Confirmed { dry_run, items, report: self.report, blind: false }
    }

    fn settle(&mut self, planned: Planned, fate: Fate) {
        planned.category.list(&mut self.report).push(planned.with(fate).item);
    }

    fn fail(&mut self, planned: Planned, reason: impl std::fmt::Display) {
        let fate = failed(&mut self.report.failures, &planned.item.path, reason);
        self.settle(planned, fate);
    }

    /// Locks each candidate by `look`, which also says whether it may still be removed.
    fn confirm_each(mut self, look: impl Fn(&Planned) -> Result<SecondLook>) -> Confirmed {
        let mut items = Vec::new();
        for planned in std::mem::take(&mut self.candidates) {
            match look(&planned) {
                Ok(SecondLook::Agrees(locks)) => {
                    items.push(ConfirmedItem { planned, locks, below: Vec::new() });
                }
                Ok(SecondLook::Skips(why)) => self.settle(planned, skipped(why)),
                Ok(SecondLook::Gone) => {}
                Err(error) => self.fail(planned, error),
            }
        }
        Confirmed { dry_run: false, items, report: self.report, blind: false }
    }

    fn confirm_files(mut self, scope: &GcScope<'_>) -> Confirmed {
        let root = scope.home.root();
        if let Err(error) = fault::point("gc.planned").doing("collecting in", root) {
            return self.give_up(&error);
        }
        let mut locked: HashMap<FileId, (Planned, Lock)> = HashMap::new();
        for planned in std::mem::take(&mut self.candidates) {
            let attempt = LockAttempt::on(&planned.item.path, false).and_then(|attempt| {
                let LockAttempt::Locked(lock) = attempt else { return Ok((attempt, None)) };
                let found = lock.file().metadata().doing("examining", lock.path())?;
                Ok((LockAttempt::Locked(lock), Some(FileId::of(&found))))
            });
            match attempt {
                Ok((LockAttempt::Locked(lock), Some(id))) => drop(locked.insert(id, (planned, lock))),
                Ok((LockAttempt::Busy, _)) => self.settle(planned, skipped(Skip::InUse)),
                Ok(_) => {}
                Err(error) => self.fail(planned, error),
            }
        }
        if locked.is_empty() {
            return self.unlocked(false);
        }
        if let Err(error) = fault::point("gc.locked").doing("collecting in", root) {
            self.candidates = locked.into_values().map(|(planned, _)| planned).collect();
            return self.give_up(&error);
        }
        let held = HeldSet { files: locked.keys().copied().collect(), ..HeldSet::default() };
        let second = second_look(scope, &held);
        if let Err(error) = fault::point("gc.marked").doing("collecting in", root) {
            self.candidates = locked.into_values().map(|(planned, _)| planned).collect();
            return self.give_up(&error);
        }
        let agreed: HashSet<FileId> = second.candidates.iter().filter_map(|planned| planned.id).collect();
        let mut items = Vec::new();
        for file in &second.census.files {
            if agreed.contains(&file.id)
                && let Some((planned, lock)) = locked.remove(&file.id)
            {
                let below = second.census.chains.below(file.backing).0;
                items.push(ConfirmedItem { planned, locks: vec![lock], below });
            }
        }
        // A file that is not there any more was removed by another process, unless it only cannot be seen.
        let mut fates: HashMap<FileId, Fate> = HashMap::new();
        for found in &second.settled {
            fates.extend(found.id.map(|id| (id, found.item.fate.clone())));
        }
        for (id, (planned, _)) in locked {
            match fates.remove(&id) {
                Some(fate) => self.settle(planned, fate),
                None if second.is_blind() => self.settle(planned, skipped(Skip::Unknown)),
                None => {}
            }
        }
        self.report.unreadable.clone_from(&second.unreadable);
        Confirmed { dry_run: false, items, report: self.report, blind: second.is_blind() }
    }

    fn confirm_boxes(mut self, scope: &GcScope<'_>) -> Confirmed {
        let (mut items, mut blind) = (Vec::new(), false);
        for planned in std::mem::take(&mut self.candidates) {
            let locks = match lock_box(&planned, scope) {
                Ok(Some(locks)) => locks,
                Ok(None) => {
                    self.settle(planned, skipped(Skip::InUse));
                    continue;
                }
                Err(error) => {
                    self.fail(planned, error);
                    continue;
                }
            };
            let held = HeldSet { boxes: [planned.item.name.clone()].into(), ..HeldSet::default() };
            let second = second_look(scope, &held);
            blind |= second.is_blind();
            self.report.unreadable.extend(second.unreadable.iter().cloned());
            let is_it = |other: &&Planned| {
                other.category == Category::BoxDirectory && other.item.name == planned.item.name
            };
            if second.candidates.iter().any(|other| is_it(&other)) {
                match scope.catalog.has_box(&planned.item.name) {
                    Ok(false) => items.push(ConfirmedItem { planned, locks, below: Vec::new() }),
                    Ok(true) => self.settle(planned, skipped(Skip::InUse)),
                    Err(error) => self.fail(planned, error),
                }
            } else if let Some(other) = second.settled.iter().find(is_it) {
                self.settle(planned, other.item.fate.clone());
            } else if planned.item.path.exists() {
                // It has got a record meanwhile.
                self.settle(planned, skipped(Skip::InUse));
            }
        }
        Confirmed { dry_run: false, items, report: self.report, blind }
    }

    fn give_up(mut self, error: &boxlite_types::Error) -> Confirmed {
        for planned in std::mem::take(&mut self.candidates) {
            self.fail(planned, error);
        }
        self.unlocked(false)
    }
}

fn second_look(scope: &GcScope<'_>, held: &HeldSet) -> GcPlan {
    let marks = Marks::of(Census::of_chains(scope.home, scope.catalog));
    GcPlan::of(marks, scope, &PlanLook::UnderLocks(held))
}

/// `None` when one of the box's locks is held.
fn lock_box(planned: &Planned, scope: &GcScope<'_>) -> Result<Option<Vec<Lock>>> {
    let paths = scope.home.of_box(&planned.item.name);
    let mut locks = Vec::new();
    for path in [paths.state_lock(), paths.shim_lock()] {
        match LockAttempt::on(&path, true)? {
            LockAttempt::Locked(lock) => locks.push(lock),
            LockAttempt::Busy => return Ok(None),
            LockAttempt::Gone => {}
        }
    }
    Ok(Some(locks))
}

/// The verdict of the second look at one candidate.
pub(super) enum SecondLook {
    Agrees(Vec<Lock>),
    Skips(Skip),
    Gone,
}

/// Asks the catalogue again with the blob's lock held: a pull leases every blob it relies on until its image is
/// recorded.
pub(super) fn confirm_blob(planned: &Planned, scope: &GcScope<'_>) -> Result<SecondLook> {
    let path = &planned.item.path;
    look_locked(path, |lock| {
        let found = lock.file().metadata().doing("examining", path)?;
        if scope.rules.is_young(boot_file_times(&found).0) {
            return Ok(SecondLook::Skips(Skip::Grace));
        }
        let is_referenced = scope.catalog.blob_is_referenced(&planned.item.name)?;
        Ok(if is_referenced { SecondLook::Gone } else { SecondLook::Agrees(vec![lock]) })
    })
}

/// Looks with the volume's locks held whether it is still the one that the intent names. No box mounts it: the intent was
/// written when none did, and none is made of a volume that has one.
fn confirm_volume(planned: &Planned, scope: &GcScope<'_>) -> Result<SecondLook> {
    let (name, mut locks) = (&planned.item.name, Vec::new());
    for part in [planned.item.path.clone(), scope.home.of_volume(name).disk()] {
        match LockAttempt::on(&part, false)? {
            LockAttempt::Locked(lock) => locks.push(lock),
            LockAttempt::Busy => return Ok(SecondLook::Skips(Skip::InUse)),
            LockAttempt::Gone => {}
        }
    }
    if planned.digest != volume::read(scope.home, name).ok().map(|found| found.id) {
        return Ok(SecondLook::Gone);
    }
    let mut is_intended = false;
    scope.catalog.intents(&mut |intent| {
        is_intended |= intent.kind == IntentKind::Volume && planned.digest.as_deref() == Some(intent.id);
    })?;
    Ok(if is_intended { SecondLook::Agrees(locks) } else { SecondLook::Skips(Skip::Unexplained) })
}

/// Asks again with the layer's lock held whether every image that has it has a disk image, which is leased meanwhile.
fn confirm_layer(planned: &Planned, scope: &GcScope<'_>) -> Result<SecondLook> {
    let path = &planned.item.path;
    look_locked(path, |lock| {
        let found = lock.file().metadata().doing("examining", path)?;
        if scope.rules.is_young(boot_file_times(&found).0) {
            return Ok(SecondLook::Skips(Skip::Grace));
        }
        let users = scope.catalog.layer_users(&planned.item.name)?;
        let is_built = |user: &LayerUser| -> Result<bool> {
            let digest = image::disk_digest(&user.diff_ids, scope.rules.disk_size);
            Ok(user.of_registry && image_chain::lease(scope.home, &digest)?.is_some())
        };
        let Some(users) = users.filter(|users| !users.is_empty()) else {
            return Ok(SecondLook::Skips(Skip::InUse));
        };
        for user in &users {
            if !is_built(user)? {
                return Ok(SecondLook::Skips(Skip::InUse));
            }
        }
        Ok(SecondLook::Agrees(vec![lock]))
    })
}

/// Looks at the times again: no start and no shim has leased the file, but one may just have used it.
fn confirm_boot_file(planned: &Planned, scope: &GcScope<'_>) -> Result<SecondLook> {
    let path = &planned.item.path;
    look_locked(path, |lock| {
        let (modified, used) = boot_file_times(&lock.file().metadata().doing("examining", path)?);
        let pressed = scope.rules.pressed && planned.is_template();
        let in_use = boot_file_in_use(&scope.rules, pressed, modified, used);
        Ok(if in_use.is_some() { SecondLook::Skips(Skip::Recent) } else { SecondLook::Agrees(vec![lock]) })
    })
}

fn look_locked(path: &Path, look: impl FnOnce(Lock) -> Result<SecondLook>) -> Result<SecondLook> {
    match LockAttempt::on(path, false)? {
        LockAttempt::Locked(lock) => look(lock),
        LockAttempt::Busy => Ok(SecondLook::Skips(Skip::InUse)),
        LockAttempt::Gone => Ok(SecondLook::Gone),
    }
}
