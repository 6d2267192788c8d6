//! Why a box's guest is paused, shown by its shim to whoever looks at the box.
//!
//! The room for it is taken before the box runs, so that a pause can be shown on a full disk. What is shown concerns one
//! run and is not durable: the shim takes it back when the guest resumes, and an observer believes it only while
//! that run lasts.

use std::path::{Path, PathBuf};

use boxlite_home::BoxPaths;
use boxlite_home::durable::{self, Slot};
use boxlite_types::{Error, Pause, PauseCause, QuotaUse, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::quota::DiskQuota;

/// A pause of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ShownPause {
    run_id: String,
    pause: Pause,
}

/// Returns why run `run_id` of the box at `paths` is paused, with the bytes that are free or used now; `None` while it
/// is not.
///
/// # Errors
/// `Corrupt` for a file that no shim writes.
pub fn read_pause(paths: &BoxPaths, run_id: &str) -> Result<Option<Pause>> {
    let path = paths.pause();
    let Some(contents) = Slot::read(&path)? else { return Ok(None) };
    let shown: ShownPause = serde_json::from_slice(&contents).map_err(|error| {
        Error::corrupt(format!("{} does not say why a box is paused", path.display()))
            .at(&path)
            .because(error)
    })?;
    if shown.run_id != run_id {
        return Ok(None);
    }
    if shown.pause.cause == PauseCause::User {
        return Ok(Some(shown.pause));
    }
    let Some(QuotaUse { limit, .. }) = shown.pause.quota else {
        let free = durable::free_space(&shown.pause.path).map(|space| space.bytes).ok();
        return Ok(Some(Pause { free, ..shown.pause }));
    };
    let used = durable::allocated_of(&shown.pause.path).ok();
    let free = used.map(|used| limit.saturating_sub(used));
    Ok(Some(Pause { free, quota: Some(QuotaUse { used, limit }), ..shown.pause }))
}

/// The place of a pause, from which its figures follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PauseReason<'a> {
    pub(crate) cause: PauseCause,
    pub(crate) path: &'a Path,
    pub(crate) resumes_at: u64,
    pub(crate) quota: Option<DiskQuota>,
}

impl<'a> PauseReason<'a> {
    /// The user has paused the box in this directory.
    pub(crate) fn user(box_dir: &'a Path) -> Self {
        Self { cause: PauseCause::User, path: box_dir, resumes_at: 0, quota: None }
    }

    /// The quota of the box with this overlay is used up.
    pub(crate) fn quota(quota: DiskQuota, overlay: &'a Path) -> Self {
        let resumes_at = DiskQuota::LEAST_ROOM;
        Self { cause: PauseCause::DiskQuota, path: overlay, resumes_at, quota: Some(quota) }
    }
}

/// The reason that the slot shows, with a path of its own.
#[derive(Debug, PartialEq, Eq)]
struct ShownReason {
    cause: PauseCause,
    path: PathBuf,
    resumes_at: u64,
    quota: Option<DiskQuota>,
}

/// A change of the shown reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PauseChange {
    None,
    Paused(PauseCause),
    GoesOn,
}

/// The room in which one run shows its pauses.
#[derive(Debug)]
pub(crate) struct PauseSlot {
    slot: Slot,
    run_id: String,
    shown: Option<ShownReason>,
}

impl PauseSlot {
    /// Takes the room at `path` and forgets what an earlier run showed.
    pub(crate) fn reserve(path: &Path, run_id: &str) -> Result<Self> {
        Ok(Self { slot: Slot::emptied(path)?, run_id: run_id.to_owned(), shown: None })
    }

    /// Shows that the guest is paused for this reason, or that it is not; writes nothing while that stays the same.
    pub(crate) fn show(&mut self, reason: Option<PauseReason<'_>>) -> Result<PauseChange> {
        let reason = reason.map(|PauseReason { cause, path, resumes_at, quota }| ShownReason {
            cause,
            path: path.to_owned(),
            resumes_at,
            quota,
        });
        if reason == self.shown {
            return Ok(PauseChange::None);
        }
        self.shown = reason;
        let change = match &self.shown {
            None => PauseChange::GoesOn,
            Some(reason) => PauseChange::Paused(reason.cause),
        };
        match &self.shown {
            None => {
                tracing::info!("the guest resumes");
                self.slot.clear()?;
            }
            Some(reason) => {
                tracing::warn!(?reason, "the guest is paused");
                self.slot.write_volatile(&self.text(reason)?)?;
            }
        }
        Ok(change)
    }

    fn text(&self, reason: &ShownReason) -> Result<Vec<u8>> {
        let pause = Pause {
            since: Timestamp::now(),
            cause: reason.cause,
            path: reason.path.clone(),
            free: None,
            resumes_at: reason.resumes_at,
            quota: reason.quota.map(|DiskQuota(limit)| QuotaUse { used: None, limit }),
        };
        serde_json::to_vec(&ShownPause { run_id: self.run_id.clone(), pause })
            .map_err(|error| Error::invalid("a pause does not serialise").because(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_shown_for_its_own_run_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let paths = BoxPaths::new(directory.path().to_owned());
        assert_eq!(read_pause(&paths, "r1").unwrap(), None);
        let mut slot = PauseSlot::reserve(&paths.pause(), "r1").unwrap();
        let reason =
            PauseReason { cause: PauseCause::HostDisk, path: directory.path(), resumes_at: 7, quota: None };
        slot.show(Some(reason)).unwrap();
        let pause = read_pause(&paths, "r1").unwrap().unwrap();
        assert_eq!((pause.cause, pause.resumes_at), (PauseCause::HostDisk, 7));
        assert!(pause.free.is_some());
        slot.show(Some(reason)).unwrap();
        assert_eq!(read_pause(&paths, "r1").unwrap().unwrap().since, pause.since);
        assert_eq!(read_pause(&paths, "r2").unwrap(), None);
        slot.show(None).unwrap();
        assert_eq!(read_pause(&paths, "r1").unwrap(), None);
        slot.show(Some(reason)).unwrap();
        PauseSlot::reserve(&paths.pause(), "r1").unwrap();
        assert_eq!(read_pause(&paths, "r1").unwrap(), None);
    }

    /// Mutation tried: without measuring when it is read, nothing counts as used.
    #[test]
    fn a_quota_is_shown_with_what_is_used_of_it_now() {
        let directory = tempfile::tempdir().unwrap();
        let paths = BoxPaths::new(directory.path().to_owned());
        let overlay = directory.path().join("overlay");
        std::fs::write(&overlay, [1; 8192]).unwrap();
        let used = durable::allocated_of(&overlay).unwrap();
        let mut slot = PauseSlot::reserve(&paths.pause(), "r1").unwrap();
        for (limit, free) in [(4096, 0), (used + 5, 5)] {
            slot.show(Some(PauseReason::quota(DiskQuota(limit), &overlay))).unwrap();
            let pause = read_pause(&paths, "r1").unwrap().unwrap();
            assert_eq!((pause.cause, pause.free), (PauseCause::DiskQuota, Some(free)));
            assert_eq!(pause.quota, Some(QuotaUse { used: Some(used), limit }));
        }
    }
}
