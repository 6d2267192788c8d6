//! Box directories without a record: leftovers of a crash in `create` or `rm`, and unexplained ones.

use boxlite_types::gc::{Fate, Item, Skip};
use boxlite_types::{Error, Result};

use super::judge::{Judgement, kept, skipped};
use super::{GcPlan, PlanLook, Planned};
use crate::gc::attempt::LockAttempt;
use crate::gc::category::Category;
use crate::gc::census::{Census, LostBox, box_modified};
use crate::gc::marks::Marks;
use crate::gc::measure;
use crate::gc::rules::{GcScope, seconds};

const WHY_UNNEEDED: &str = "the directory of a box that was removed or never finished";

/// Judges the directory of a box without a record.
///
/// It stays while another box's chain runs through one of its overlays, or one of its locks is held.
pub(super) fn judge(marks: &Marks, index: usize, scope: &GcScope<'_>, look: &PlanLook<'_>) -> Judgement {
    let census = &marks.census;
    let entry = &census.boxes[index];
    if !entry.holders.is_empty() {
        return Judgement::Settled(kept(census, &entry.holders));
    }
    if !entry.intended && !census.is_blind() {
        return Judgement::skip(Skip::Unexplained);
    }
    match modified(census, index, scope) {
        Err(error) => return Judgement::Failed(error),
        Ok(_) if census.is_blind() || marks.are_boxes_in_doubt() => return Judgement::skip(Skip::Unknown),
        Ok(modified) if scope.rules.is_young(modified) => return Judgement::skip(Skip::Grace),
        Ok(_) => {}
    }
    match look {
        PlanLook::First => unless_locked(scope, &entry.id),
        PlanLook::UnderLocks(held) if held.boxes.contains(&*entry.id) => Judgement::Removable(WHY_UNNEEDED),
        PlanLook::UnderLocks(_) => Judgement::skip(Skip::InUse),
    }
}

fn modified(census: &Census, index: usize, scope: &GcScope<'_>) -> Result<i64, Error> {
    let overlays = census.overlays_of(index).iter().map(|overlay| overlay.modified);
    box_modified(scope.home, &census.boxes[index].id, overlays)
}

fn unless_locked(scope: &GcScope<'_>, id: &str) -> Judgement {
    let paths = scope.home.of_box(id);
    for path in [paths.state_lock(), paths.shim_lock()] {
        match LockAttempt::on(&path, true) {
            Ok(LockAttempt::Locked(lock)) => lock.release(),
            Ok(LockAttempt::Busy) => return Judgement::skip(Skip::InUse),
            Ok(LockAttempt::Gone) => {}
            Err(error) => return Judgement::Failed(error),
        }
    }
    Judgement::Removable(WHY_UNNEEDED)
}

impl GcPlan {
    pub(super) fn add_box(&mut self, index: usize, judgement: Judgement, scope: &GcScope<'_>) {
        let name = self.census.boxes[index].id.to_string();
        let path = scope.home.of_box(&name).root().to_owned();
        let allocated = measure::allocated_tree(&path);
        self.partial |= allocated.is_err();
        let used = modified(&self.census, index, scope).unwrap_or(0);
        let (allocated, modified) = (allocated.unwrap_or(0), seconds(used));
        let is_unexplained =
            matches!(judgement, Judgement::Settled(Fate::Skipped { why: Skip::Unexplained }));
        let image =
            self.census.lost.get(&index).filter(|_| is_unexplained).and_then(LostBox::image_reference);
        let image = image.map(ToOwned::to_owned);
        let fate = skipped(Skip::Unknown);
        let item = Item { name, path, allocated, modified, last_used: modified, image, fate };
        let category = Category::BoxDirectory;
        self.add(Planned { category, item, id: None, used, digest: None, blobs: Vec::new() }, judgement);
    }
}
