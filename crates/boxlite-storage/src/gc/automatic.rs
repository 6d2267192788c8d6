//! Automatic gc: one pass shared by all who need it, and none while nothing has changed.
//!
//! # Locking
//!
//! An operation that finds space short waits for the `flock` on the claims file (free of its byte-range locks), so that
//! concurrent operations, in any process, run one pass between them. A pass that found too little is remembered
//! ([`PassMemory`]); until then it is repeated only after something was released or published.
//!
//! A pass that does not end, as one whose process was stopped, is waited for a minute. The operation is then decided on the
//! space that there is.
//!
//! # What is evicted
//!
//! Garbage is removed until the goal is reached. Layers come next whose disk image is built, if their registry confirms that it
//! still has them: the registry is asked first, and the plan is made with its answers. Disk images are a cache: they are evicted
//! least recently used first, and not at all where even the whole plan could not avert a refusal.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use boxlite_home::admission::{Collectable, Collected, Collector, Goal};
use boxlite_home::durable::Lock;
use boxlite_home::settings::{KeepBlobs, Settings};
use boxlite_home::{Home, durable};
use boxlite_types::gc::{Fate, Item, Skip};
use boxlite_types::{Doing, GcOptions, GcReport, Result, Verdict};

use super::bounds::Bounds;
use super::collect::carry_out;
use super::memory::{PassMemory, StoredState};
use super::metrics::GcMetrics;
use super::plan::GcPlan;
use super::rules::{GcScope, Rules};
use crate::catalog::{AskRegistries, Catalog};

/// How long another process's pass is waited for.
const PASS_TIMEOUT: Duration = Duration::from_secs(60);

/// How long it is waited for where only the figure in a message depends on it.
const FIGURE_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest time for which a fruitless pass is assumed to stay fruitless.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// Collects garbage in a home on behalf of starts, pulls and builds.
pub struct Automatic {
    home: Home,
    catalog: Arc<dyn Catalog>,
    settings: Settings,
    metrics: Arc<GcMetrics>,
    registries: Option<Arc<dyn AskRegistries>>,
    pass_timeout: Duration,
}

impl std::fmt::Debug for Automatic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Automatic").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Automatic {
    /// The collector of `home`.
    pub fn new(home: Home, catalog: Arc<dyn Catalog>, settings: Settings) -> Self {
        let metrics = Arc::default();
        Self { home, catalog, settings, metrics, registries: None, pass_timeout: PASS_TIMEOUT }
    }

    /// Waits for another process's pass for `limit` at most.
    #[cfg(test)]
    pub(super) fn waiting_for(self, limit: Duration) -> Self {
        Self { pass_timeout: limit, ..self }
    }

    /// Counts its passes in `metrics`.
    #[must_use]
    pub fn counting(self, metrics: Arc<GcMetrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Asks `registries` before it removes layers that they can give back; without it, none goes.
    #[must_use]
    pub fn asking(self, registries: Arc<dyn AskRegistries>) -> Self {
        Self { registries: Some(registries), ..self }
    }

    fn scope<'a>(&'a self, keep: &'a [String]) -> GcScope<'a> {
        let rules = Rules::new(&self.settings, &GcOptions::default(), keep);
        GcScope { home: &self.home, catalog: &*self.catalog, rules }
    }

    /// Plans and removes for `goal`; the second value says whether the result holds for other goals too.
    fn pass(&self, goal: &Goal<'_>, pressed: bool) -> (GcReport, bool) {
        let mut scope = self.scope(goal.keep);
        scope.rules.pressed = pressed;
        let began = Instant::now();
        let mut plan = GcPlan::make(&scope);
        let answered = if pressed { self.ask(&plan) } else { BTreeSet::new() };
        if !answered.is_empty() {
            scope.rules.answered = &answered;
            plan = GcPlan::make(&scope);
        }
        // While something is unreadable, every disk image stays anyway.
        let outlook = if plan.is_blind() { Verdict::Ok } else { (goal.outlook)(plan.reclaimable()) };
        let bounds = Bounds::of_goal(goal, outlook, &scope.rules);
        let report = carry_out(plan, bounds, &scope, false);
        self.metrics.count(&report, began.elapsed());
        // Disk images that a pass spared because nothing could help its own caller may well help another.
        let tells = !(outlook == Verdict::Reject && spared(&report));
        (report, tells)
    }
}

impl Automatic {
    /// The images of which a pass could free more, because their registry still has them.
    fn ask(&self, plan: &GcPlan) -> BTreeSet<String> {
        let Some(registries) = &self.registries else { return BTreeSet::new() };
        if self.settings.keep_blobs.value == KeepBlobs::Always || plan.is_blind() {
            return BTreeSet::new();
        }
        let questions = plan.questions(self.settings.disk_size.value.0);
        if questions.is_empty() { BTreeSet::new() } else { registries.having(&questions) }
    }
}

impl Collector for Automatic {
    fn collect(&self, goal: &Goal<'_>) -> Result<Collected> {
        let asked = SystemTime::now();
        let path = self.home.claims();
        durable::ensure_file(&path)?;
        let file = File::options().read(true).write(true).open(&path).doing("opening the claims", &path)?;
        let Some(turn) = Lock::exclusive_within(file, &path, self.pass_timeout)? else {
            let failure = "a gc that another process has begun does not end".to_owned();
            return Ok(Collected { failures: vec![failure], ..Collected::default() });
        };
        let file = turn.file();
        let missing = (goal.missing)();
        let memory = PassMemory::read(file, &path)?;
        if missing.is_nothing() || is_fruitless(memory, &self.home, asked, missing.critical)? {
            return Ok(Collected::default());
        }
        PassMemory::UnderWay.write(file);
        let (report, tells) = self.pass(goal, !missing.share_only);
        let memory = if !tells || (goal.missing)().is_nothing() {
            PassMemory::Unknown
        } else {
            let ended = SystemTime::now();
            let again = look_again(&report, ended, self.settings.grace.value);
            match StoredState::of(&self.home) {
                Ok(stored) => PassMemory::Fruitless { ended, again, stored, spared: spared(&report) },
                Err(_) => PassMemory::Unknown,
            }
        };
        // Something released meanwhile may have come too late for this pass, so its note stays.
        if PassMemory::read(file, &path).is_ok_and(|now| now == PassMemory::UnderWay) {
            memory.write(file);
        }
        let unreadable =
            report.unreadable.iter().map(|found| format!("{}: {}", found.path.display(), found.reason));
        let failed =
            report.failures.iter().map(|found| format!("{}: {}", found.path.display(), found.reason));
        let evicted = parts_of_images(&report).filter(|item| matches!(item.fate, Fate::Removed { .. }));
        let evicted: Vec<String> =
            evicted.map(|item| item.name.get(..12).unwrap_or(&item.name).to_owned()).collect();
        if !evicted.is_empty() {
            tracing::info!(?evicted, bytes = report.reclaimed, "automatic gc evicted disk images");
        }
        let failures = unreadable.chain(failed).collect();
        Ok(Collected { ran: true, bytes: report.reclaimed, evicted, failures })
    }

    fn collectable(&self, keep: &[String]) -> Option<Collectable> {
        // Items that a running pass has locked would count as in use.
        let (path, limit) = (self.home.claims(), self.pass_timeout.min(FIGURE_TIMEOUT));
        let _turn = File::open(&path).map(|file| Lock::exclusive_within(file, &path, limit));
        let plan = GcPlan::make(&self.scope(keep));
        let now = plan.reclaimable();
        let grown = plan.settled.iter().filter_map(|planned| {
            grown_at(&planned.item, self.settings.grace.value).filter(|_| planned.item.allocated > 0)
        });
        let more_at = grown.min();
        (!plan.has_trouble() || now.bytes > 0).then_some(Collectable { now, more_at })
    }
}

/// Whether the pass left disk images that one with a more urgent goal may evict.
fn spared(report: &GcReport) -> bool {
    parts_of_images(report).any(|item| matches!(item.fate, Fate::Skipped { why: Skip::Recent }))
}

/// Disk images and deltas.
fn parts_of_images(report: &GcReport) -> impl Iterator<Item = &Item> {
    report.disk_images.iter().chain(&report.deltas)
}

/// Whether the last pass found all there was, and nothing has changed since; `asked` is when this caller came.
fn is_fruitless(memory: PassMemory, home: &Home, asked: SystemTime, critical: bool) -> Result<bool> {
    let PassMemory::Fruitless { ended, again, stored, spared } = memory else { return Ok(false) };
    let now = SystemTime::now();
    // Stamps that no pass writes are not believed: a forged time in the future must not suppress gc.
    let is_forged = ended > now || again > ended + REPEAT_INTERVAL;
    if is_forged || again <= now || (spared && critical) {
        return Ok(false);
    }
    Ok(ended >= asked || stored == StoredState::of(home)?)
}

/// When another pass might find more than this one: at once where something was in use.
fn look_again(report: &GcReport, now: SystemTime, grace: Duration) -> SystemTime {
    // Unfinished files do not count: a long pull has one throughout.
    let stored = [&report.disk_images, &report.deltas, &report.bases, &report.box_directories, &report.blobs];
    if stored.into_iter().flatten().any(|item| matches!(item.fate, Fate::Skipped { why: Skip::InUse })) {
        return now;
    }
    let grown = report.items().filter_map(|item| grown_at(item, grace));
    grown.fold(now + REPEAT_INTERVAL, std::cmp::min)
}

/// When an item that is skipped for its age has outgrown the grace.
fn grown_at(item: &Item, grace: Duration) -> Option<SystemTime> {
    let Fate::Skipped { why: Skip::Grace } = item.fate else { return None };
    let modified = Duration::from_secs(u64::try_from(item.modified).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(modified)?.checked_add(grace)
}
