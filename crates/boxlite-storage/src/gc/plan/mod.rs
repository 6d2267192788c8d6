//! The plan: what becomes of each item, decided from one census.
//!
//! `--dry-run`, `system df`, the "could free" of a refusal and the removal itself all read a plan. It writes nothing
//! and keeps no lock: it only looks whether one is held. A plan can be outdated a moment later, so nothing is
//! removed before [`GcPlan::confirm`](super::confirm) has looked again with the candidates locked.

mod boxes;
mod caches;
mod files;
mod judge;
mod layers;
mod volumes;

use std::collections::HashSet;
use std::path::Path;

use boxlite_home::admission::Reclaimable;
use boxlite_home::boot_file::TEMPLATE;
use boxlite_home::durable::{self, FileId};
use boxlite_types::gc::{Fate, Item, RemovalFailure, Skip, Unreadable};
use boxlite_types::{FreeSpace, GcReport};

pub(super) use caches::boot_file_in_use;
pub(super) use judge::{failed, skipped};

use super::category::Category;
use super::census::Census;
use super::marks::{Dependent, Marks};
use super::measure;
use super::rules::GcScope;
use judge::Judgement;
pub(super) use layers::{StoredImages, files_of};

/// An item and what becomes of it; one that is to be removed has [`Fate::Removed`].
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) category: Category,
    pub(super) item: Item,
    /// The file's identity, for items that chains run through.
    pub(super) id: Option<FileId>,
    /// When it was last used, in nanoseconds since 1970.
    pub(super) used: i64,
    /// Digest of a catalogue entry, or id of a volume.
    pub(super) digest: Option<String>,
    /// Blobs that no image refers to once this catalogue entry is gone.
    pub(super) blobs: Vec<Planned>,
}

impl Planned {
    pub(super) fn is_candidate(&self) -> bool {
        matches!(self.item.fate, Fate::Removed { .. })
    }

    pub(super) fn is_template(&self) -> bool {
        self.category == Category::BootFile && self.item.name.starts_with(TEMPLATE)
    }

    /// The same item, with another fate.
    pub(super) fn with(mut self, fate: Fate) -> Self {
        self.item.fate = fate;
        self
    }
}

/// The first or the second look at the candidates.
pub(super) enum PlanLook<'a> {
    /// Without locks: each item's lock tells whether the item is held.
    First,
    /// With locks: what is not in the set stays in this step.
    UnderLocks(&'a HeldSet),
}

/// Files and boxes that this pass has locked.
#[derive(Debug, Default)]
pub(super) struct HeldSet {
    pub(super) files: HashSet<FileId>,
    pub(super) boxes: HashSet<String>,
}

/// The plan of one pass: items to remove, to keep and to skip.
#[derive(Debug)]
pub(super) struct GcPlan {
    pub(super) census: Census,
    /// Items to remove, in that order.
    pub(super) candidates: Vec<Planned>,
    /// Everything else.
    pub(super) settled: Vec<Planned>,
    pub(super) unreadable: Vec<Unreadable>,
    pub(super) failures: Vec<RemovalFailure>,
    /// Some size could not be measured.
    pub(super) partial: bool,
    pub(super) free: Option<FreeSpace>,
    /// When it was made, in nanoseconds since 1970.
    pub(super) now: i64,
}

impl GcPlan {
    /// Looks at the home and decides.
    pub(super) fn make(scope: &GcScope<'_>) -> Self {
        let free = durable::free_space(scope.home.root()).ok();
        let marks = Marks::of(Census::take(scope.home, scope.catalog));
        Self { free, ..Self::of(marks, scope, &PlanLook::First) }
    }

    /// Decides what becomes of each item.
    pub(super) fn of(mut marks: Marks, scope: &GcScope<'_>, look: &PlanLook<'_>) -> Self {
        let stored = StoredImages::of(&marks.census, &scope.rules);
        let judge_file = |marks: &Marks, index| {
            let judgement = files::judge(marks, index, scope, look);
            let is_lost = judgement.removes() && stored.is_only_copy(index);
            if is_lost { Judgement::skip(Skip::OnlyCopy) } else { judgement }
        };
        let dependents = judge_dependents(&mut marks, &judge_file, scope, look);
        marks.use_what_is_stood_on();
        let images =
            (0..marks.census.files.len()).filter(|index| !marks.census.files[*index].kind.stands_on_others());
        let images: Vec<_> = images.map(|index| (index, judge_file(&marks, index))).collect();
        let mut plan = Self {
            candidates: Vec::new(),
            settled: Vec::new(),
            unreadable: Vec::new(),
            failures: Vec::new(),
            partial: false,
            free: None,
            now: scope.rules.now,
            census: marks.census,
        };
        plan.note_unreadable();
        plan.add_caches(scope);
        plan.add_volumes(scope);
        plan.add_layers(&stored, scope);
        for (dependent, judgement) in dependents {
            match dependent {
                Dependent::File(index) => plan.add_file(index, judgement, scope),
                Dependent::Box(index) => plan.add_box(index, judgement, scope),
            }
        }
        for (index, judgement) in images {
            plan.add_file(index, judgement, scope);
        }
        plan.order_candidates();
        plan
    }

    /// Puts the candidates in the order of removal: by step, and what was used least recently first.
    fn order_candidates(&mut self) {
        self.candidates.sort_by_key(|planned| {
            let used = match planned.category {
                Category::Base | Category::Layer | Category::Delta | Category::DiskImage => planned.used,
                _ => 0,
            };
            // Sorting is stable, and what others stand on was added after these.
            (planned.category.step(), used)
        });
    }

    /// Whether something could not be read that might pin anything: then no box directory, base, delta or disk image is
    /// removed. What cannot be read of a box without a record pins less.
    pub(super) fn is_blind(&self) -> bool {
        self.census.is_blind()
    }

    /// Whether something could not be read or examined.
    pub(super) fn has_trouble(&self) -> bool {
        !self.unreadable.is_empty() || !self.failures.is_empty()
    }

    /// Space that carrying out the whole plan would free.
    pub(super) fn reclaimable(&self) -> Reclaimable {
        let inodes = |item: &Item| match std::fs::symlink_metadata(&item.path) {
            Ok(found) if found.is_dir() => measure::entries(&item.path),
            Ok(_) => 1,
            Err(_) => 0,
        };
        let items = || self.candidates.iter().filter(|planned| planned.category != Category::CatalogEntry);
        Reclaimable {
            bytes: items().map(|planned| planned.item.allocated).sum(),
            inodes: items().map(|planned| inodes(&planned.item)).sum(),
        }
    }

    /// Bytes that disk images, deltas, bases and blobs allocate.
    pub(super) fn stored_bytes(&self) -> u64 {
        let blobs = self.census.caches.blobs.iter().map(|blob| blob.allocated);
        let files = self.census.files.iter().map(|file| file.allocated);
        blobs.chain(files).fold(0, u64::saturating_add)
    }

    /// The part of the report that is settled without removing anything.
    pub(super) fn take_settled(&mut self) -> GcReport {
        let mut report = GcReport {
            unreadable: std::mem::take(&mut self.unreadable),
            failures: std::mem::take(&mut self.failures),
            partial: self.partial,
            free_before: self.free,
            ..GcReport::default()
        };
        for Planned { category, item, .. } in self.settled.drain(..) {
            category.list(&mut report).push(item);
        }
        report
    }

    fn note_unreadable(&mut self) {
        for trouble in {
            let census = &self.census;
            let of_boxes = census.lost.iter().flat_map(|(index, lost)| lost.troubles(census.doubt(*index)));
            let unreadable = census.unreadable.iter().chain(of_boxes);
            unreadable.chain(&census.harmless).chain(&census.caches.unreadable)
        } {
            if !self.unreadable.contains(trouble) {
                self.unreadable.push(trouble.clone());
            }
        }
    }

    fn add(&mut self, planned: Planned, judgement: Judgement) {
        let fate = match judgement {
            Judgement::Gone => return,
            Judgement::Settled(fate) => fate,
            Judgement::Removable(reason) => {
                let fate = Fate::Removed { reason: reason.to_owned() };
                return self.candidates.push(planned.with(fate));
            }
            Judgement::Failed(error) => self.fail(&planned.item.path, error),
        };
        self.settled.push(planned.with(fate));
    }

    fn fail(&mut self, path: &Path, reason: impl std::fmt::Display) -> Fate {
        failed(&mut self.failures, path, reason)
    }

    /// Gives up the candidates that chains run through, because something has become unreadable.
    pub(super) fn give_up_chains(&mut self) {
        let candidates = std::mem::take(&mut self.candidates);
        let (chained, others): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|planned| planned.category.is_chained());
        self.candidates = others;
        self.settled.extend(chained.into_iter().map(|planned| planned.with(skipped(Skip::Unknown))));
    }
}

/// Judges what stands on other files, from the top down: what stays keeps all that is below it.
fn judge_dependents(
    marks: &mut Marks,
    judge_file: &dyn Fn(&Marks, usize) -> Judgement,
    scope: &GcScope<'_>,
    look: &PlanLook<'_>,
) -> Vec<(Dependent, Judgement)> {
    let mut dependents: Vec<(Dependent, Judgement)> = Vec::new();
    for dependent in marks.dependents() {
        let judgement = match dependent {
            Dependent::File(index) => judge_file(marks, index),
            Dependent::Box(index) => boxes::judge(marks, index, scope, look),
        };
        if !judgement.removes() {
            marks.keep(dependent);
        }
        dependents.push((dependent, judgement));
    }
    // Hostile chains can run upwards again: an item that turned out to be needed after it was judged stays.
    while let Some((dependent, judgement)) = dependents
        .iter_mut()
        .find(|(dependent, judgement)| judgement.removes() && marks.must_stay(*dependent))
    {
        let holders = marks.holders(*dependent);
        *judgement = if holders.is_empty() {
            Judgement::skip(Skip::Unknown)
        } else {
            Judgement::Settled(judge::kept(&marks.census, holders))
        };
        marks.keep(*dependent);
    }
    dependents
}
