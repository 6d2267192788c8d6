//! The box's claim on the host's disk, which shrinks as the box writes what was reserved for it.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use boxlite_home::admission::Claim;
use boxlite_home::durable::allocated_of;

/// A claim beside the overlay that it was taken for. It lives as long as the shim.
#[derive(Debug)]
pub(super) struct DiskClaim {
    claim: Option<Claim>,
    overlay: PathBuf,
    /// Bytes that the overlay will have allocated when the claim is used up.
    used_up_at: u64,
}

impl DiskClaim {
    /// `claim` is for what will be written to `overlay` from now on.
    pub(super) fn new(claim: Option<Claim>, overlay: &Path) -> Self {
        let begins_at = allocated_of(overlay).unwrap_or(0);
        let used_up_at = begins_at.saturating_add(claim.as_ref().map_or(0, Claim::bytes));
        Self { claim, overlay: overlay.to_owned(), used_up_at }
    }

    /// The descriptor of the claim.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.claim.as_ref().map(|claim| claim.as_fd().as_raw_fd())
    }

    /// Gives back what has been written since, so that the same bytes are not counted as reserved and as used.
    pub(super) fn follow(&mut self) {
        let Some(claim) = &mut self.claim else { return };
        let Ok(allocated) = allocated_of(&self.overlay) else { return };
        if let Err(error) = claim.shrink_to(self.used_up_at.saturating_sub(allocated)) {
            tracing::warn!(error = %error.chain(), "the box's claim could not be shrunk and stays as it is");
        }
    }
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
        let mut claim = DiskClaim::new(Some(claims.take(10 << 20).unwrap()), &overlay);
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
}
