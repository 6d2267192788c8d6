//! Space that is allocated while there is some, and given back when an operation that frees space needs a little.
//!
//! A filesystem that never overwrites in place (btrfs) needs free blocks to record that a box is removed, and so does a
//! database that grows. At 0 bytes free nothing could be removed then. A reserve is a preallocated file: releasing it
//! removes it, and the next process that finds ample space fills it again.

use std::path::{Path, PathBuf};

use boxlite_types::{Doing, Result};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::durable::{self, Lock};
use crate::home::Home;

/// The smallest part of a reserve that is worth having is a sixteenth.
const MAX_HALVINGS: u32 = 5;

/// A preallocated file in a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserve {
    path: PathBuf,
    home: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// The reserve for the database of `home`: the most that one transaction needs that removes something.
    pub fn for_database(home: &Home) -> Self {
        Self::new(home, "database", 2 << 20)
    }

    /// The reserve for the guests of `home` that are being stopped, whose unsynced data must reach a full disk.
    pub fn for_flush(home: &Home, bytes: u64) -> Self {
        Self::new(home, "flush", bytes)
    }

    /// The reserve of `home` for that `purpose`, of so many bytes.
    pub fn new(home: &Home, purpose: &str, bytes: u64) -> Self {
        let path = home.root().join(format!("reserve-{purpose}"));
        Self { path, home: home.root().to_owned(), bytes }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills the reserve, or a part of it, as far as at least `spare` bytes stay free; writes nothing when it is full.
    ///
    /// # Errors
    /// When the file cannot be made; a filesystem that is too full or cannot preallocate is not an error.
    pub fn fill(&self, spare: u64) -> Result<()> {
        // A copy of the home may have made it a hole of the same length.
        let had = durable::allocated_of(&self.path).unwrap_or(0).min(self.bytes);
        if had == self.bytes {
            return Ok(());
        }
        let free = durable::free_space(&self.home)?.bytes.saturating_add(had);
        let sizes = (0..MAX_HALVINGS).map(|halvings| self.bytes >> halvings);
        let mut fitting = sizes.filter(|size| *size > had && free >= spare.saturating_add(*size)).peekable();
        if fitting.peek().is_none() {
            return Ok(());
        }
        let Some(lock) = Lock::try_exclusive(&self.path)? else { return Ok(()) };
        for size in fitting {
            match rustix::fs::fallocate(lock.file(), FallocateFlags::empty(), 0, size) {
                Ok(()) => return lock.file().sync_all().doing("syncing", &self.path),
                Err(Errno::NOSPC | Errno::DQUOT | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno).doing("reserving space in", &self.path),
            }
        }
        Ok(())
    }

    /// Gives the space back, durably, so that it can be used at once; says whether there was any.
    ///
    /// A full btrfs refuses to make a file empty, but not to unlink it.
    pub fn release(&self) -> Result<bool> {
        if !durable::allocated_of(&self.path).is_ok_and(|allocated| allocated > 0) {
            return Ok(false);
        }
        durable::remove_file(&self.path)?;
        // btrfs hands freed blocks out only after they were committed as free.
        let home = std::fs::File::open(&self.home).doing("opening", &self.home)?;
        rustix::fs::syncfs(&home).doing("syncing the filesystem of", &self.home)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_filled_while_there_is_space_and_given_back_whole() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(&directory.path().join("home")).unwrap();
        let reserve = Reserve::new(&home, "test", 1 << 20);
        assert!(!reserve.release().unwrap());
        reserve.fill(u64::MAX / 2).unwrap();
        assert!(!reserve.path().exists(), "there is not so much space");
        reserve.fill(0).unwrap();
        assert_eq!(durable::allocated_of(reserve.path()).unwrap(), 1 << 20);
        // As `cp --sparse=always` leaves it. Mutation tried: going by its length, it stays a hole.
        assert!(reserve.release().unwrap());
        std::fs::File::create(reserve.path()).unwrap().set_len(1 << 20).unwrap();
        assert!(!reserve.release().unwrap(), "a hole gives nothing back");
        reserve.fill(0).unwrap();
        assert_eq!(durable::allocated_of(reserve.path()).unwrap(), 1 << 20);
        reserve.fill(0).unwrap();
        assert!(reserve.release().unwrap() && !reserve.release().unwrap());
        assert!(!reserve.path().exists());
    }
}
