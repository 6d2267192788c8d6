//! Counts of what a run did and saw.

use std::fmt;
use std::time::Instant;

/// Counters of a run.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    began: Instant,
    pub(crate) cycles: u64,
    pub(crate) pauses: u64,
    pub(crate) stops: u64,
    pub(crate) unclean_stops: u64,
    pub(crate) kills: u64,
    pub(crate) removals: u64,
    pub(crate) clones: u64,
    pub(crate) refusals: u64,
    pub(crate) builds: u64,
    pub(crate) aborted_builds: u64,
    pub(crate) full_volumes: u64,
    pub(crate) files: u64,
    pub(crate) audits: u64,
    pub(crate) disks: u64,
    pub(crate) reclaimed: u64,
}

impl Figures {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            cycles: 0,
            pauses: 0,
            stops: 0,
            unclean_stops: 0,
            kills: 0,
            removals: 0,
            clones: 0,
            refusals: 0,
            builds: 0,
            aborted_builds: 0,
            full_volumes: 0,
            files: 0,
            audits: 0,
            disks: 0,
            reclaimed: 0,
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.began.elapsed().as_secs();
        writeln!(f, "cycles of fill, pause, relief             {} in {seconds} s", self.cycles)?;
        writeln!(f, "guests seen paused                        {}", self.pauses)?;
        writeln!(f, "stops, of these with unflushed writes     {}, {}", self.stops, self.unclean_stops)?;
        writeln!(f, "kills of a shim or of QEMU                {}", self.kills)?;
        writeln!(f, "boxes removed by force, cloned            {}, {}", self.removals, self.clones)?;
        writeln!(f, "starts and builds refused below the floor {}", self.refusals)?;
        writeln!(f, "builds that the disk ended, all           {}, {}", self.aborted_builds, self.builds)?;
        writeln!(f, "volumes filled                            {}", self.full_volumes)?;
        writeln!(f, "bytes that gc reclaimed                   {}", self.reclaimed)?;
        writeln!(f, "files reported, comparisons of a box      {}, {}", self.files, self.audits)?;
        writeln!(f, "disks that qemu-img and e2fsck examined   {}", self.disks)?;
        write!(f, "guests lost, bytes wrong                  0, 0 (else the run ends)")
    }
}
