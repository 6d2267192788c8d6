//! The memory of automatic gc between passes, in any process.
//!
//! # Encoding
//!
//! It lies in the timestamps of the file `claims`, which cost no space and no name on a full disk. The file's contents
//! and its byte-range locks belong to admission; nobody else sets its times.
//!
//! | modified | accessed | meaning |
//! | --- | --- | --- |
//! | 0 | anything | nothing is known: a pass may find something |
//! | 1 s | anything | a pass is under way, or was killed |
//! | later | when, and nanoseconds | the pass that ended at *modified* found too little |
//!
//! In the third row the seconds of *accessed* are those from which another pass may find more, because a grace ends by
//! then or because events that no process announces (a crash, an ended lease) are due another look. Its nanoseconds are
//! `2 * digest + spared`: a [`StoredState`], and whether disk images were spared that a more urgent goal may take.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use boxlite_home::Home;
use boxlite_types::{Doing, Result};
use rustix::fs::{Timespec, Timestamps};

const UNDER_WAY: i64 = 1;

/// The outcome of earlier passes, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PassMemory {
    /// Nothing.
    Unknown,
    /// A pass is under way, or was killed.
    UnderWay,
    /// The last pass found too little.
    Fruitless {
        ended: SystemTime,
        /// From when another pass may find more; written in whole seconds.
        again: SystemTime,
        /// The stored files when it ended.
        stored: StoredState,
        /// Disk images were left that a pass with a more urgent goal may take.
        spared: bool,
    },
}

/// A digest of when something was last published or removed.
///
/// Comparing times would not do, for a kernel's clock ticks in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredState(u32);

impl StoredState {
    pub(super) fn of(home: &Home) -> Result<Self> {
        let mut digest = std::hash::DefaultHasher::new();
        for directory in [home.disk_images(), home.deltas(), home.bases(), home.blobs()] {
            match std::fs::metadata(&directory).and_then(|found| found.modified()) {
                // Before its first delta a home has no directory for them.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                modified => modified.doing("examining", &directory)?.hash(&mut digest),
            }
        }
        Ok(Self((digest.finish() % 400_000_000) as u32))
    }
}

impl PassMemory {
    /// Reads what is remembered in the open claims file.
    pub(super) fn read(file: &File, path: &Path) -> Result<Self> {
        let found = file.metadata().doing("examining", path)?;
        Ok(match (found.mtime(), found.mtime_nsec()) {
            (0, 0) => Self::Unknown,
            (UNDER_WAY, _) => Self::UnderWay,
            _ => Self::Fruitless {
                ended: found.modified().doing("examining", path)?,
                again: found.accessed().doing("examining", path)?,
                stored: StoredState((found.atime_nsec() / 2) as u32),
                spared: found.atime_nsec() % 2 == 1,
            },
        })
    }

    /// Writes this down. A failure to write costs a superfluous pass, nothing else.
    pub(super) fn write(self, file: &File) {
        let times = match self {
            Self::Unknown => timestamps(seconds(0), seconds(0)),
            Self::UnderWay => timestamps(seconds(UNDER_WAY), seconds(0)),
            Self::Fruitless { ended, again, stored, spared } => {
                let noted = i64::from(stored.0) * 2 + i64::from(spared);
                // Too early is better than too late.
                let again = Timespec { tv_sec: timespec(again).tv_sec - 1, tv_nsec: noted };
                timestamps(timespec(ended), again)
            }
        };
        let _ = rustix::fs::futimens(file, &times);
    }
}

/// Tells automatic gc that something was released: a box was removed, an image lost its name.
///
/// Never fails: at worst a pass comes a minute later.
pub fn note_release(home: &Home) {
    if let Ok(file) = File::options().write(true).open(home.claims()) {
        PassMemory::Unknown.write(&file);
    }
}

fn timestamps(last_modification: Timespec, last_access: Timespec) -> Timestamps {
    Timestamps { last_access, last_modification }
}

fn seconds(seconds: i64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: 0 }
}

fn timespec(time: SystemTime) -> Timespec {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timespec { tv_sec: since.as_secs().cast_signed(), tv_nsec: since.subsec_nanos().into() }
}
