//! When the guest is paused for the sake of the host's disk: a pure decision over measurements and events.

use crate::shim::launch::DiskFloors;

/// While a box is being stopped its guest may flush down to this fraction of the floor.
const STOPPING_DIVISOR: u64 = 4;

/// Whether the host's disk lets the guest run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PausePolicy {
    floors: DiskFloors,
    paused: Option<Cause>,
    stopping: bool,
}

/// Why the guest is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Free space fell below the floor.
    BelowFloor {
        /// Bytes that were free then.
        free: u64,
    },
    /// A write met a full disk, and QEMU paused the guest by itself.
    DiskFull,
}

/// What to do about the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Leave it as it is.
    None,
    /// Pause it now.
    Pause,
    /// Let it go on.
    Resume,
}

impl PausePolicy {
    /// A guard over a guest that runs.
    pub(crate) fn new(floors: DiskFloors) -> Self {
        Self { floors, paused: None, stopping: false }
    }

    /// Why the guest is paused, if it is.
    pub(crate) fn paused(&self) -> Option<Cause> {
        self.paused
    }

    /// From now on the guest is only finishing.
    pub(crate) fn stopping(&mut self) {
        self.stopping = true;
    }

    /// Judges a measurement of the overlay's filesystem; `None` when it could not be measured.
    ///
    /// An unmeasurable filesystem never pauses a guest. A guest that met a full disk resumes at any measurement above
    /// the threshold, and without a measurement: if the disk is still full, QEMU pauses it again and nothing is lost.
    pub(crate) fn measured(&mut self, free: Option<u64>) -> Action {
        match (self.paused, free) {
            (None, Some(free)) if free < self.pause_below() => {
                self.paused = Some(Cause::BelowFloor { free });
                Action::Pause
            }
            (Some(_), Some(free)) if free >= self.resume_at() => self.resume(),
            (Some(_), None) => self.resume(),
            _ => Action::None,
        }
    }

    /// QEMU reports that a write met a full disk and that it paused the guest.
    pub(crate) fn disk_full(&mut self) {
        self.paused = Some(Cause::DiskFull);
    }

    fn resume(&mut self) -> Action {
        self.paused = None;
        Action::Resume
    }

    fn pause_below(&self) -> u64 {
        if self.stopping { self.floors.pause_below / STOPPING_DIVISOR } else { self.floors.pause_below }
    }

    fn resume_at(&self) -> u64 {
        let floor =
            if self.stopping { self.floors.resume_at / STOPPING_DIVISOR } else { self.floors.resume_at };
        // A guest that met a full disk needs at least a cluster to make any progress.
        floor.max(self.pause_below() + 1).max(1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const FLOORS: DiskFloors = DiskFloors { pause_below: 512 * MIB, resume_at: 768 * MIB };

    /// Mutation tried: `<=` instead of `<` fails the first line, and two more tests.
    #[test]
    fn the_guest_is_paused_below_the_floor_and_goes_on_above_the_hysteresis() {
        let mut guard = PausePolicy::new(FLOORS);
        assert_eq!(guard.measured(Some(512 * MIB)), Action::None);
        assert_eq!(guard.measured(Some(512 * MIB - 1)), Action::Pause);
        assert_eq!(guard.paused(), Some(Cause::BelowFloor { free: 512 * MIB - 1 }));
        assert_eq!(guard.measured(Some(600 * MIB)), Action::None);
        assert_eq!(guard.measured(Some(768 * MIB)), Action::Resume);
        assert_eq!(guard.paused(), None);
        assert_eq!(guard.measured(Some(700 * MIB)), Action::None);
    }

    #[test]
    fn a_full_disk_is_waited_out_and_an_unknown_one_never_blocks() {
        let mut guard = PausePolicy::new(DiskFloors { pause_below: 0, resume_at: 0 });
        assert_eq!(guard.measured(Some(0)), Action::None);
        guard.disk_full();
        assert_eq!(guard.measured(Some(0)), Action::None);
        assert_eq!(guard.measured(Some(MIB - 1)), Action::None);
        assert_eq!(guard.measured(Some(MIB)), Action::Resume);
        guard.disk_full();
        assert_eq!(guard.measured(None), Action::Resume);
        assert_eq!(guard.measured(None), Action::None);
    }

    #[test]
    fn a_guest_that_is_stopping_may_flush_further_down() {
        let mut guard = PausePolicy::new(FLOORS);
        assert_eq!(guard.measured(Some(300 * MIB)), Action::Pause);
        guard.stopping();
        assert_eq!(guard.measured(Some(300 * MIB)), Action::Resume);
        assert_eq!(guard.measured(Some(128 * MIB)), Action::None);
        assert_eq!(guard.measured(Some(127 * MIB)), Action::Pause);
    }
}
