//! The contents of a delta: their sum, and when they must be compared with it again.
//!
//! Reading all contents at each start would cost more than the start. So an attribute of the file remembers in which
//! state its contents were right: inode, birth, length, modification time. A copy, a restored file and one that was
//! written to have another state, and are read once. The attribute allocates nothing, goes with the file, and is never
//! needed: without it the contents are read again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use rustix::fs::{AtFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::CLUSTER;

/// The attribute of a file whose contents were right. Its name and value fit beside the inode.
const ATTRIBUTE: &str = "user.boxlite.sound";
const STATE_LENGTH: usize = 16;
/// Bytes that are read at a time.
const PIECE: u64 = 256 << 10;

/// The SHA-256 of the clusters between the header and the metadata.
pub(super) fn sum(file: &File, metadata_at: u64) -> io::Result<[u8; 32]> {
    let mut sum = PartialSum::default();
    sum.extend(file, metadata_at / CLUSTER)?;
    Ok(sum.hasher.finalize().into())
}

/// The sum of the first clusters behind the header.
#[derive(Default)]
struct PartialSum {
    hasher: Sha256,
    /// How many clusters it is of.
    clusters: u64,
}

impl PartialSum {
    /// Takes in the clusters before the cluster `end`.
    fn extend(&mut self, file: &File, end: u64) -> io::Result<()> {
        let mut piece = vec![0; PIECE.min((end - 1 - self.clusters) * CLUSTER) as usize];
        while self.clusters + 1 < end {
            let left = (end - 1 - self.clusters) * CLUSTER;
            let count = (piece.len() as u64).min(left) as usize;
            file.read_exact_at(&mut piece[..count], (self.clusters + 1) * CLUSTER)?;
            self.hasher.update(&piece[..count]);
            self.clusters += count as u64 / CLUSTER;
        }
        Ok(())
    }
}

/// The sum of contents that are being written: a thread takes it beside the writer, while clusters come one behind the
/// other, as they do for most of a delta.
#[derive(Debug, Default)]
pub(super) struct RunningSum {
    follower: Option<SumFollower>,
    /// Clusters that came one behind the other.
    clusters: u64,
    /// One of them has changed since.
    is_stale: bool,
}

impl RunningSum {
    /// Takes note that `count` clusters were written to `file` at `cluster`; the first one is 1.
    pub(super) fn written(&mut self, file: &File, cluster: u64, count: u64) {
        if self.is_stale || cluster != self.clusters + 1 {
            return self.dropped();
        }
        self.clusters += count;
        if self.follower.is_none() && self.clusters * CLUSTER >= PIECE {
            self.follower = SumFollower::start(file);
        }
        if let Some(follower) = &self.follower {
            follower.tell(self.clusters + 1);
        }
    }

    /// Takes note that a cluster's contents go.
    pub(super) fn dropped(&mut self) {
        self.is_stale = true;
        self.follower = None;
    }

    /// The sum of the clusters before `metadata_at`, all of which `file` holds by now.
    pub(super) fn finish(mut self, file: &File, metadata_at: u64) -> io::Result<[u8; 32]> {
        let mut sum = match self.follower.take().filter(|_| !self.is_stale) {
            Some(follower) => follower.finish()?,
            None => PartialSum::default(),
        };
        sum.extend(file, metadata_at / CLUSTER)?;
        Ok(sum.hasher.finalize().into())
    }
}

/// A thread that reads contents behind their writer, from the page cache, and sums them up.
#[derive(Debug)]
struct SumFollower {
    /// The cluster up to which they are written; `None` once nothing more comes.
    ends: Option<Sender<u64>>,
    thread: Option<JoinHandle<io::Result<PartialSum>>>,
}

impl SumFollower {
    /// Begins, unless there is no descriptor or thread to be had: then the sum is taken in the end.
    fn start(file: &File) -> Option<Self> {
        let file = file.try_clone().ok()?;
        let (ends, written) = channel::<u64>();
        let follow = move || {
            let mut sum = PartialSum::default();
            while let Ok(end) = written.recv() {
                sum.extend(&file, written.try_iter().last().unwrap_or(end))?;
            }
            Ok(sum)
        };
        let thread = thread::Builder::new().spawn(follow).ok()?;
        Some(Self { ends: Some(ends), thread: Some(thread) })
    }

    fn tell(&self, end: u64) {
        // One that has failed says so in the end.
        let _ = self.ends.as_ref().map(|ends| ends.send(end));
    }

    fn finish(mut self) -> io::Result<PartialSum> {
        self.join().unwrap_or_else(|| Ok(PartialSum::default()))
    }

    /// `None` for a thread that panicked.
    fn join(&mut self) -> Option<io::Result<PartialSum>> {
        self.ends = None;
        self.thread.take()?.join().ok()
    }
}

/// No thread goes on with the file of a writer that is gone: its descriptor has the lock of the staged file.
impl Drop for SumFollower {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// What changes when a file's bytes do, short of damage below the filesystem and of a modification time that was put
/// back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentState([u8; STATE_LENGTH]);

impl ContentState {
    /// The state of `file`, whose header and metadata have the sum `seal`.
    pub(super) fn of(file: &File, seal: &[u8]) -> io::Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, wanted)?;
        let mut hasher = Sha256::new();
        for word in [found.stx_ino, found.stx_size] {
            hasher.update(word.to_le_bytes());
        }
        for time in [found.stx_btime, found.stx_mtime] {
            hasher.update(time.tv_sec.to_le_bytes());
            hasher.update(time.tv_nsec.to_le_bytes());
        }
        hasher.update(seal);
        let mut state = [0; STATE_LENGTH];
        state.copy_from_slice(&hasher.finalize()[..STATE_LENGTH]);
        Ok(Self(state))
    }

    /// Whether the contents of `file` were right in this state; `None` where files have no attributes.
    pub(super) fn is_recorded(self, file: &File) -> io::Result<Option<bool>> {
        let mut found = [0; STATE_LENGTH];
        match rustix::fs::fgetxattr(file, ATTRIBUTE, &mut found[..]) {
            Ok(length) => Ok(Some(found[..length] == self.0)),
            Err(Errno::NODATA | Errno::RANGE) => Ok(Some(false)),
            Err(Errno::NOTSUP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Remembers that the contents of `file` are right in this state. Where that cannot be, they are read again.
    pub(super) fn record(self, file: &File) {
        if let Err(error) = rustix::fs::fsetxattr(file, ATTRIBUTE, &self.0, XattrFlags::empty()) {
            tracing::debug!(%error, "that the contents of a delta are right is not remembered");
        }
    }
}
