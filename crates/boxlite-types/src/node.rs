//! A host as a node of a cluster: what a scheduler needs to know before it places boxes here.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{FreeSpace, Verdict};

/// Whether boxes should be placed on this host, with the figures behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCheck {
    /// [`Verdict::Reject`] where a start would be refused for want of space or inodes, or would hang;
    /// [`Verdict::Warn`] where it would be warned about, where memory is promised away, and where nothing could be measured.
    pub verdict: Verdict,
    /// Why it is not [`Verdict::Ok`], in one sentence.
    pub reason: Option<String>,
    /// The home.
    pub home: PathBuf,
    /// The home's filesystem; absent where it could not be measured.
    pub space: Option<NodeSpace>,
    /// The memory of boxes; absent where the host's could not be measured.
    pub memory: Option<NodeMemory>,
    /// Bytes that `gc` could free now; absent where that was not asked for, or is not known.
    pub reclaimable: Option<NodeReclaimable>,
}

/// The filesystem of a home beside the limits that its free space is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpace {
    /// Free space, as measured.
    pub free: FreeSpace,
    /// Bytes of it that running boxes and other operations claim.
    pub claimed: u64,
    /// Fewer free bytes are refused.
    pub hard_floor: u64,
    /// Fewer free bytes are warned about.
    pub soft_floor: u64,
    /// Fewer free inodes are refused; fewer than twice as many are warned about.
    pub inode_floor: u64,
}

/// The memory of boxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMemory {
    /// Bytes that boxes may be promised together.
    pub limit: u64,
    /// Bytes of it that are promised.
    pub promised: u64,
    /// Whether a box with the usual memory would be refused now.
    pub full: bool,
}

/// Bytes that gc could free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReclaimable {
    /// Allocated bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// The share of a box in the processors and the memory that this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allotment {
    /// Virtual processors.
    pub cpus: u32,
    /// Most processor time in hundredths of one processor, where that is less than `cpus` have.
    pub cpu_limit: Option<u32>,
    /// Bytes of memory for the box's guest; absent where no control group bounds this process.
    pub memory: Option<u64>,
}

impl Allotment {
    /// The processors of a process that may run on so many, and have so many hundredths of one processor's time.
    pub fn of_processors(processors: u32, percent: Option<u32>) -> Self {
        let cpus = percent.map_or(processors, |percent| processors.min(percent.div_ceil(100))).max(1);
        let cpu_limit = percent.filter(|percent| *percent < cpus * 100);
        Self { cpus, cpu_limit, memory: None }
    }
}

impl NodeSpace {
    /// By how much the floors are exceeded before a node that was short counts as well again, in percent.
    const MARGIN_PERCENT: u64 = 10;

    /// Bytes that nobody has claimed.
    pub fn left(&self) -> u64 {
        self.free.bytes.saturating_sub(self.claimed)
    }

    /// Bytes that boxes may fill before starts are refused, those that they claim already included.
    pub fn claimable(&self) -> u64 {
        self.free.bytes.saturating_sub(self.hard_floor)
    }

    /// Bytes to free until the soft floor is kept with a margin, so that the next box does not bring the shortage back.
    ///
    /// The free share of the filesystem does not count: no start is ever refused for it.
    pub fn lacking(&self) -> u64 {
        Self::with_margin(self.soft_floor.max(self.hard_floor)).saturating_sub(self.left())
    }

    /// Inodes to free until nothing would be said of them, with the same margin.
    pub fn lacking_inodes(&self) -> u64 {
        match self.free.inodes_total {
            0 => 0,
            _ => Self::with_margin(self.inode_floor.saturating_mul(2)).saturating_sub(self.free.inodes),
        }
    }

    fn with_margin(floor: u64) -> u64 {
        floor.saturating_add(floor / 100 * Self::MARGIN_PERCENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(bytes: u64, claimed: u64, inodes: u64) -> NodeSpace {
        let free = FreeSpace { bytes, bytes_total: 10_000, inodes, inodes_total: 1_000 };
        NodeSpace { free, claimed, hard_floor: 1_000, soft_floor: 5_000, inode_floor: 100 }
    }

    #[test]
    fn a_node_is_well_again_only_above_the_floors_with_a_margin() {
        assert_eq!((space(5_500, 0, 220).lacking(), space(5_500, 0, 220).lacking_inodes()), (0, 0));
        assert_eq!((space(5_499, 0, 219).lacking(), space(5_499, 0, 219).lacking_inodes()), (1, 1));
        assert_eq!(space(5_500, 700, 0).lacking(), 700, "what is claimed is as good as used");
        assert_eq!(space(100, 700, 0).lacking(), 5_500);
        let uncounted =
            NodeSpace { free: FreeSpace { inodes_total: 0, ..space(0, 0, 0).free }, ..space(0, 0, 0) };
        assert_eq!(uncounted.lacking_inodes(), 0);
    }

    #[test]
    fn a_box_gets_the_processors_and_the_time_of_its_process() {
        let of = |processors, percent| {
            let found = Allotment::of_processors(processors, percent);
            (found.cpus, found.cpu_limit)
        };
        assert_eq!(of(4, None), (4, None));
        assert_eq!(of(4, Some(200)), (2, None));
        assert_eq!(of(4, Some(150)), (2, Some(150)));
        assert_eq!(of(1, Some(50)), (1, Some(50)));
        assert_eq!(of(1, Some(800)), (1, None));
    }

    #[test]
    fn what_boxes_claim_stays_theirs_to_fill() {
        assert_eq!(space(3_000, 1_500, 0).claimable(), 2_000);
        assert_eq!(space(999, 0, 0).claimable(), 0);
    }
}
