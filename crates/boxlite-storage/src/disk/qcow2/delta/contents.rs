//! The contents of a delta: their sum, and when they must be compared with it again.
//!
//! Reading all contents at each start would cost more than the start. So an attribute of the file remembers in which
//! state its contents were right: inode, birth, length, modification time. A copy, a restored file and one that was
//! written to have another state, and are read once. The attribute allocates nothing, goes with the file, and is never
//! needed: without it the contents are read again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::CLUSTER;

/// The attribute of a file whose contents were right. Its name and value fit beside the inode.
const ATTRIBUTE: &str = "user.boxlite.sound";
const STATE_LENGTH: usize = 16;
/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// The SHA-256 of the clusters between the header and the metadata.
pub(super) fn sum(file: &File, metadata_at: u64) -> io::Result<[u8; 32]> {
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE]);
    let mut at = CLUSTER;
    while at < metadata_at {
        let count = (metadata_at - at).min(PIECE as u64) as usize;
        file.read_exact_at(&mut piece[..count], at)?;
        hasher.update(&piece[..count]);
        at += count as u64;
    }
    Ok(hasher.finalize().into())
}

/// The sum of contents that are being written: kept up while clusters come one behind the other, as they do for most of
/// a delta, so that the file need not be read again.
#[derive(Debug, Default)]
pub(super) struct RunningSum {
    hasher: Sha256,
    /// Clusters that are in the sum.
    clusters: u64,
    /// One of them has changed since.
    is_stale: bool,
}

impl RunningSum {
    /// Takes note of what was written at `cluster`; the first one is 1.
    pub(super) fn written(&mut self, cluster: u64, bytes: &[u8]) {
        if self.is_stale || cluster != self.clusters + 1 {
            self.is_stale = true;
            return;
        }
        self.hasher.update(bytes);
        self.clusters += bytes.len() as u64 / CLUSTER;
    }

    /// Takes note that a cluster's contents go.
    pub(super) fn dropped(&mut self) {
        self.is_stale = true;
    }

    /// The sum of the clusters before `metadata_at`, all of which `file` holds by now.
    pub(super) fn finish(self, file: &File, metadata_at: u64) -> io::Result<[u8; 32]> {
        if self.is_stale || (self.clusters + 1) * CLUSTER != metadata_at {
            return sum(file, metadata_at);
        }
        Ok(self.hasher.finalize().into())
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
