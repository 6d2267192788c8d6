//! The sum of a delta's contents.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::CLUSTER;
use crate::disk::damage_sum::{DamageSum, SumKind, Summer};

/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// The sum of the clusters between the header and the metadata.
pub(super) fn sum(kind: SumKind, file: &File, metadata_at: u64) -> io::Result<DamageSum> {
    let (mut summer, mut piece) = (Summer::new(kind), vec![0; PIECE]);
    let mut at = CLUSTER;
    while at < metadata_at {
        let count = (metadata_at - at).min(PIECE as u64) as usize;
        file.read_exact_at(&mut piece[..count], at)?;
        summer.update(&piece[..count]);
        at += count as u64;
    }
    Ok(summer.finish())
}

/// The sum of contents that are being written: kept up while clusters come one behind the other, as they do for most of
/// a delta, so that the file need not be read again.
#[derive(Debug)]
pub(super) struct RunningSum {
    summer: Summer,
    /// Clusters that are in the sum.
    clusters: u64,
    /// One of them has changed since.
    is_stale: bool,
}

impl RunningSum {
    pub(super) fn new(kind: SumKind) -> Self {
        Self { summer: Summer::new(kind), clusters: 0, is_stale: false }
    }

    /// Takes note of what was written at `cluster`; the first one is 1.
    pub(super) fn written(&mut self, cluster: u64, bytes: &[u8]) {
        if self.is_stale || cluster != self.clusters + 1 {
            self.is_stale = true;
            return;
        }
        self.summer.update(bytes);
        self.clusters += bytes.len() as u64 / CLUSTER;
    }

    /// Takes note that a cluster's contents go.
    pub(super) fn dropped(&mut self) {
        self.is_stale = true;
    }

    /// The sum of the clusters before `metadata_at`, all of which `file` holds by now.
    pub(super) fn finish(self, kind: SumKind, file: &File, metadata_at: u64) -> io::Result<DamageSum> {
        if self.is_stale || (self.clusters + 1) * CLUSTER != metadata_at {
            return sum(kind, file, metadata_at);
        }
        Ok(self.summer.finish())
    }
}
