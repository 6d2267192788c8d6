//! When the guest is paused for the sake of the host's disk: a pure decision over measurements and events.
//!
//! A guest runs while neither the host nor its own quota keeps it from that. Each is judged by itself, so that what the
//! one demands holds when the other has given way. Where both do, the quota is the cause that is shown: room on the host
//! comes back by itself, while somebody must raise the quota.
//!
//! # The host
//! Every box decides for itself by the same rule, so that no box needs to know of the others: the more a box has
//! written of late, the more must be free for it to run. The fastest writers are paused first, at the floor; slower
//! ones may go further down, to half of it; and a box that writes nothing runs on.

use crate::shim::launch::DiskFloors;
use crate::shim::quota::{DiskQuota, QuotaPolicy};

/// While a box is being stopped its guest may flush down to this fraction of the floor.
const STOPPING_DIVISOR: u64 = 4;

/// Below this fraction of the floor no writer runs.
const BOTTOM_DIVISOR: u64 = 2;

/// The bytes that a box has written of late must fit this many times above the bottom.
const GROWTH_FACTOR: u64 = 2;

/// A guest that met a full disk needs at least some clusters to make any progress.
const LEAST_PROGRESS: u64 = 1 << 20;

/// Whether the host's filesystems and the box's quota let the guest run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PausePolicy {
    /// Those of each watched filesystem; the first is the overlay's.
    floors: Vec<DiskFloors>,
    host: Option<HostPause>,
    quota: QuotaPolicy,
    /// The quota, by the last measurement; never of a guest that is finishing.
    over_quota: bool,
    finishing: Finishing,
}

/// How far a stop has come that lets the guest write below the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finishing {
    /// The box is not being stopped.
    No,
    /// It is, and a part of the floor is enough for its guest.
    BelowFloor,
    /// That was not enough: the reserve was released, and the guest may write until the disk is full.
    OfReserve,
}

/// Why the guest is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PausedBy {
    /// The box has used up its quota.
    Quota,
    /// The host has too little space.
    Host(HostPause),
}

/// Why the host keeps the guest from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostPause {
    /// Too little is free on the watched filesystem of this index.
    Floor(usize),
    /// A write met a full disk, and QEMU paused the guest by itself.
    DiskFull,
}

impl HostPause {
    /// The index of the filesystem that is short.
    pub(crate) fn place(self) -> usize {
        match self {
            Self::Floor(index) => index,
            Self::DiskFull => 0,
        }
    }
}

/// A measurement of the overlay and of each watched filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpaceReadings {
    /// Each watched filesystem; the first is the overlay's.
    pub(crate) places: Vec<SpaceReading>,
    /// Allocated bytes of the overlay; `None` when they could not be measured.
    pub(crate) overlay: Option<u64>,
    /// The same of overlay and named volumes together.
    pub(crate) written: Option<u64>,
}

/// A measurement of one watched filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpaceReading {
    /// Bytes free; `None` when they could not be measured.
    pub(crate) free: Option<u64>,
    /// Bytes that the box has taken there of late; `None` when that is not known.
    pub(crate) grown: Option<u64>,
}

/// The action on the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Leave it as it is.
    None,
    /// Pause it now.
    Pause,
    /// Let it go on.
    Resume,
    /// Release the home's flush reserve: without it the guest cannot finish.
    Release,
}

impl PausePolicy {
    /// A policy for a guest that runs, over filesystems with these floors, under this quota.
    pub(crate) fn new(floors: Vec<DiskFloors>, quota: Option<DiskQuota>) -> Self {
        let quota = QuotaPolicy::new(quota);
        Self { floors, host: None, quota, over_quota: false, finishing: Finishing::No }
    }

    /// Why the guest is paused, if it is.
    pub(crate) fn paused(&self) -> Option<PausedBy> {
        if self.over_quota { Some(PausedBy::Quota) } else { self.host.map(PausedBy::Host) }
    }

    /// The quota that is in force.
    pub(crate) fn quota(&self) -> Option<DiskQuota> {
        self.quota.quota()
    }

    /// Puts another quota in force, which the next measurement is judged by.
    pub(crate) fn set_quota(&mut self, quota: Option<DiskQuota>) {
        self.quota.set(quota);
    }

    /// From now on the guest is only finishing.
    pub(crate) fn stopping(&mut self) {
        if self.finishing == Finishing::No {
            self.finishing = Finishing::BelowFloor;
        }
    }

    /// Judges a measurement.
    ///
    /// An unmeasurable filesystem never pauses a guest. A guest that met a full disk resumes at any measurement above
    /// the threshold, and without a measurement: if the disk is still full, QEMU pauses it again and nothing is lost.
    ///
    /// A guest that is being stopped is not paused for the overlay's filesystem before the flush reserve was released,
    /// and not at all for its quota: what it has not synced may pass that.
    pub(crate) fn measured(&mut self, readings: &SpaceReadings) -> Action {
        if self.finishing == Finishing::BelowFloor && self.is_held_up(&readings.places) {
            self.finishing = Finishing::OfReserve;
            return Action::Release;
        }
        let ran = self.paused().is_none();
        self.over_quota = self.quota.measured(readings.overlay) && self.finishing == Finishing::No;
        self.host = self.judged_by_host(&readings.places);
        match (ran, self.paused().is_none()) {
            (true, false) => Action::Pause,
            (false, true) => Action::Resume,
            _ => Action::None,
        }
    }

    /// QEMU reports that a write met a full disk and that it paused the guest.
    pub(crate) fn disk_full(&mut self) {
        self.host = Some(HostPause::DiskFull);
    }

    /// Whether somebody should look for space on the overlay's filesystem: the guest is paused, or about to be.
    pub(crate) fn needs_space(&self, readings: &[SpaceReading]) -> bool {
        match self.paused() {
            Some(PausedBy::Quota) => return false,
            Some(PausedBy::Host(by)) => return by.place() == 0,
            None => {}
        }
        let soon = |reading: &SpaceReading| {
            let grown = reading.grown.unwrap_or(u64::MAX);
            grown > 0
                && reading
                    .free
                    .is_some_and(|free| free < self.floor(0).saturating_add(grown.min(self.floor(0))))
        };
        readings.first().is_some_and(soon)
    }

    /// Free bytes of the watched filesystem `index` at which a guest goes on that was paused for it.
    pub(crate) fn resumes_at(&self, index: usize) -> u64 {
        let resume_at = self.floors.get(index).map_or(0, |floors| floors.resume_at);
        let resume_at = self.scaled(resume_at);
        resume_at.max(self.floor(index) + 1).max(LEAST_PROGRESS)
    }

    fn judged_by_host(&self, readings: &[SpaceReading]) -> Option<HostPause> {
        match self.host {
            None => {
                let short = |(index, reading): (usize, &SpaceReading)| {
                    self.is_short(index, *reading).then_some(HostPause::Floor(index))
                };
                readings.iter().enumerate().find_map(short)
            }
            Some(by) => {
                let free = readings.get(by.place()).and_then(|reading| reading.free);
                free.is_some_and(|free| free < self.resumes_at(by.place())).then_some(by)
            }
        }
    }

    /// Whether the overlay's filesystem keeps the guest from running, or is about to.
    fn is_held_up(&self, readings: &[SpaceReading]) -> bool {
        let Some(reading) = readings.first() else { return false };
        match self.host {
            None => self.is_short(0, *reading),
            Some(by) => by.place() == 0 && reading.free.is_some_and(|free| free < self.resumes_at(0)),
        }
    }

    fn is_short(&self, index: usize, reading: SpaceReading) -> bool {
        let floor = self.floor(index);
        let limit = match reading.grown {
            Some(0) => 0,
            Some(grown) => floor.min(floor / BOTTOM_DIVISOR + grown.saturating_mul(GROWTH_FACTOR)),
            None => floor,
        };
        reading.free.is_some_and(|free| free < limit)
    }

    fn floor(&self, index: usize) -> u64 {
        let floor = self.floors.get(index).map_or(0, |floors| floors.pause_below);
        self.scaled(floor)
    }

    /// The part of a floor that counts by now.
    fn scaled(&self, floor: u64) -> u64 {
        match self.finishing {
            Finishing::No => floor,
            Finishing::BelowFloor => floor / STOPPING_DIVISOR,
            Finishing::OfReserve => 0,
        }
    }
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
