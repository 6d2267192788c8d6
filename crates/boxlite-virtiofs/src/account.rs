//! The growth of files that a mount has changed, and who made it.

use std::io;

use crate::INODE_BYTES;
use crate::ledger::Ledger;
use crate::numbered::{NumberedMap, NumberedSet};

/// The figures of one file that this mount has changed.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Bytes allocated to it at the last look.
    bytes: i64,
    /// Bytes of these that this mount has been charged for since it knows the file.
    charged: i64,
    /// Bytes that this mount's requests can have added since.
    reserved: i64,
    /// Whether it was looked at after such a request, and had grown by no more than that can have added.
    is_exact: bool,
}

/// The handles that the guest has of one file.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    handles: u32,
    /// How often the guest has forgotten it meanwhile.
    forgets: u64,
}

/// The charges of a mount, file by file.
///
/// A change of a file between two of this mount's own requests is somebody else's, or the filesystem's: growth is
/// charged, and what shrank is credited only as far as this mount was charged for that file. So two boxes that share a
/// folder cannot both be credited for what one of them wrote.
///
/// A file that is open is not forgotten before it is closed: another name for the file would else be another file here,
/// and be credited when it is unlinked, while the handle still keeps what it takes. No honest kernel forgets such a file.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) ledger: Ledger,
    seen: NumberedMap<Seen>,
    /// The bytes at the last look of files that have lost their last name, as the ledger knows them.
    nameless: NumberedMap<i64>,
    open: NumberedMap<Open>,
    /// Files that are to be looked at before anything is refused.
    unsettled: NumberedSet,
}

impl Account {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            seen: NumberedMap::default(),
            nameless: NumberedMap::default(),
            open: NumberedMap::default(),
            unsettled: NumberedSet::default(),
        }
    }

    /// Whether `inode` has figures here, so that its end matters.
    pub(crate) fn knows(&self, inode: u64) -> bool {
        self.seen.contains_key(&inode) || self.nameless.contains_key(&inode)
    }

    /// Whether requests have changed `inode` before.
    pub(crate) fn has_seen(&self, inode: u64) -> bool {
        self.seen.contains_key(&inode)
    }

    /// Has a request that adds at most `bytes` to `inode` count without a look at it; `false` where it must be looked at: the
    /// first time, where its filesystem sets aside more than it is asked for, and when enough is reserved.
    pub(crate) fn reserve(&mut self, inode: u64, bytes: u64) -> io::Result<bool> {
        match self.seen.get_mut(&inode) {
            Some(seen) if seen.is_exact && self.ledger.may_reserve(bytes) => {
                seen.reserved += bytes as i64;
                self.unsettled.insert(inode);
                self.ledger.reserve(bytes as i64).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// The files that may have grown since they were looked at.
    pub(crate) fn unsettled(&self) -> Vec<u64> {
        self.unsettled.iter().copied().collect()
    }

    /// Whether `inode` may have grown since it was looked at.
    pub(crate) fn is_unsettled(&self, inode: u64) -> bool {
        self.unsettled.contains(&inode)
    }

    /// Whether a look at `inode` can tell nothing new: it was looked at after the last request that changed it, and had grown by no
    /// more than that asked for.
    pub(crate) fn is_settled(&self, inode: u64) -> bool {
        !self.is_unsettled(inode) && self.seen.get(&inode).is_some_and(|seen| seen.is_exact)
    }

    /// Notes that `inode` takes `bytes` now, after a request that can have added `added` besides what is reserved.
    pub(crate) fn grew(&mut self, inode: u64, bytes: i64, added: u64) -> io::Result<()> {
        let expected = self.seen.get(&inode).map(|seen| seen.bytes + seen.reserved + added as i64);
        self.settle(inode, bytes)?;
        if let Some(seen) = self.seen.get_mut(&inode) {
            seen.is_exact = expected.is_some_and(|expected| bytes <= expected);
        }
        Ok(())
    }

    /// Notes that `inode` takes `bytes` now, without a request of this mount that could have made it shrink.
    pub(crate) fn settle(&mut self, inode: u64, bytes: i64) -> io::Result<()> {
        let seen = self.seen.entry(inode).or_insert(Seen { bytes, charged: 0, reserved: 0, is_exact: false });
        let change = match bytes - seen.bytes {
            grown @ 0.. => grown,
            shrunk => shrunk.max(-seen.charged.max(0)),
        };
        self.looked(inode, bytes, change)
    }

    /// Notes that this mount's own request has made `inode`, settled just before, shrink or grow to `bytes`.
    pub(crate) fn changed(&mut self, inode: u64, bytes: i64) -> io::Result<()> {
        let Some(seen) = self.seen.get(&inode) else { return self.settle(inode, bytes) };
        self.looked(inode, bytes, bytes - seen.bytes)
    }

    fn looked(&mut self, inode: u64, bytes: i64, change: i64) -> io::Result<()> {
        if let Some(seen) = self.seen.get_mut(&inode) {
            self.ledger.unreserve(seen.reserved);
            seen.is_exact &= bytes <= seen.bytes + seen.reserved;
            (seen.bytes, seen.charged, seen.reserved) = (bytes, seen.charged + change, 0);
        }
        self.unsettled.remove(&inode);
        self.ledger.charge(change)?;
        match self.nameless.get_mut(&inode) {
            // The space that it takes now is free with it.
            Some(noted) => self.ledger.lose_name(bytes - std::mem::replace(noted, bytes)),
            None => Ok(()),
        }
    }

    /// Charges a new file, which takes `bytes`.
    pub(crate) fn made(&mut self, inode: u64, bytes: i64) -> io::Result<()> {
        self.settle(inode, 0)?;
        self.looked(inode, bytes, bytes)?;
        self.ledger.charge(INODE_BYTES as i64)
    }

    /// Notes that `inode`, settled just before, has lost its last name.
    pub(crate) fn lost_name(&mut self, inode: u64, bytes: i64) -> io::Result<()> {
        match self.nameless.insert(inode, bytes) {
            None => self.ledger.lose_name(bytes.saturating_add(INODE_BYTES as i64)),
            Some(noted) => self.ledger.lose_name(bytes - noted),
        }
    }

    /// The files with figures here that had a name at the last look.
    pub(crate) fn named(&self) -> Vec<u64> {
        self.seen.keys().copied().filter(|inode| !self.nameless.contains_key(inode)).collect()
    }

    /// Notes that the guest has a further handle of `inode`.
    pub(crate) fn opened(&mut self, inode: u64) {
        self.open.entry(inode).or_default().handles += 1;
    }

    /// Notes that one handle of `inode` is closed; returns how often it is to be forgotten now.
    pub(crate) fn closed(&mut self, inode: u64) -> u64 {
        let Some(open) = self.open.get_mut(&inode) else { return 0 };
        open.handles = open.handles.saturating_sub(1);
        if open.handles > 0 {
            return 0;
        }
        self.open.remove(&inode).map_or(0, |open| open.forgets)
    }

    /// Puts off that `inode` is forgotten `count` times if it is open; says whether it is.
    pub(crate) fn puts_off(&mut self, inode: u64, count: u64) -> bool {
        let open = self.open.get_mut(&inode);
        open.map(|open| open.forgets = open.forgets.saturating_add(count)).is_some()
    }

    /// Notes that `inode`, which is not open, is forgotten: a file without a name is gone then.
    pub(crate) fn forgotten(&mut self, inode: u64) -> io::Result<()> {
        self.unsettled.remove(&inode);
        if let Some(seen) = self.seen.remove(&inode)
            && seen.reserved > 0
        {
            // Bytes that were not looked at again count as added.
            self.ledger.unreserve(seen.reserved);
            self.ledger.charge(seen.reserved)?;
        }
        match self.nameless.remove(&inode) {
            Some(bytes) => self.ledger.vanish(bytes.saturating_add(INODE_BYTES as i64)),
            None => Ok(()),
        }
    }

    /// Notes that nothing is open or remembered any more.
    pub(crate) fn forget_all(&mut self) -> io::Result<()> {
        self.open.clear();
        let known: Vec<u64> = self.nameless.keys().chain(&self.unsettled).copied().collect();
        for inode in known {
            self.forgotten(inode)?;
        }
        self.seen.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INODE: i64 = INODE_BYTES as i64;

    fn account() -> Account {
        Account::new(Ledger::open(1 << 40, None, || None).unwrap())
    }

    #[test]
    fn own_changes_count_both_ways() {
        let mut account = account();
        account.settle(5, 1000).unwrap();
        assert_eq!(account.ledger.used(), 0, "what was there before is nobody's");
        account.settle(5, 3000).unwrap();
        account.changed(5, 200).unwrap();
        assert_eq!(account.ledger.used(), -800, "a truncated file is credited, whoever wrote it");
    }

    /// Mutation tried: with every shrinking credited, `used` is -1000 here.
    #[test]
    fn what_another_freed_is_credited_only_as_far_as_it_was_charged() {
        let mut account = account();
        account.settle(5, 1000).unwrap();
        account.settle(5, 0).unwrap();
        assert_eq!(account.ledger.used(), 0);
        account.settle(5, 700).unwrap();
        account.settle(5, 100).unwrap();
        assert_eq!(account.ledger.used(), 100, "such as space that the filesystem had set aside");
    }

    /// Mutation tried: without the look at handles the file is credited while it still takes its space.
    #[test]
    fn a_file_is_forgotten_and_credited_when_nothing_keeps_it() {
        let mut account = account();
        account.made(5, 0).unwrap();
        account.opened(5);
        account.opened(5);
        account.settle(5, 4096).unwrap();
        account.lost_name(5, 4096).unwrap();
        assert_eq!((account.ledger.used(), account.ledger.nameless()), (4096 + INODE, 4096 + INODE));
        account.settle(5, 8192).unwrap();
        assert_eq!(account.ledger.nameless(), 8192 + INODE, "what is written then is free with it");
        assert_eq!(account.closed(5), 0);
        assert!(account.puts_off(5, 2) && account.puts_off(5, 1));
        assert_eq!(account.ledger.used(), 8192 + INODE);
        assert_eq!(account.closed(5), 3);
        assert!(!account.puts_off(5, 3));
        account.forgotten(5).unwrap();
        assert_eq!((account.ledger.used(), account.ledger.nameless()), (0, 0));
    }

    #[test]
    fn what_was_not_looked_at_again_counts_as_added() {
        let mut account = account();
        account.settle(5, 0).unwrap();
        assert!(!account.reserve(5, 4096).unwrap(), "the first change is looked at");
        account.grew(5, 0, 4096).unwrap();
        assert!(account.reserve(5, 4096).unwrap() && account.reserve(5, 4096).unwrap());
        assert_eq!((account.ledger.used(), account.ledger.room()), (0, (1 << 40) - 8192));
        account.settle(5, 4096).unwrap();
        assert_eq!((account.ledger.used(), account.ledger.room()), (4096, (1 << 40) - 4096));
        assert!(account.reserve(5, 4 << 20).unwrap() && !account.reserve(5, 1).unwrap());
        account.forgotten(5).unwrap();
        assert_eq!(account.ledger.used(), 4096 + (4 << 20));
        // A filesystem that sets more aside than it was asked to.
        account.settle(6, 0).unwrap();
        account.grew(6, 65536, 4096).unwrap();
        assert!(!account.reserve(6, 1).unwrap());
    }

    #[test]
    fn an_unmounted_folder_keeps_nothing_nameless() {
        let mut account = account();
        account.made(5, 4096).unwrap();
        account.opened(5);
        account.lost_name(5, 4096).unwrap();
        account.forget_all().unwrap();
        assert_eq!((account.ledger.used(), account.ledger.nameless()), (0, 0));
        assert!(!account.knows(5));
    }
}
