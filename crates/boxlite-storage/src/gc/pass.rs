//! One pass, from the first look to the report.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use boxlite_home::Home;
use boxlite_home::admission::Goal;
use boxlite_home::settings::Settings;
use boxlite_types::gc::{Failure, Fate, Holder, HolderKind, Item, Skip, Unreadable};
use boxlite_types::{GcOptions, GcReport, Result, Verdict};

use super::catalog::Catalog;
use super::census::Census;
use super::mark::{Holders, Released};
use super::plan::{Rules, Wanted, nanoseconds};
use super::{blobs, boot_files, stage, unfinished};

/// Collects garbage in `home`; see the module's description.
///
/// Blocks: milliseconds per thousand boxes, plus what the unlinks take. Takes no lock that a start waits for,
/// except on files that it is about to remove. Several passes may run at once.
///
/// # Errors
/// None of what could not be read or removed: the report lists that, and [`GcReport::failed`] says so.
pub fn collect(
    home: &Home,
    catalog: &Arc<dyn Catalog>,
    settings: &Settings,
    options: &GcOptions,
) -> Result<GcReport> {
    Ok(Pass::new(home, &**catalog, settings, options, None).run())
}

/// In nanoseconds.
pub(super) const A_DAY: i64 = 86_400 * 1_000_000_000;

/// A pass under way.
pub(super) struct Pass<'a> {
    pub(super) home: &'a Home,
    pub(super) catalog: &'a dyn Catalog,
    pub(super) options: &'a GcOptions,
    pub(super) goal: Option<&'a Goal<'a>>,
    pub(super) rules: Rules<'a>,
    /// The best that this pass can bring about.
    pub(super) outlook: Verdict,
    pub(super) released: Released,
    pub(super) report: GcReport,
    /// Bytes that disk images, bases and blobs still allocate; kept up to date only for `keep_storage`.
    pub(super) stored: u64,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        home: &'a Home,
        catalog: &'a dyn Catalog,
        settings: &Settings,
        options: &'a GcOptions,
        goal: Option<&'a Goal<'a>>,
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let rules = Rules {
            now: nanoseconds(now),
            grace: nanoseconds(settings.grace.value),
            until: options.until.map(nanoseconds),
            keep: goal.map_or(&[], |goal| goal.keep),
            blind: false,
        };
        let report = GcReport { dry_run: options.dry_run, ..GcReport::default() };
        let (outlook, released) = (Verdict::Ok, Released::default());
        Self { home, catalog, options, goal, rules, outlook, released, report, stored: 0 }
    }

    /// Runs all stages, cheapest garbage first.
    pub(super) fn run(mut self) -> GcReport {
        self.report.free_before = boxlite_home::durable::free_space(self.home.root()).ok();
        unfinished::sweep(&mut self);
        blobs::sweep_unreferenced(&mut self);
        boot_files::sweep(&mut self);
        let census = Census::take(self.home, self.catalog);
        self.note_unreadable(&census);
        self.stored = self.stored_bytes(&census);
        stage::box_directories(&mut self, &census);
        stage::bases(&mut self, &census);
        stage::disk_images(&mut self, &census);
        drop(census);
        if self.options.all {
            blobs::forget_unused(&mut self);
        }
        self.finish()
    }

    fn finish(mut self) -> GcReport {
        let before = self.report.free_before;
        if !self.report.dry_run {
            self.report.free_after = boxlite_home::durable::free_space(self.home.root()).ok();
            self.report.free_space_change = before
                .zip(self.report.free_after)
                .map(|(before, after)| after.bytes.cast_signed().wrapping_sub(before.bytes.cast_signed()));
        }
        self.report.partial |= before.is_none();
        let removed = |item: &&Item| matches!(item.fate, Fate::Removed { .. });
        self.report.reclaimed = self.report.items().filter(removed).map(|item| item.allocated).sum();
        self.report
    }

    fn stored_bytes(&mut self, census: &Census) -> u64 {
        if self.options.keep_storage.is_none() {
            return 0;
        }
        let kept_blobs = blobs::allocated(self);
        // In a dry run those that would be gone by now are still there.
        let blobs = self.report.blobs.iter().filter(|_| self.report.dry_run);
        let gone = blobs.filter(|item| matches!(item.fate, Fate::Removed { .. }));
        let kept_blobs = gone.fold(kept_blobs, |bytes, item| bytes.saturating_sub(item.allocated));
        let stored = census.images.iter().chain(&census.bases).map(|item| item.allocated);
        stored.fold(kept_blobs, u64::saturating_add)
    }

    /// From now on nothing is removed that could be reached through what was unreadable.
    pub(super) fn note_unreadable(&mut self, census: &Census) {
        for trouble in &census.unreadable {
            if !self.report.unreadable.contains(trouble) {
                self.report.unreadable.push(trouble.clone());
            }
        }
        self.rules.blind |= !census.unreadable.is_empty();
    }

    pub(super) fn unreadable(&mut self, path: &Path, reason: impl std::fmt::Display) {
        self.report.unreadable.push(Unreadable { path: path.to_owned(), reason: reason.to_string() });
    }

    /// Records a failed removal and returns its fate.
    pub(super) fn failed(&mut self, path: &Path, reason: impl std::fmt::Display) -> Fate {
        let reason = reason.to_string();
        self.report.failures.push(Failure { path: path.to_owned(), reason: reason.clone() });
        Fate::Failed { reason }
    }

    /// How much more is to be removed of what goes least recently used first; `None`: enough.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let mut wanted = Wanted { bytes: u64::MAX, items: 0 };
        if let Some(goal) = self.goal {
            let missing = (goal.missing)();
            if missing.is_nothing() {
                return None;
            }
            wanted = Wanted { bytes: missing.bytes, items: missing.inodes };
        }
        if let Some(keep) = self.options.keep_storage {
            let excess = self.stored.saturating_sub(keep);
            if excess == 0 {
                return None;
            }
            wanted = Wanted { bytes: wanted.bytes.min(excess), items: wanted.items };
        }
        Some(wanted)
    }

    /// Disk images that were used within so many nanoseconds are not to be evicted for the sake of the goal.
    ///
    /// All of them where even that could not avert a refusal; a day's where only the free share is small; those in
    /// play where the start is admitted as it is and no eviction makes its verdict better.
    pub(super) fn spares_used_within(&self) -> i64 {
        let Some(goal) = self.goal else { return 0 };
        let missing = (goal.missing)();
        match self.outlook {
            Verdict::Reject => i64::MAX,
            _ if missing.share_only => A_DAY,
            Verdict::Warn if !missing.critical => self.rules.grace,
            Verdict::Ok | Verdict::Warn => 0,
        }
    }

    /// Whether an automatic pass has reached its goal.
    pub(super) fn reached_goal(&self) -> bool {
        self.goal.is_some_and(|goal| (goal.missing)().is_nothing())
    }
}

/// The fate of something needed.
pub(super) fn kept(census: &Census, holders: &Holders) -> Fate {
    let name = |(index, kind): &(u32, HolderKind)| Holder {
        name: match kind {
            HolderKind::Base => census.bases[*index as usize].name.to_string(),
            HolderKind::Record | HolderKind::Chain => census.boxes[*index as usize].id.to_string(),
        },
        kind: *kind,
    };
    Fate::Kept { by: holders.first.iter().map(name).collect(), holders: holders.total }
}

pub(super) fn skipped(why: Skip) -> Fate {
    Fate::Skipped { why }
}

pub(super) fn removed(reason: &str) -> Fate {
    Fate::Removed { reason: reason.to_owned() }
}
