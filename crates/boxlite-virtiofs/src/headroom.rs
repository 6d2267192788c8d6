//! Whether the host's disk has room for what the box wants to add, by the decision that a start is made with.

use std::time::{Duration, Instant};

use boxlite_home::admission::{Thresholds, judge};
use boxlite_types::{FreeSpace, Verdict};

/// How long a look at the filesystem is believed, less what was added since.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// So close to the floor every request looks again.
const CLOSE: u64 = 256 << 20;

/// The most that a request adds to a filesystem.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Growth {
    /// Bytes of a file that is there.
    Bytes(u64),
    /// A file, with so many bytes.
    File(u64),
}

impl Growth {
    /// Its bytes.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Bytes(bytes) | Self::File(bytes) => bytes,
        }
    }
}

/// What was free of a filesystem at the last look.
#[derive(Debug)]
pub(crate) struct Headroom {
    thresholds: Thresholds,
    last: Option<Look>,
}

#[derive(Debug)]
struct Look {
    inode: u64,
    when: Instant,
    space: FreeSpace,
}

impl Headroom {
    /// Keeps `hard_floor` bytes and `inode_floor` inodes free.
    pub(crate) fn new(hard_floor: u64, inode_floor: u64) -> Self {
        let thresholds = Thresholds { hard_floor, soft_floor: hard_floor, soft_percent: 0, inode_floor };
        Self { thresholds, last: None }
    }

    /// Bytes that are never given away.
    pub(crate) fn floor(&self) -> u64 {
        self.thresholds.hard_floor
    }

    /// Whether `growth` fits above the floors of the filesystem of `inode`, which `look` measures; it is taken off then. A filesystem that cannot be measured has room: the guard itself never stands in the way.
    pub(crate) fn take(
        &mut self,
        inode: u64,
        growth: Growth,
        look: impl FnOnce() -> Option<FreeSpace>,
    ) -> bool {
        let bytes = growth.bytes();
        let near = self.thresholds.hard_floor.saturating_add(bytes).saturating_add(CLOSE);
        let fresh = self.last.take().filter(|last| {
            last.inode == inode && last.when.elapsed() < LOOK_INTERVAL && last.space.bytes > near
        });
        let seen = fresh.or_else(|| Some(Look { inode, when: Instant::now(), space: look()? }));
        let Some(mut seen) = seen else { return true };
        let inode_floor = match growth {
            Growth::Bytes(_) => 0,
            Growth::File(_) => self.thresholds.inode_floor,
        };
        let fits =
            judge(&seen.space, bytes, &Thresholds { inode_floor, ..self.thresholds }) != Verdict::Reject;
        if fits {
            seen.space.bytes = seen.space.bytes.saturating_sub(bytes);
        }
        self.last = Some(seen);
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn free(bytes: u64, inodes: u64) -> FreeSpace {
        FreeSpace { bytes, bytes_total: 100 * GIB, inodes, inodes_total: 1_000_000 }
    }

    #[test]
    fn what_would_go_below_the_floor_does_not_fit() {
        let mut headroom = Headroom::new(GIB, 2000);
        assert!(headroom.take(1, Growth::Bytes(4096), || Some(free(GIB + 4096, 5000))));
        assert!(!headroom.take(1, Growth::Bytes(4097), || Some(free(GIB + 4096, 5000))));
        assert!(!headroom.take(1, Growth::File(0), || Some(free(50 * GIB, 1999))), "inodes have a floor too");
        assert!(
            headroom.take(1, Growth::Bytes(1), || Some(free(50 * GIB, 1999))),
            "which only new files meet"
        );
        assert!(
            headroom.take(1, Growth::Bytes(u64::MAX), || None),
            "what cannot be measured stands in nobody's way"
        );
    }

    #[test]
    fn a_look_is_believed_less_what_was_taken_since() {
        let mut headroom = Headroom::new(GIB, 0);
        assert!(headroom.take(1, Growth::Bytes(GIB), || Some(free(3 * GIB, 1))));
        assert!(headroom.take(1, Growth::Bytes(GIB / 4), || panic!("the last look is fresh")));
        let mut looked = false;
        headroom.take(1, Growth::Bytes(GIB / 2), || {
            looked = true;
            Some(free(GIB, 1))
        });
        assert!(looked, "close to the floor it looks again");
        assert!(
            !headroom.take(2, Growth::Bytes(1), || Some(free(GIB, 1))),
            "another file may be on another disk"
        );
    }
}
