//! What happens in each cycle, drawn from a seed: the same seed draws the same cycles.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How far the home's filesystem is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// To the last block: writes of QEMU fail.
    Brim,
    /// Below the emergency floor, to so many MiB.
    BelowFloor(u64),
}

/// What happens while the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    Nothing,
    /// `stop -t N` of the victim.
    Stop(u32),
    KillShim,
    KillQemu,
    /// `rm -f` of the victim.
    Remove,
    /// A start of a resting box, which must be refused.
    Start,
    /// `gc` and `gc --dry-run`, which must cost nobody anything.
    Collect,
    /// A start of an image that is not built, which must be refused.
    Build,
}

/// How there is space again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relief {
    /// What filled the disk is removed.
    All,
    /// It shrinks to just above the emergency floor, which is not enough to resume, and goes then.
    Steps,
    /// `gc` removes an image that was left as garbage.
    Collect,
}

/// What happens to the victim once all boxes have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sequel {
    Nothing,
    Stop,
    Restart,
    KillShim,
    KillQemu,
    /// A clone takes the place of another box, and has to know what its origin knew.
    Clone,
    /// The disk fills up so many ms after the start of a box whose image has to be built.
    AbortedBuild {
        after_ms: u64,
    },
    /// The filesystem of the volume fills up.
    FullVolume,
}

/// How it is seen that nothing is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audit {
    /// `sha256sum` in the box.
    Exec,
    /// `cp` to the host.
    Copy,
}

/// One cycle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cycle {
    /// Files that each box writes.
    pub(crate) files: u32,
    /// Size of each.
    pub(crate) kib: u32,
    pub(crate) fill: Fill,
    /// The box that is disturbed.
    pub(crate) victim: usize,
    pub(crate) disturbance: Disturbance,
    pub(crate) relief: Relief,
    pub(crate) sequel: Sequel,
    pub(crate) audit: Audit,
}

/// The cycles of a seed.
pub(crate) struct Schedule(StdRng);

impl Schedule {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Draws the next cycle of `boxes` boxes.
    pub(crate) fn next(&mut self, boxes: usize) -> Cycle {
        use Disturbance as D;
        let random = &mut self.0;
        let fill =
            if random.random_bool(0.5) { Fill::Brim } else { Fill::BelowFloor(random.random_range(2..16)) };
        let disturbance = match random.random_range(0..16) {
            0..6 => D::Nothing,
            6..8 => D::Stop(random.random_range(1..8)),
            8 => D::KillShim,
            9 => D::KillQemu,
            10 => D::Remove,
            11..13 => D::Start,
            13..15 => D::Collect,
            _ => D::Build,
        };
        let relief = match random.random_range(0..8) {
            0..4 => Relief::All,
            4..6 => Relief::Steps,
            _ => Relief::Collect,
        };
        let sequel = match random.random_range(0..16) {
            0..6 => Sequel::Nothing,
            6..8 => Sequel::Stop,
            8 => Sequel::Restart,
            9 => Sequel::KillShim,
            10 => Sequel::KillQemu,
            11..13 => Sequel::Clone,
            13 => Sequel::AbortedBuild { after_ms: random.random_range(0..1500) },
            _ => Sequel::FullVolume,
        };
        Cycle {
            files: random.random_range(2..7),
            kib: random.random_range(16..1024),
            fill,
            victim: random.random_range(0..boxes),
            disturbance,
            relief,
            sequel,
            audit: if random.random_bool(0.7) { Audit::Exec } else { Audit::Copy },
        }
    }
}
