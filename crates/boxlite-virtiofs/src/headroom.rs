//! Whether the host's disk has room for what the box wants to add, by the decision that a start is made with.

use std::time::{Duration, Instant};

use boxlite_home::admission::{Thresholds, judge};
use boxlite_types::{FreeSpace, Verdict};

use crate::numbered::NumberedMap;

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

/// Looks that are remembered; any is old after a tenth of a second.
const MAX_LOOKS: usize = 1000;

/// The free space of the filesystems that the guest writes to.
#[derive(Debug)]
pub(crate) struct Headroom {
    thresholds: Thresholds,
    /// The last looks, by the file that was looked at, whichever filesystem that is on.
    looks: NumberedMap<Look>,
    /// Bytes and files that were given away, on whichever.
    taken: GivenAway,
}

#[derive(Debug, Clone, Copy, Default)]
struct GivenAway {
    bytes: u64,
    files: u64,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    when: Instant,
    space: FreeSpace,
    before: GivenAway,
}

impl Look {
    /// Returns the space left if all that was given away since is on this filesystem.
    fn left(&self, taken: GivenAway) -> FreeSpace {
        let bytes = self.space.bytes.saturating_sub(taken.bytes - self.before.bytes);
        let inodes = self.space.inodes.saturating_sub(taken.files - self.before.files);
        FreeSpace { bytes, inodes, ..self.space }
    }
}

impl Headroom {
    /// Keeps `hard_floor` bytes and `inode_floor` inodes free.
    pub(crate) fn new(hard_floor: u64, inode_floor: u64) -> Self {
        let thresholds = Thresholds { hard_floor, soft_floor: hard_floor, soft_percent: 0, inode_floor };
        Self { thresholds, looks: NumberedMap::default(), taken: GivenAway::default() }
    }

    /// Bytes that are never given away.
    pub(crate) fn floor(&self) -> u64 {
        self.thresholds.hard_floor
    }

    /// Whether `growth` fits above the floors of the filesystem of `inode`, which `look` measures; it is taken off then. A filesystem
    /// that cannot be measured has room: the guard itself never stands in the way.
    pub(crate) fn take(
        &mut self,
        inode: u64,
        growth: Growth,
        look: impl FnOnce() -> Option<FreeSpace>,
    ) -> bool {
        let bytes = growth.bytes();
        let near = self.thresholds.hard_floor.saturating_add(bytes).saturating_add(CLOSE);
        let last = self.looks.get(&inode).filter(|look| look.when.elapsed() < LOOK_INTERVAL);
        let fresh = last.map(|look| look.left(self.taken)).filter(|left| left.bytes > near);
        let space = if let Some(left) = fresh {
            left
        } else {
            let Some(space) = look() else { return true };
            self.remember(inode, Look { when: Instant::now(), space, before: self.taken });
            space
        };
        let inode_floor = match growth {
            Growth::Bytes(_) => 0,
            Growth::File(_) => self.thresholds.inode_floor,
        };
        let fits = judge(&space, bytes, &Thresholds { inode_floor, ..self.thresholds }) != Verdict::Reject;
        if fits {
            self.taken.bytes = self.taken.bytes.saturating_add(bytes);
            self.taken.files += u64::from(matches!(growth, Growth::File(_)));
        }
        fits
    }

    /// Notes that `made` is a new file in `directory`, so on its filesystem: the last look there is good for it too.
    pub(crate) fn made(&mut self, directory: u64, made: u64) {
        if let Some(&look) = self.looks.get(&directory) {
            self.remember(made, look);
        }
    }

    fn remember(&mut self, inode: u64, look: Look) {
        if self.looks.len() >= MAX_LOOKS {
            self.looks.clear();
        }
        self.looks.insert(inode, look);
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
    fn a_new_file_is_on_the_filesystem_of_its_directory() {
        let mut headroom = Headroom::new(GIB, 0);
        assert!(headroom.take(1, Growth::File(GIB), || Some(free(4 * GIB, 9))));
        headroom.made(1, 2);
        assert!(headroom.take(2, Growth::Bytes(GIB), || panic!("its directory was just looked at")));
        assert!(
            !headroom.take(2, Growth::Bytes(2 * GIB), || Some(free(2 * GIB, 9))),
            "it is looked at when it is close"
        );
        headroom.made(7, 8);
        let mut looked = false;
        headroom.take(8, Growth::Bytes(1), || {
            looked = true;
            Some(free(4 * GIB, 9))
        });
        assert!(looked, "nothing is known of its directory");
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
        // Or on the same one: what one of them takes is taken from all.
        assert!(headroom.take(3, Growth::Bytes(1), || Some(free(4 * GIB, 1))));
        assert!(headroom.take(4, Growth::Bytes(2 * GIB), || Some(free(4 * GIB, 1))));
        assert!(!headroom.take(3, Growth::Bytes(2 * GIB), || Some(free(2 * GIB, 1))));
    }
}
