//! Who says whether there is room for what a pull or a build is about to write.

use std::path::{Path, PathBuf};

use crate::durable::FreeSpace;
use crate::error::{Error, Result, Shortage};

/// Asked before bytes are written and while they are.
pub(crate) trait SpaceWatch: Send + Sync {
    /// Whether about `estimate` bytes more may be written.
    ///
    /// # Errors
    /// `ResourceExhausted` with the figures.
    fn admit(&self, estimate: u64) -> Result<()>;

    /// Whether `bytes` more may be written now.
    ///
    /// # Errors
    /// `ResourceExhausted` at the hard floor.
    fn about_to_write(&self, bytes: u64) -> Result<()>;
}

/// Keeps `floor` bytes of the filesystem that holds `path` free.
#[derive(Debug)]
pub(crate) struct Floor {
    path: PathBuf,
    floor: u64,
}

impl Floor {
    pub(crate) fn new(path: &Path, floor: u64) -> Self {
        Self { path: path.to_owned(), floor }
    }
}

impl SpaceWatch for Floor {
    fn admit(&self, estimate: u64) -> Result<()> {
        // A measurement that fails never refuses anything.
        let Ok(free) = FreeSpace::at(&self.path) else { return Ok(()) };
        let need = self.floor.saturating_add(estimate);
        if free.bytes >= need {
            return Ok(());
        }
        let message = format!(
            "{estimate} bytes are to be written and {} are to stay free at {}, where {} are free; \
             `boxlite gc` may free some",
            self.floor,
            self.path.display(),
            free.bytes
        );
        let shortage = Shortage { need, have: free.bytes, inodes: false, reclaimable: None };
        Err(Error::exhausted(message, shortage).at(&self.path))
    }

    fn about_to_write(&self, bytes: u64) -> Result<()> {
        self.admit(bytes)
    }
}
