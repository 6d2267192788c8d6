//! Named volumes: those whose removal was decided and cut short, and what nothing explains among them.

use std::path::Path;

use boxlite_types::Result;
use boxlite_types::gc::{Item, Skip};

use super::judge::{Judgement, skipped};
use super::{GcPlan, Planned};
use crate::disk::qcow2::chain::nanoseconds;
use crate::gc::attempt::LockAttempt;
use crate::gc::category::Category;
use crate::gc::census::VolumeEntry;
use crate::gc::measure;
use crate::gc::rules::{GcScope, seconds};

impl GcPlan {
    /// Adds the volumes whose removal was decided, and what is no volume. A volume that no intent names is never garbage, whether
    /// or not a box mounts it.
    pub(super) fn add_volumes(&mut self, scope: &GcScope<'_>) {
        let is_blind = self.is_blind();
        for entry in std::mem::take(&mut self.census.caches.volumes) {
            let path = scope.home.volumes().join(&entry.name);
            if entry.id.is_some() && !entry.intended {
                continue;
            }
            let allocated = measure::allocated_tree(&path);
            self.partial |= allocated.is_err();
            let modified = modified(&path);
            let item = Item {
                name: entry.name.clone(),
                path: path.clone(),
                allocated: allocated.unwrap_or(0),
                modified: seconds(modified),
                last_used: seconds(modified),
                image: None,
                fate: skipped(Skip::InUse),
            };
            let judgement = judge(&entry, &path, is_blind).unwrap_or_else(Judgement::Failed);
            let category = Category::Volume;
            let planned =
                Planned { category, item, id: None, used: modified, digest: entry.id, blobs: Vec::new() };
            self.add(planned, judgement);
        }
    }
}

fn judge(entry: &VolumeEntry, path: &Path, is_blind: bool) -> Result<Judgement> {
    if !entry.intended {
        return Ok(Judgement::skip(Skip::Unexplained));
    }
    if is_blind {
        return Ok(Judgement::skip(Skip::Unknown));
    }
    for part in [path.to_owned(), path.join("disk.ext4")] {
        match LockAttempt::on(&part, false)? {
            LockAttempt::Locked(lock) => lock.release(),
            LockAttempt::Busy => return Ok(Judgement::skip(Skip::InUse)),
            LockAttempt::Gone => {}
        }
    }
    Ok(Judgement::Removable("a volume that was removed"))
}

fn modified(path: &Path) -> i64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).map_or(0, |found| nanoseconds(found.mtime(), found.mtime_nsec()))
}
