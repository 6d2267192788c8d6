//! The first stage of a start.

use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use boxlite_types::{Error, FreeSpace, Result, Shortage, Verdict};
use serde::{Deserialize, Serialize};

use super::claim::{Claim, Claims};
use super::classify::{Missing, Reclaimable, Thresholds, classify, classify_inodes, judge, missing, outlook};
use crate::home::Home;
use crate::settings::{Bytes, Settings};

/// The goal of an automatic gc: when it has done enough, and what it must leave alone.
pub struct Goal<'a> {
    /// Digests of the disk images that the operation is about to use.
    pub keep: &'a [String],
    /// Measures what is still missing until there is room enough; asked after each batch of removals.
    pub missing: &'a (dyn Fn() -> Missing + Sync),
    /// The best verdict that freeing so much could bring. Where that is [`Verdict::Reject`], no disk image is evicted:
    /// it would be lost, and the operation would still be refused.
    pub outlook: &'a (dyn Fn(Reclaimable) -> Verdict + Sync),
}

impl std::fmt::Debug for Goal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Goal").field("keep", &self.keep).finish_non_exhaustive()
    }
}

/// The result of an automatic gc.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Whether a pass ran for this caller; otherwise it shared another's, or nothing had changed since the last.
    pub ran: bool,
    /// Allocated bytes removed.
    pub bytes: u64,
    /// Disk images evicted from the cache, each by the beginning of its digest.
    #[serde(default)]
    pub evicted: Vec<String>,
    /// Removals that failed and files that could not be read, as sentences.
    pub failures: Vec<String>,
}

/// Space that gc could free for an operation that is about to be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collectable {
    /// Space that it could free now.
    pub now: Reclaimable,
    /// When more becomes eligible, as far as that is known.
    pub more_at: Option<SystemTime>,
}

/// Frees space on behalf of an operation that finds it short.
pub trait Collector: Send + Sync {
    /// Collects garbage, least recently used first, until `goal` is reached or nothing is left to collect.
    fn collect(&self, goal: &Goal<'_>) -> Result<Collected>;
    /// Tells how much gc could free now, if that is known. Waits for a pass that runs on others' behalf.
    fn collectable(&self, keep: &[String]) -> Option<Collectable>;
}

/// Something to tell the user about an admitted start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The directory whose filesystem it is about.
    pub path: PathBuf,
    /// One sentence.
    pub message: String,
}

/// Proof for the later stages that a start may proceed, and the holder of its claim.
#[derive(Debug)]
#[must_use = "the claim ends when this is dropped"]
pub struct Admission {
    claim: Claim,
    verdict: Verdict,
    notices: Vec<Notice>,
    collected: Option<Collected>,
}

impl Admission {
    /// [`Verdict::Ok`] or [`Verdict::Warn`].
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Messages for the user.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// The result of automatic gc, if it ran.
    pub fn collected(&self) -> Option<&Collected> {
        self.collected.as_ref()
    }

    /// The claim, for the shim to inherit.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Ends the stage and keeps the claim.
    pub fn into_claim(self) -> Claim {
        self.claim
    }
}

/// How a start measures the home's filesystem, and what it compares that with.
struct SpaceLook<'a> {
    claim: &'a Claim,
    root: &'a Path,
    thresholds: Thresholds,
    measure: &'a (dyn Fn(&Path) -> Result<FreeSpace> + Sync),
}

impl SpaceLook<'_> {
    /// The bytes that others have claimed, and the free space.
    fn now(&self) -> Result<(u64, FreeSpace)> {
        // The claims first: what their owners write in between is then counted twice rather than not at all.
        Ok((self.claim.promised_before()?, (self.measure)(self.root)?))
    }

    fn verdict(&self) -> Result<Verdict> {
        self.now().map(|(promised, space)| judge(&space, promised, &self.thresholds))
    }

    /// The shortage; nothing when space can no longer be measured, since there is nothing to aim at then.
    fn missing(&self) -> Missing {
        self.now().map(|(promised, space)| missing(&space, promised, &self.thresholds)).unwrap_or_default()
    }

    /// The best verdict after gc has freed `reclaimable`.
    fn outlook(&self, reclaimable: Reclaimable) -> Verdict {
        let judged =
            self.now().map(|(promised, space)| outlook(&space, promised, reclaimable, &self.thresholds));
        judged.unwrap_or(Verdict::Ok)
    }
}

/// Decides whether a configured, stopped or failed box may start; writes nothing.
#[derive(Debug)]
pub struct StartAdmission<'a> {
    /// The home, whose filesystem the overlay grows on.
    pub home: &'a Home,
    /// The settings in force.
    pub settings: &'a Settings,
    /// Bytes to claim; the box's own figure or [`Settings::claim`].
    pub claim: u64,
    /// Directories outside the home that the box will write to.
    pub also: &'a [PathBuf],
    /// The guest is brought up to copy files out of the box: no floor forbids that.
    pub reads_only: bool,
    /// Digests of the disk images that this start needs: never collected on its behalf.
    pub keep: &'a [String],
}

impl StartAdmission<'_> {
    /// Measures, collects garbage through `collector` when space is short, measures again and decides.
    ///
    /// Blocks for the length of a gc pass at most. Free space that cannot be measured leads to a notice and does not
    /// stop the start; neither does a gc that fails.
    ///
    /// # Errors
    /// `ResourceExhausted` with need, have, path and what gc could free. No claim is held then.
    pub fn run(&self, collector: &dyn Collector) -> Result<Admission> {
        self.run_measuring(collector, &crate::durable::free_space)
    }

    pub(super) fn run_measuring(
        &self,
        collector: &dyn Collector,
        measure: &(dyn Fn(&Path) -> Result<FreeSpace> + Sync),
    ) -> Result<Admission> {
        let configured = Thresholds::of(self.settings);
        let (others, thresholds) = if self.reads_only {
            (Thresholds::of_reading(), Thresholds::of_reading())
        } else {
            (configured, configured.with_claim(self.claim, self.settings.emergency_floor.value.0))
        };
        let claim = Claims::open(self.home)?.take(self.claim)?;
        let mut notices = Vec::new();
        for directory in self.other_filesystems(&mut notices) {
            judge_other(directory, &others, measure, &mut notices)?;
        }
        let look = SpaceLook { claim: &claim, root: self.home.root(), thresholds, measure };
        let is_short = || look.verdict().is_ok_and(|verdict| verdict > Verdict::Ok);
        let collected = if self.settings.auto_gc.value && is_short() {
            self.collect(collector, &look, &mut notices)
        } else {
            None
        };
        let verdict = self.decide(collector, &look, &mut notices)?;
        Ok(Admission { claim, verdict, notices, collected })
    }

    /// Collects garbage, and notes what a user of the home should know of it.
    fn collect(
        &self,
        collector: &dyn Collector,
        look: &SpaceLook<'_>,
        notices: &mut Vec<Notice>,
    ) -> Option<Collected> {
        let mut note = |message| notices.push(Notice { path: look.root.to_owned(), message });
        let (missing, outlook) = (|| look.missing(), |reclaimable| look.outlook(reclaimable));
        match collector.collect(&Goal { keep: self.keep, missing: &missing, outlook: &outlook }) {
            Ok(done) => {
                for failure in &done.failures {
                    note(format!("automatic gc: {failure}"));
                }
                if !done.evicted.is_empty() {
                    let (freed, names) = (Bytes(done.bytes), done.evicted.join(", "));
                    note(format!(
                        "automatic gc freed {freed}; these disk images are built again when needed: {names}"
                    ));
                }
                Some(done)
            }
            Err(error) => {
                note(format!("automatic gc failed: {}", error.chain()));
                None
            }
        }
    }

    /// Decides by a new measurement, whatever gc reports.
    ///
    /// # Errors
    /// `ResourceExhausted` when a floor is not kept.
    fn decide(
        &self,
        collector: &dyn Collector,
        look: &SpaceLook<'_>,
        notices: &mut Vec<Notice>,
    ) -> Result<Verdict> {
        let (promised, space) = match look.now() {
            Ok(measured) => measured,
            Err(error) => {
                let why = error.chain();
                let message =
                    format!("the free space could not be read, so the start goes on unchecked: {why}");
                notices.push(Notice { path: look.root.to_owned(), message });
                return Ok(Verdict::Warn);
            }
        };
        let collectable = || collector.collectable(self.keep);
        if let Some(refusal) = shortage(&space, promised, 0, &look.thresholds, look.root, &collectable) {
            return Err(refusal);
        }
        let verdict = judge(&space, promised, &look.thresholds);
        if verdict == Verdict::Warn {
            notices.push(warning(look.root, &space, promised, &look.thresholds));
        }
        Ok(verdict)
    }

    /// Those of the other directories that do not share the home's filesystem, one per filesystem.
    fn other_filesystems(&self, notices: &mut Vec<Notice>) -> Vec<&Path> {
        let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev());
        let mut seen: Vec<u64> = device(self.home.root()).into_iter().collect();
        let mut others = Vec::new();
        for path in self.also {
            match device(path) {
                Ok(device) if seen.contains(&device) => {}
                Ok(device) => {
                    seen.push(device);
                    others.push(path.as_path());
                }
                Err(error) => notices.push(Notice {
                    path: path.clone(),
                    message: format!("the free space at {} could not be read: {}", path.display(), error),
                }),
            }
        }
        others
    }
}

/// gc frees nothing outside the home, so the first measurement decides.
fn judge_other(
    directory: &Path,
    thresholds: &Thresholds,
    measure: &dyn Fn(&Path) -> Result<FreeSpace>,
    notices: &mut Vec<Notice>,
) -> Result<()> {
    let space = match measure(directory) {
        Ok(space) => space,
        Err(error) => {
            let message = format!(
                "the free space could not be read, so the start goes on unchecked: {}",
                error.chain()
            );
            notices.push(Notice { path: directory.to_owned(), message });
            return Ok(());
        }
    };
    if let Some(refusal) = shortage(&space, 0, 0, thresholds, directory, &|| None) {
        return Err(refusal);
    }
    if judge(&space, 0, thresholds) == Verdict::Warn {
        notices.push(warning(directory, &space, 0, thresholds));
    }
    Ok(())
}

/// The refusal of an operation that is about to write `wanted` bytes besides the `promised` ones, if it is one.
pub(super) fn shortage(
    space: &FreeSpace,
    promised: u64,
    wanted: u64,
    thresholds: &Thresholds,
    path: &Path,
    collectable: &dyn Fn() -> Option<Collectable>,
) -> Option<Error> {
    let spoken_for = promised.saturating_add(wanted);
    let need = thresholds.hard_floor.saturating_add(spoken_for);
    if space.bytes < need {
        let collectable = collectable();
        let mut message = format!(
            "not enough disk space at {}: needs {} free ({} bytes), has {} ({} bytes)",
            path.display(),
            Bytes(need),
            need,
            Bytes(space.bytes),
            space.bytes
        );
        if promised > 0 {
            let _ = write!(message, ", of which concurrent operations claim {}", Bytes(promised));
        }
        message += &advice(need - space.bytes, false, collectable);
        let reclaimable = collectable.map(|found| found.now.bytes);
        let shortage = Shortage { need, have: space.bytes, inodes: false, reclaimable };
        return Some(Error::exhausted(message, shortage).at(path));
    }
    if classify_inodes(space.inodes, space.inodes_total, thresholds) == Verdict::Reject {
        let collectable = collectable();
        let (need, have) = (thresholds.inode_floor, space.inodes);
        let shown = path.display();
        let advice = advice(need - have, true, collectable);
        let message = format!("not enough inodes at {shown}: needs {need} free, has {have}{advice}");
        let reclaimable = collectable.map(|found| found.now.inodes);
        let shortage = Shortage { need, have, inodes: true, reclaimable };
        return Some(Error::exhausted(message, shortage).at(path));
    }
    None
}

/// Says by how much an operation falls short, whether gc makes up for it, and if not, when it can free more.
fn advice(short_by: u64, inodes: bool, collectable: Option<Collectable>) -> String {
    let show = |amount: u64| if inodes { format!("{amount} inodes") } else { Bytes(amount).to_string() };
    let mut text = format!("; short by {}", show(short_by));
    let Some(Collectable { now, more_at }) = collectable else { return text };
    let reclaimable = if inodes { now.inodes } else { now.bytes };
    let remedy = match (reclaimable, short_by.saturating_sub(reclaimable)) {
        (0, _) => "; `boxlite gc` could free nothing, so remove boxes or other files".to_owned(),
        (_, 0) => format!("; `boxlite gc` could free {}, which is enough", show(reclaimable)),
        (_, lacking) => {
            let (freed, lacking) = (show(reclaimable), show(lacking));
            format!("; `boxlite gc` could free {freed}, {lacking} too little, so remove boxes or other files")
        }
    };
    text.push_str(&remedy);
    let wait = more_at.and_then(|at| at.duration_since(SystemTime::now()).ok());
    if let Some(wait) = wait.filter(|_| reclaimable < short_by) {
        let minutes = wait.as_secs().div_ceil(60);
        let _ = write!(text, "; more becomes eligible in {minutes} min");
    }
    text
}

fn warning(path: &Path, space: &FreeSpace, promised: u64, thresholds: &Thresholds) -> Notice {
    let left = space.bytes.saturating_sub(promised);
    let message = if classify(left, space.bytes_total, thresholds) == Verdict::Ok {
        format!("only {} inodes are free at {}", space.inodes, path.display())
    } else {
        format!(
            "disk space runs short: {} of {} free at {}",
            Bytes(left),
            Bytes(space.bytes_total),
            path.display()
        )
    };
    Notice { path: path.to_owned(), message }
}
