//! How much of a plan is carried out.

use boxlite_home::admission::Goal;
use boxlite_types::gc::Fate;
use boxlite_types::{GcOptions, GcReport, Verdict};

use super::rules::{A_DAY, Rules};

/// Ends a pass as soon as enough was removed.
pub(super) struct Bounds<'a> {
    goal: Option<&'a Goal<'a>>,
    /// The best verdict that the pass can bring about.
    outlook: Verdict,
    keep_storage: Option<u64>,
    /// Bytes that disk images, deltas, bases and blobs still allocate.
    stored: u64,
    /// Bytes that are to be freed; `None`: all that can be.
    free: Option<u64>,
    /// Bytes that were freed so far.
    freed: u64,
    grace: i64,
}

/// How much more is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RemovalTarget {
    pub(super) bytes: u64,
    pub(super) items: u64,
}

impl RemovalTarget {
    pub(super) const EVERYTHING: Self = Self { bytes: u64::MAX, items: 0 };

    /// How many of the candidates to take next: enough for what is wanted, at least one and at most `most`.
    pub(super) fn batch(self, allocated: impl Iterator<Item = u64>, most: usize) -> usize {
        let (mut bytes, mut items) = (0_u64, 0);
        for size in allocated.take(most) {
            if bytes >= self.bytes && items >= self.items {
                break;
            }
            bytes = bytes.saturating_add(size);
            items += 1;
        }
        (items as usize).max(1)
    }
}

impl<'a> Bounds<'a> {
    /// The bounds that a user sets; `stored` as [`GcPlan::stored_bytes`](super::plan::GcPlan::stored_bytes) says.
    pub(super) fn of_options(options: &GcOptions, stored: u64) -> Self {
        let keep_storage = options.keep_storage;
        let free = options.free;
        Self { goal: None, outlook: Verdict::Ok, keep_storage, stored, free, freed: 0, grace: 0 }
    }

    /// The bounds of a pass for `goal`, where `outlook` is the best verdict that it can bring about.
    pub(super) fn of_goal(goal: &'a Goal<'a>, outlook: Verdict, rules: &Rules<'_>) -> Self {
        let grace = rules.grace;
        Self { goal: Some(goal), outlook, keep_storage: None, stored: 0, free: None, freed: 0, grace }
    }

    /// Counts what a step removed.
    pub(super) fn count(&mut self, step: &GcReport) {
        self.freed += step.removed().map(|item| item.allocated).sum::<u64>();
        let stored = [&step.disk_images, &step.deltas, &step.bases, &step.blobs].into_iter().flatten();
        for item in stored.filter(|item| matches!(item.fate, Fate::Removed { .. })) {
            self.stored = self.stored.saturating_sub(item.allocated);
        }
    }

    /// Whether as much was freed as was asked for: then nothing more is removed, not even useless garbage.
    pub(super) fn goal_is_reached(&self) -> bool {
        self.free.is_some_and(|free| self.freed >= free)
            || self.goal.is_some_and(|goal| (goal.missing)().is_nothing())
    }

    /// How much more is to be removed of what is removed least recently used first; `None`: enough.
    pub(super) fn wanted(&self) -> Option<RemovalTarget> {
        let mut wanted = RemovalTarget::EVERYTHING;
        if let Some(goal) = self.goal {
            let missing = (goal.missing)();
            if missing.is_nothing() {
                return None;
            }
            wanted = RemovalTarget { bytes: missing.bytes, items: missing.inodes };
        }
        if let Some(free) = self.free {
            let lacking = free.saturating_sub(self.freed);
            if lacking == 0 {
                return None;
            }
            wanted.bytes = wanted.bytes.min(lacking);
        }
        if let Some(keep) = self.keep_storage {
            let excess = self.stored.saturating_sub(keep);
            if excess == 0 {
                return None;
            }
            wanted.bytes = wanted.bytes.min(excess);
        }
        Some(wanted)
    }

    /// Returns the time, in nanoseconds, within which a used disk image is not evicted for the sake of the goal.
    ///
    /// That is all time where even evicting everything could not avert a refusal, a day where only the free share is
    /// small, and the grace where the start is admitted anyway and no eviction makes its verdict better.
    pub(super) fn spares_used_within(&self) -> i64 {
        let Some(goal) = self.goal else { return 0 };
        let missing = (goal.missing)();
        match self.outlook {
            Verdict::Reject => i64::MAX,
            _ if missing.share_only => A_DAY,
            Verdict::Warn if !missing.critical => self.grace,
            Verdict::Ok | Verdict::Warn => 0,
        }
    }
}
