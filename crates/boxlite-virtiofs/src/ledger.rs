//! How much the box has made the folder grow, kept in a file that outlives the daemon.
//!
//! # Layout
//! The file holds two little-endian 64-bit integers: the bytes charged to the box, less those credited to it, and of
//! these the bytes of files that have no name any more but are still open. The second are free once the daemon is gone,
//! so the next one begins with the difference.
//!
//! # Crash safety
//! Both are written with one call at every change, so that they are as the kernel last had them however the daemon ends.
//! A power failure loses what the kernel had not written yet.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const LENGTH: usize = 16;

/// The bytes charged to one box for one folder, and how many there may be.
#[derive(Debug)]
pub(crate) struct Ledger {
    used: i64,
    nameless: i64,
    limit: u64,
    kept: Option<File>,
}

impl Ledger {
    /// Goes on with what `kept` holds, if that is a ledger, else begins at 0; the box may make the folder grow by `limit` bytes.
    pub(crate) fn open(limit: u64, kept: Option<File>) -> io::Result<Self> {
        let mut bytes = [0; LENGTH];
        let mut ledger = Self { used: 0, nameless: 0, limit, kept };
        if let Some(file) = &ledger.kept
            && file.read_at(&mut bytes, 0)? == LENGTH
        {
            let (used, nameless) = bytes.split_at(LENGTH / 2);
            let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("half of the file"));
            ledger.used = number(used).saturating_sub(number(nameless));
        }
        ledger.store()?;
        Ok(ledger)
    }

    /// Bytes that the box has made the folder grow by; negative where it has freed more.
    pub(crate) fn used(&self) -> i64 {
        self.used
    }

    /// Bytes of files without a name that are still open.
    #[cfg(test)]
    pub(crate) fn nameless(&self) -> i64 {
        self.nameless
    }

    /// Bytes by which the box may make the folder grow further.
    pub(crate) fn room(&self) -> u64 {
        u64::try_from(i128::from(self.limit) - i128::from(self.used)).unwrap_or(0)
    }

    /// Whether growth has gone past the limit.
    pub(crate) fn is_exceeded(&self) -> bool {
        i128::from(self.used) > i128::from(self.limit)
    }

    /// Adds `bytes`, or takes them away where they are negative.
    pub(crate) fn charge(&mut self, bytes: i64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.used = self.used.saturating_add(bytes);
        self.store()
    }

    /// Notes that `bytes` of what is charged belong to a file that has lost its last name.
    pub(crate) fn lose_name(&mut self, bytes: i64) -> io::Result<()> {
        self.nameless = self.nameless.saturating_add(bytes);
        self.store()
    }

    /// Credits a file without a name, of which `bytes` were noted, now that it is gone with `size` bytes.
    pub(crate) fn vanish(&mut self, bytes: i64, size: i64) -> io::Result<()> {
        self.nameless = self.nameless.saturating_sub(bytes);
        self.used = self.used.saturating_sub(size);
        self.store()
    }

    /// Has it that the box can have added no more than `total` bytes, which is all that there is.
    pub(crate) fn bound(&mut self, total: u64) -> io::Result<()> {
        let total = i64::try_from(total).unwrap_or(i64::MAX).saturating_add(self.nameless);
        if self.used > total {
            self.used = total;
            self.store()?;
        }
        Ok(())
    }

    fn store(&self) -> io::Result<()> {
        let Some(file) = &self.kept else { return Ok(()) };
        let mut bytes = [0; LENGTH];
        bytes[..LENGTH / 2].copy_from_slice(&self.used.to_le_bytes());
        bytes[LENGTH / 2..].copy_from_slice(&self.nameless.to_le_bytes());
        file.write_all_at(&bytes, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_where_the_last_one_ended_without_what_was_nameless() {
        let file = tempfile::tempfile().unwrap();
        let again = || Some(file.try_clone().unwrap());
        let mut ledger = Ledger::open(100, again()).unwrap();
        ledger.charge(70).unwrap();
        ledger.lose_name(20).unwrap();
        assert_eq!((ledger.used(), ledger.room()), (70, 30));
        drop(ledger);
        let mut ledger = Ledger::open(60, again()).unwrap();
        assert_eq!((ledger.used(), ledger.nameless(), ledger.room()), (50, 0, 10));
        ledger.charge(-80).unwrap();
        assert_eq!((ledger.used(), ledger.room()), (-30, 90));
        ledger.charge(200).unwrap();
        assert!(ledger.is_exceeded() && ledger.room() == 0);
        ledger.bound(7).unwrap();
        assert_eq!(Ledger::open(60, again()).unwrap().used(), 7);
    }

    #[test]
    fn a_file_that_is_no_ledger_begins_at_nothing() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"short", 0).unwrap();
        assert_eq!(Ledger::open(1, Some(file)).unwrap().used(), 0);
    }
}
