//! The decision, from figures alone.

use boxlite_types::{FreeSpace, Verdict};
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

/// The limits that a verdict compares free space with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Fewer free bytes are rejected.
    pub hard_floor: u64,
    /// Fewer free bytes are warned about.
    pub soft_floor: u64,
    /// A smaller free share of the filesystem, in percent, is warned about; it is never rejected.
    pub soft_percent: u8,
    /// Fewer free inodes are rejected; fewer than twice as many are warned about.
    pub inode_floor: u64,
}

impl Thresholds {
    /// The thresholds in force.
    pub fn of(settings: &Settings) -> Self {
        Self {
            hard_floor: settings.hard_floor.value.0,
            soft_floor: settings.soft_floor.value.0,
            soft_percent: settings.soft_percent.value.0,
            inode_floor: settings.inode_floor.value,
        }
    }

    /// The thresholds of a start that claims `own` bytes: what it may write must fit above the `emergency` floor,
    /// where boxes are paused, and it is warned about when the next start would be refused once it has written that.
    /// The usual claims lie within the distance between the floors and change nothing.
    pub(super) fn with_claim(self, own: u64, emergency: u64) -> Self {
        Self {
            hard_floor: self.hard_floor.max(emergency.saturating_add(own)),
            soft_floor: self.soft_floor.max(self.hard_floor.saturating_add(own)),
            ..self
        }
    }

    /// The thresholds of an operation that only reads and writes next to nothing.
    pub(super) fn of_reading() -> Self {
        Self { hard_floor: 0, soft_floor: 0, soft_percent: 0, inode_floor: 0 }
    }
}

/// Judges `free` of `total` bytes.
pub fn classify(free: u64, total: u64, thresholds: &Thresholds) -> Verdict {
    let share = u128::from(total) * u128::from(thresholds.soft_percent);
    if free < thresholds.hard_floor {
        Verdict::Reject
    } else if free < thresholds.soft_floor || u128::from(free) * 100 < share {
        Verdict::Warn
    } else {
        Verdict::Ok
    }
}

/// Judges `free` of `total` inodes; a filesystem that counts none (`total` 0) always has enough.
pub fn classify_inodes(free: u64, total: u64, thresholds: &Thresholds) -> Verdict {
    if total == 0 {
        Verdict::Ok
    } else if free < thresholds.inode_floor {
        Verdict::Reject
    } else if free < thresholds.inode_floor.saturating_mul(2) {
        Verdict::Warn
    } else {
        Verdict::Ok
    }
}

/// Judges the rest of a filesystem of which `promised` bytes are claimed: the stricter of bytes and inodes.
pub fn judge(space: &FreeSpace, promised: u64, thresholds: &Thresholds) -> Verdict {
    let bytes = match space.bytes.checked_sub(promised) {
        Some(left) => classify(left, space.bytes_total, thresholds),
        None => Verdict::Reject,
    };
    bytes.max(classify_inodes(space.inodes, space.inodes_total, thresholds))
}

/// The shortage that remains until [`judge`] says [`Verdict::Ok`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Missing {
    /// Bytes to free.
    pub bytes: u64,
    /// Inodes to free.
    pub inodes: u64,
    /// Every floor is kept, and only the free share of the filesystem is small: what was used lately may stay.
    pub share_only: bool,
    /// The present verdict is [`Verdict::Reject`].
    pub critical: bool,
}

impl Missing {
    /// Whether nothing is missing.
    pub fn is_nothing(self) -> bool {
        self.bytes == 0 && self.inodes == 0
    }
}

/// An upper bound of what gc could free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reclaimable {
    /// Allocated bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// The best verdict that [`judge`] could give after gc has freed all of `reclaimable`.
pub fn outlook(
    space: &FreeSpace,
    promised: u64,
    reclaimable: Reclaimable,
    thresholds: &Thresholds,
) -> Verdict {
    let bytes = space.bytes.saturating_add(reclaimable.bytes);
    let inodes = space.inodes.saturating_add(reclaimable.inodes);
    judge(&FreeSpace { bytes, inodes, ..*space }, promised, thresholds)
}

/// The shortage until [`judge`] says [`Verdict::Ok`]; nothing exactly when it says so now.
///
/// As long as a floor is not kept, only what the floors want: then ask again about the share.
pub fn missing(space: &FreeSpace, promised: u64, thresholds: &Thresholds) -> Missing {
    let share = (u128::from(space.bytes_total) * u128::from(thresholds.soft_percent)).div_ceil(100) as u64;
    let lacking = |wanted: u64| wanted.saturating_add(promised).saturating_sub(space.bytes);
    let bytes = lacking(thresholds.soft_floor.max(thresholds.hard_floor));
    let inodes = match space.inodes_total {
        0 => 0,
        _ => thresholds.inode_floor.saturating_mul(2).saturating_sub(space.inodes),
    };
    if bytes > 0 || inodes > 0 {
        let critical = judge(space, promised, thresholds) == Verdict::Reject;
        return Missing { bytes, inodes, share_only: false, critical };
    }
    Missing { bytes: lacking(share), inodes, share_only: lacking(share) > 0, critical: false }
}
