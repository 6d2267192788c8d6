//! Items that are judged without chains: staged files, blobs and catalogue entries, boot files.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use boxlite_home::durable;
use boxlite_types::gc::{Item, Skip};

use super::judge::{Judgement, skipped};
use super::{GcPlan, Planned};
use crate::gc::category::Category;
use crate::gc::census::{BlobFile, BootFile, Caches, StagedEntry};
use crate::gc::rules::{A_DAY, GcScope, Rules, seconds};

impl GcPlan {
    pub(super) fn add_caches(&mut self, scope: &GcScope<'_>) {
        let is_blind = self.is_blind();
        // A box that is adopted builds its disk image from blobs, and these may be all that is left of its image.
        let wanted = self.census.has_unexplained();
        let caches = std::mem::take(&mut self.census.caches);
        for entry in &caches.staged {
            let allocated = *entry.allocated.as_ref().unwrap_or(&0);
            let planned = planned(Category::Unfinished, entry.path.clone(), allocated, entry.modified);
            self.add(planned, judge_staged(entry, scope));
        }
        for blob in caches.blobs.iter().filter(|blob| blob.users.is_empty()) {
            let (planned, judgement) = judge_blob(blob, scope, wanted);
            self.add(planned, if is_blind { Judgement::skip(Skip::Unknown) } else { judgement });
        }
        for file in &caches.boot_files {
            let path = scope.home.vm().join(&file.name);
            let mut planned = planned(Category::BootFile, path.clone(), file.allocated, file.modified);
            planned.item.last_used = seconds(file.used);
            let judgement = judge_boot_file(file, &path, &scope.rules);
            self.add(planned, if is_blind { Judgement::skip(Skip::Unknown) } else { judgement });
        }
        if scope.rules.all && !is_blind {
            self.add_catalogue(&caches, scope, wanted);
        }
        self.census.caches = caches;
    }

    /// Catalogue entries that no box uses, each with the blobs that no image refers to once it is gone.
    fn add_catalogue(&mut self, caches: &Caches, scope: &GcScope<'_>, wanted: bool) {
        let rules = &scope.rules;
        let is_young = |place: &usize| rules.is_young(caches.images[*place].last_used);
        let is_recent = |place: &usize| rules.is_recent(caches.images[*place].last_used);
        let is_kept = |place: &usize| rules.keeps_here(caches.images[*place].only_here);
        let unused = (0..caches.images.len()).filter(|place| caches.images[*place].boxes == 0);
        let unused: Vec<usize> = unused.collect();
        let gone: HashSet<usize> = unused
            .iter()
            .copied()
            .filter(|place| !is_young(place) && !is_recent(place) && !is_kept(place))
            .collect();
        for place in unused {
            let image = &caches.images[place];
            let mut planned = planned(Category::CatalogEntry, scope.home.database(), 0, image.last_used);
            planned.item.name = match &image.reference {
                Some(reference) => format!("{reference} ({})", image.digest),
                None => image.digest.clone(),
            };
            planned.digest = Some(image.digest.clone());
            if is_young(&place) {
                self.add(planned, Judgement::skip(Skip::Grace));
            } else if is_recent(&place) {
                self.add(planned, Judgement::skip(Skip::Recent));
            } else if is_kept(&place) {
                self.add(planned, Judgement::skip(Skip::OnlyHere));
            } else {
                // A blob is removed with the last of its images.
                let is_last = |blob: &&BlobFile| {
                    blob.users.last() == Some(&place) && blob.users.iter().all(|user| gone.contains(user))
                };
                for (blob, judgement) in
                    caches.blobs.iter().filter(is_last).map(|blob| judge_blob(blob, scope, wanted))
                {
                    planned.blobs.extend(self.decided(blob, judgement));
                }
                self.add(planned, Judgement::Removable("no box uses it"));
            }
        }
    }

    fn decided(&mut self, planned: Planned, judgement: Judgement) -> Option<Planned> {
        let fate = match judgement {
            Judgement::Gone => return None,
            Judgement::Settled(fate) => fate,
            Judgement::Removable(reason) => boxlite_types::gc::Fate::Removed { reason: reason.to_owned() },
            Judgement::Failed(error) => self.fail(&planned.item.path, error),
        };
        Some(planned.with(fate))
    }
}

/// Its lock says at once whether its maker or remover is alive.
fn judge_staged(entry: &StagedEntry, scope: &GcScope<'_>) -> Judgement {
    if let Err(error) = &entry.allocated {
        return Judgement::Failed(error.clone());
    }
    let free = if entry.is_directory {
        // An earlier boxlite locks no trash while it removes it.
        if entry.is_trash && scope.rules.is_young(entry.changed) {
            return Judgement::skip(Skip::Grace);
        }
        durable::sweep_staged_dir(&entry.path, true)
    } else {
        durable::sweep_staged(&entry.path, true).map(|swept| swept.is_some())
    };
    match free {
        Ok(true) if entry.is_trash && entry.is_directory => {
            Judgement::Removable("a removed box whose removal was cut short")
        }
        Ok(true) => Judgement::Removable("unfinished, and whoever made it is gone"),
        Ok(false) if entry.path.exists() => Judgement::skip(Skip::InUse),
        Ok(false) => Judgement::Gone,
        Err(error) => Judgement::Failed(error),
    }
}

/// With `wanted`, a box without a record may be made of it.
fn judge_blob(blob: &BlobFile, scope: &GcScope<'_>, wanted: bool) -> (Planned, Judgement) {
    let path = scope.home.blobs().join(&blob.name);
    let judgement = if scope.rules.is_young(blob.modified) {
        Judgement::skip(Skip::Grace)
    } else if wanted {
        Judgement::skip(Skip::MayBeNeeded)
    } else {
        Judgement::unless_locked(&path, "no image refers to it")
    };
    (planned(Category::Blob, path, blob.allocated, blob.modified), judgement)
}

/// A cache that a start fills again from the host's assets: what was not used for a day is removed, but for the last
/// used of each kind, which the next start would only make again. Where space is short templates are removed sooner,
/// since a box comes up without one as well.
fn judge_boot_file(file: &BootFile, path: &Path, rules: &Rules<'_>) -> Judgement {
    let pressed = rules.pressed && file.is_template();
    if let Some(why) = boot_file_in_use(rules, pressed, file.modified, file.used) {
        Judgement::skip(why)
    } else if file.current && !rules.all && !pressed {
        Judgement::skip(Skip::Current)
    } else if pressed {
        Judgement::unless_locked(path, "space is short, and no box was started from it within the grace")
    } else {
        Judgement::unless_locked(path, "no box was started from it for a day")
    }
}

/// Why a boot file of these times stays, if it does.
pub(in crate::gc) fn boot_file_in_use(
    rules: &Rules<'_>,
    pressed: bool,
    modified: i64,
    used: i64,
) -> Option<Skip> {
    let lasting = if pressed { rules.grace } else { A_DAY };
    if rules.is_young(modified) {
        Some(Skip::Grace)
    } else if rules.age(used) < rules.until.unwrap_or(0).max(lasting) {
        Some(Skip::Recent)
    } else {
        None
    }
}

fn planned(category: Category, path: PathBuf, allocated: u64, modified: i64) -> Planned {
    let item = Item {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        path,
        allocated,
        modified: seconds(modified),
        last_used: seconds(modified),
        image: None,
        fate: skipped(Skip::InUse),
    };
    Planned { category, item, id: None, used: modified, digest: None, blobs: Vec::new() }
}
