//! The box's claim on the host's disk, which shrinks as the box writes what was reserved for it.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;

use boxlite_home::admission::Claim;
use boxlite_home::durable::allocated_of;
use boxlite_types::Result;

/// A claim beside the files that it was taken for: the overlay, and the named volumes. It lives as long as the shim.
#[derive(Debug)]
pub(super) struct DiskClaim {
    claim: Option<Claim>,
    files: Vec<PathBuf>,
    /// Bytes that the files will have allocated when the claim is used up.
    used_up_at: u64,
}

impl DiskClaim {
    /// `claim` is for what will be written to `files` from now on.
    pub(super) fn new(claim: Option<Claim>, files: Vec<PathBuf>) -> Self {
        let begins_at = allocated(&files).unwrap_or(0);
        let used_up_at = begins_at.saturating_add(claim.as_ref().map_or(0, Claim::bytes));
        Self { claim, files, used_up_at }
    }

    /// The rest of the claim is for an overlay that has taken the place of the one so far.
    pub(super) fn begin_again(&mut self) {
        *self = Self::new(self.claim.take(), std::mem::take(&mut self.files));
    }

    /// The descriptor of the claim.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.claim.as_ref().map(|claim| claim.as_fd().as_raw_fd())
    }

    /// Gives back what has been written since, so that the same bytes are not counted as reserved and as used.
    pub(super) fn follow(&mut self) {
        let Some(claim) = &mut self.claim else { return };
        let Ok(allocated) = allocated(&self.files) else { return };
        if let Err(error) = claim.shrink_to(self.used_up_at.saturating_sub(allocated)) {
            tracing::warn!(error = %error.chain(), "the box's claim could not be shrunk and stays as it is");
        }
    }
}

/// Bytes that are allocated to all of `files`.
fn allocated(files: &[PathBuf]) -> Result<u64> {
    files.iter().map(|file| allocated_of(file)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxlite_home::Home;
    use boxlite_home::admission::Claims;

    /// Mutation tried: without the subtraction the promise stays at 10 MiB while 4 MiB of it are written.
    #[test]
    fn what_is_written_is_no_longer_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let claims = Claims::open(&home).unwrap();
        let overlay = dir.path().join("overlay");
        std::fs::write(&overlay, vec![1; 64 << 10]).unwrap();
        let mut claim = DiskClaim::new(Some(claims.take(10 << 20).unwrap()), vec![overlay.clone()]);
        claim.follow();
        assert_eq!(claims.promised().unwrap(), 10 << 20);
        std::fs::write(&overlay, vec![1; (64 << 10) + (4 << 20)]).unwrap();
        claim.follow();
        assert!(claims.promised().unwrap() <= (6 << 20) + 4096);
        std::fs::write(&overlay, vec![1; 11 << 20]).unwrap();
        claim.follow();
        assert_eq!(claims.promised().unwrap(), 0);
        drop(claim);
    }

    /// Mutation tried: following the first file alone keeps all 10 MiB promised.
    #[test]
    fn what_is_written_to_a_named_volume_counts_too() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let claims = Claims::open(&home).unwrap();
        let files = ["overlay", "volume"].map(|name| dir.path().join(name));
        for file in &files {
            std::fs::write(file, [1; 4096]).unwrap();
        }
        let mut claim = DiskClaim::new(Some(claims.take(10 << 20).unwrap()), files.to_vec());
        std::fs::write(&files[1], vec![1; 4096 + (4 << 20)]).unwrap();
        claim.follow();
        assert!(claims.promised().unwrap() <= (6 << 20) + 4096);
        drop(claim);
    }
}
