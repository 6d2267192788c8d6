//! Disk images, deltas and bases.

use boxlite_types::gc::{Item, Skip};

use super::judge::{Judgement, kept, skipped};
use super::{GcPlan, PlanLook, Planned};
use crate::gc::census::{Census, StoredFile};
use crate::gc::marks::Marks;
use crate::gc::rules::{GcScope, seconds};

/// Judges a file, never by age or size alone: a needed file stays at any age.
pub(super) fn judge(marks: &Marks, index: usize, scope: &GcScope<'_>, look: &PlanLook<'_>) -> Judgement {
    let (census, rules) = (&marks.census, &scope.rules);
    let file = &census.files[index];
    if !file.holders.is_empty() {
        Judgement::Settled(kept(census, &file.holders))
    } else if census.is_blind() || marks.is_file_in_doubt(index) {
        Judgement::skip(Skip::Unknown)
    } else if file.elsewhere {
        Judgement::skip(Skip::Elsewhere)
    } else if !census.may_lose(file) {
        Judgement::skip(Skip::Unexplained)
    } else if rules.is_protected(&file.name) {
        Judgement::skip(Skip::Protected)
    } else if rules.is_young(file.modified) {
        Judgement::skip(Skip::Grace)
    } else if rules.is_recent(file.used) {
        Judgement::skip(Skip::Recent)
    } else {
        match look {
            PlanLook::First => Judgement::unless_locked(&file.path(scope.home), file.kind.why_unneeded()),
            PlanLook::UnderLocks(held) if held.files.contains(&file.id) => {
                Judgement::Removable(file.kind.why_unneeded())
            }
            PlanLook::UnderLocks(_) => Judgement::skip(Skip::InUse),
        }
    }
}

impl Census {
    /// Whether removing an unneeded file loses nothing that a user may want: it can be made again, its removal was
    /// intended, or it is only another name of a box's overlay.
    fn may_lose(&self, file: &StoredFile) -> bool {
        let is_overlay = || self.overlays.iter().any(|overlay| overlay.id == file.id);
        file.kind.can_be_made_again() || file.intended || (file.links > 1 && is_overlay())
    }
}

impl GcPlan {
    pub(super) fn add_file(&mut self, index: usize, judgement: Judgement, scope: &GcScope<'_>) {
        let file = &self.census.files[index];
        let item = Item {
            name: file.name.to_string(),
            path: file.path(scope.home),
            allocated: file.freed(),
            modified: seconds(file.modified),
            last_used: seconds(file.used),
            image: None,
            fate: skipped(Skip::Unknown),
        };
        let category = file.kind.category();
        let (id, used) = (Some(file.id), file.used);
        self.add(Planned { category, item, id, used, digest: None, blobs: Vec::new() }, judgement);
    }
}
