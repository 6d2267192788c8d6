//! Automatic gc: one pass shared by all who need it, and none while nothing has changed.
//!
//! Whoever finds space short waits for the `flock` on the claims file (free of its byte-range locks), so that
//! concurrent operations, in any process, run one pass between them. A pass that found too little leaves two
//! timestamps on that file, which costs no space: modified = when it ended, accessed = from when another may find
//! more, because a grace ends by then or because what nobody announces (a crash, an ended lease) is due another
//! look. Until then a pass is repeated only after something was released ([`note_release`]) or published.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use boxlite_home::admission::{Collected, Collector, Goal, Reclaimable};
use boxlite_home::settings::Settings;
use boxlite_home::{Home, durable};
use boxlite_types::gc::{Fate, Item, Skip};
use boxlite_types::{Doing, GcOptions, GcReport, Result, Verdict};
use rustix::fs::{Timespec, Timestamps};

use super::catalog::Catalog;
use super::pass::Pass;
use super::tally::Tally;
use super::usage;

/// The longest for which a fruitless pass is taken to stay fruitless.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Modified at this second after 1970: a pass is under way, or was killed.
const UNDER_WAY: i64 = 1;

/// Collects garbage in a home on behalf of starts, pulls and builds.
pub struct Automatic {
    home: Home,
    catalog: Arc<dyn Catalog>,
    settings: Settings,
    tally: Arc<Tally>,
}

impl std::fmt::Debug for Automatic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Automatic").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Automatic {
    /// The collector of `home`.
    pub fn new(home: Home, catalog: Arc<dyn Catalog>, settings: Settings) -> Self {
        Self { home, catalog, settings, tally: Arc::default() }
    }

    /// Counts its passes there.
    #[must_use]
    pub fn counting(self, tally: Arc<Tally>) -> Self {
        Self { tally, ..self }
    }

    /// What a pass without a goal would remove now.
    fn plan(&self, keep: &[String]) -> GcReport {
        let options = GcOptions { dry_run: true, ..GcOptions::default() };
        let mut pass = Pass::new(&self.home, &*self.catalog, &self.settings, &options, None);
        pass.rules.keep = keep;
        pass.run()
    }
}

impl Collector for Automatic {
    fn collect(&self, goal: &Goal<'_>) -> Result<Collected> {
        let asked = SystemTime::now();
        let path = self.home.claims();
        durable::ensure_file(&path)?;
        let file = File::options().read(true).write(true).open(&path).doing("opening the claims", &path)?;
        file.lock().doing("waiting for a running gc at", &path)?;
        let missing = (goal.missing)();
        if missing.is_nothing() || still_fruitless(&self.home, &file, asked, missing.critical)? {
            return Ok(Collected::default());
        }
        let plan = self.plan(goal.keep);
        // What is unreadable keeps every disk image anyway.
        let outlook = if plan.failed() { Verdict::Ok } else { (goal.outlook)(reclaimable(&plan)) };
        let options = GcOptions::default();
        let under_way = Timestamps { last_access: seconds(0), last_modification: seconds(UNDER_WAY) };
        // What cannot be noted down costs a superfluous pass, nothing else.
        let _ = rustix::fs::futimens(&file, &under_way);
        let began = Instant::now();
        let mut pass = Pass::new(&self.home, &*self.catalog, &self.settings, &options, Some(goal));
        pass.outlook = outlook;
        let report = pass.run();
        self.tally.count(&report, began.elapsed());
        // What a pass spared because nothing could help its own caller may well help another.
        let hopeless = outlook == Verdict::Reject && spared(&report);
        let verdict = if hopeless || (goal.missing)().is_nothing() {
            Timestamps { last_access: seconds(0), last_modification: seconds(0) }
        } else {
            let now = SystemTime::now();
            let again = look_again(&report, now, self.settings.grace.value);
            let noted = note(&self.home, spared(&report)).unwrap_or(0);
            // Rather too early than too late.
            let last_access = Timespec { tv_sec: timespec(again).tv_sec - 1, tv_nsec: noted };
            Timestamps { last_access, last_modification: timespec(now) }
        };
        // What was released meanwhile may have come too late for this pass, so its note stays.
        if file.metadata().is_ok_and(|found| found.mtime() == UNDER_WAY) {
            let _ = rustix::fs::futimens(&file, &verdict);
        }
        let unreadable =
            report.unreadable.iter().map(|found| format!("{}: {}", found.path.display(), found.reason));
        let failed =
            report.failures.iter().map(|found| format!("{}: {}", found.path.display(), found.reason));
        Ok(Collected { ran: true, bytes: report.reclaimed, failures: unreadable.chain(failed).collect() })
    }

    fn reclaimable(&self, keep: &[String]) -> Option<u64> {
        // What a running pass has its hands on would count as in use.
        let running = File::open(self.home.claims());
        let _waited = running.and_then(|file| file.lock().map(|()| file));
        let report = self.plan(keep);
        (!report.failed() || report.reclaimed > 0).then_some(report.reclaimed)
    }
}

/// Tells automatic gc that something was let go of: a box was removed, an image lost its name.
///
/// Never fails: at worst a pass comes a minute later.
pub fn note_release(home: &Home) {
    if let Ok(file) = File::options().write(true).open(home.claims()) {
        let times = Timestamps { last_access: seconds(0), last_modification: seconds(0) };
        let _ = rustix::fs::futimens(&file, &times);
    }
}

/// What the plan would free.
fn reclaimable(plan: &GcReport) -> Reclaimable {
    let inodes = |item: &Item| match std::fs::symlink_metadata(&item.path) {
        Ok(found) if found.is_dir() => usage::entries(&item.path),
        Ok(_) => 1,
        Err(_) => 0,
    };
    Reclaimable { bytes: plan.reclaimed, inodes: plan.removed().map(inodes).sum() }
}

/// Whether disk images were left that a pass with a more urgent goal may take.
fn spared(report: &GcReport) -> bool {
    report.disk_images.iter().any(|item| matches!(item.fate, Fate::Skipped { why: Skip::Recent }))
}

/// Whether the last pass found all there was, and nothing has changed since; `asked` is when this caller came.
fn still_fruitless(home: &Home, file: &File, asked: SystemTime, critical: bool) -> Result<bool> {
    let path = home.claims();
    let noted = file.metadata().doing("examining", &path)?;
    let ended = noted.modified().doing("examining", &path)?;
    if ended == SystemTime::UNIX_EPOCH || noted.accessed().doing("examining", &path)? <= SystemTime::now() {
        return Ok(false);
    }
    let found = noted.atime_nsec();
    let spared = found % 2 == 1;
    if ended >= asked {
        return Ok(!(spared && critical));
    }
    Ok(found == note(home, false)? || (found == note(home, true)? && !critical))
}

/// What a pass notes down in the nanoseconds of an access time: whether it `spared` disk images that a more urgent goal
/// may take, and a digest of when something was last published or removed. Comparing times would not do, for a
/// kernel's clock ticks in milliseconds.
fn note(home: &Home, spared: bool) -> Result<i64> {
    let mut digest = std::hash::DefaultHasher::new();
    for directory in [home.disk_images(), home.bases(), home.blobs()] {
        modified(&directory)?.hash(&mut digest);
    }
    Ok((digest.finish() % 400_000_000).cast_signed() * 2 + i64::from(spared))
}

fn modified(directory: &Path) -> Result<SystemTime> {
    std::fs::metadata(directory).and_then(|found| found.modified()).doing("examining", directory)
}

/// When another pass might find more than this one: at once where something was in use.
fn look_again(report: &GcReport, now: SystemTime, grace: Duration) -> SystemTime {
    // Unfinished files do not count: a long pull has one all the while.
    let stored = [&report.disk_images, &report.bases, &report.box_directories, &report.blobs];
    if stored.into_iter().flatten().any(|item| matches!(item.fate, Fate::Skipped { why: Skip::InUse })) {
        return now;
    }
    let young = report.items().filter(|item| matches!(item.fate, Fate::Skipped { why: Skip::Grace }));
    let grown = young.filter_map(|item| {
        let modified = Duration::from_secs(u64::try_from(item.modified).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(modified)?.checked_add(grace)
    });
    grown.fold(now + LOOK_AGAIN, std::cmp::min)
}

fn seconds(seconds: i64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: 0 }
}

fn timespec(time: SystemTime) -> Timespec {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timespec { tv_sec: since.as_secs().cast_signed(), tv_nsec: since.subsec_nanos().into() }
}
