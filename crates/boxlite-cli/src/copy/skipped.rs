//! The entries that a copy leaves out.

use std::path::{Path, PathBuf};

/// Most paths that are named; a box can send any number of them.
const MAX_NAMED: usize = 20;

/// Paths that were left out: the first of them, and how many there were.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct SkippedPaths {
    named: Vec<PathBuf>,
    total: u64,
}

impl SkippedPaths {
    pub(super) fn add(&mut self, path: &Path) {
        self.total += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(path.to_owned());
        }
    }

    /// Returns the first paths that were left out.
    pub(crate) fn named(&self) -> &[PathBuf] {
        &self.named
    }

    /// Returns how many more there were.
    pub(crate) fn unnamed(&self) -> u64 {
        self.total - self.named.len() as u64
    }
}
