//! Who made a file grow: the figures that a mount keeps of the files it has changed.

use std::collections::HashMap;
use std::io;

use crate::INODE_BYTES;
use crate::ledger::Ledger;

/// What is known of one file that this mount has changed.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Bytes allocated to it at the last look.
    bytes: i64,
    /// Bytes of these that this mount has been charged for since it knows the file.
    charged: i64,
}

/// A file that has lost its last name.
#[derive(Debug, Clone, Copy)]
struct NamelessFile {
    /// What the ledger was told then.
    noted: i64,
    /// What it took at the last look.
    bytes: i64,
    /// Whether the guest has forgotten it, so that only open handles keep it.
    forgotten: bool,
}

/// The charges of a mount, file by file.
///
/// A change of a file between two of this mount's own requests is somebody else's, or the filesystem's: growth is
/// charged, and what shrank is credited only as far as this mount was charged for that file. So two boxes that share a
/// folder cannot both be credited for what one of them wrote.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) ledger: Ledger,
    seen: HashMap<u64, Seen>,
    nameless: HashMap<u64, NamelessFile>,
    handles: HashMap<u64, u32>,
}

impl Account {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self { ledger, seen: HashMap::new(), nameless: HashMap::new(), handles: HashMap::new() }
    }

    /// Whether `inode` has figures here, so that its end matters.
    pub(crate) fn knows(&self, inode: u64) -> bool {
        self.seen.contains_key(&inode) || self.nameless.contains_key(&inode)
    }

    /// Whether requests have changed `inode` before.
    pub(crate) fn has_seen(&self, inode: u64) -> bool {
        self.seen.contains_key(&inode)
    }

    /// Notes that `inode` takes `bytes` now, without a request of this mount that could have made it shrink.
    pub(crate) fn settle(&mut self, inode: u64, bytes: i64) -> io::Result<()> {
        let seen = self.seen.entry(inode).or_insert(Seen { bytes, charged: 0 });
        let change = match bytes - seen.bytes {
            grown @ 0.. => grown,
            shrunk => shrunk.max(-seen.charged.max(0)),
        };
        *seen = Seen { bytes, charged: seen.charged + change };
        if let Some(nameless) = self.nameless.get_mut(&inode) {
            nameless.bytes = bytes;
        }
        self.ledger.charge(change)
    }

    /// Notes that this mount's own request has made `inode`, settled just before, shrink or grow to `bytes`.
    pub(crate) fn changed(&mut self, inode: u64, bytes: i64) -> io::Result<()> {
        let Some(seen) = self.seen.get_mut(&inode) else { return self.settle(inode, bytes) };
        let change = bytes - seen.bytes;
        *seen = Seen { bytes, charged: seen.charged + change };
        if let Some(nameless) = self.nameless.get_mut(&inode) {
            nameless.bytes = bytes;
        }
        self.ledger.charge(change)
    }

    /// Charges a new file, which takes `bytes`.
    pub(crate) fn made(&mut self, inode: u64, bytes: i64) -> io::Result<()> {
        self.seen.insert(inode, Seen { bytes, charged: bytes });
        self.ledger.charge(bytes.saturating_add(INODE_BYTES as i64))
    }

    /// Notes that `inode`, settled just before, has lost its last name by this mount's own request.
    pub(crate) fn lost_name(&mut self, inode: u64, bytes: i64) -> io::Result<()> {
        let noted = bytes.saturating_add(INODE_BYTES as i64);
        match self.nameless.insert(inode, NamelessFile { noted, bytes, forgotten: false }) {
            None => self.ledger.lose_name(noted),
            Some(before) => self.ledger.lose_name(noted.saturating_sub(before.noted)),
        }
    }

    /// Notes that the guest has a further handle of `inode`.
    pub(crate) fn opened(&mut self, inode: u64) {
        *self.handles.entry(inode).or_default() += 1;
    }

    /// Notes that one handle of `inode` is closed.
    pub(crate) fn closed(&mut self, inode: u64) -> io::Result<()> {
        if let Some(count) = self.handles.get_mut(&inode) {
            *count -= 1;
            if *count == 0 {
                self.handles.remove(&inode);
            }
        }
        match self.nameless.get(&inode) {
            Some(nameless) if nameless.forgotten => self.forgotten(inode),
            _ => Ok(()),
        }
    }

    /// Notes that the guest has forgotten `inode`: a file without a name is gone once no handle is left either.
    pub(crate) fn forgotten(&mut self, inode: u64) -> io::Result<()> {
        self.seen.remove(&inode);
        let Some(nameless) = self.nameless.get_mut(&inode) else { return Ok(()) };
        nameless.forgotten = true;
        if self.handles.contains_key(&inode) {
            return Ok(());
        }
        let NamelessFile { noted, bytes, .. } = self.nameless.remove(&inode).expect("just found");
        self.ledger.vanish(noted, bytes.saturating_add(INODE_BYTES as i64))
    }

    /// Notes that nothing is open or remembered any more.
    pub(crate) fn forget_all(&mut self) -> io::Result<()> {
        self.handles.clear();
        let nameless: Vec<u64> = self.nameless.keys().copied().collect();
        for inode in nameless {
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
        Account::new(Ledger::open(1 << 40, None).unwrap())
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
    fn a_file_without_a_name_is_credited_when_nothing_keeps_it() {
        let mut account = account();
        account.made(5, 0).unwrap();
        account.opened(5);
        account.opened(5);
        account.settle(5, 4096).unwrap();
        account.lost_name(5, 4096).unwrap();
        assert_eq!((account.ledger.used(), account.ledger.nameless()), (4096 + INODE, 4096 + INODE));
        account.settle(5, 8192).unwrap();
        account.closed(5).unwrap();
        account.forgotten(5).unwrap();
        assert_eq!(account.ledger.used(), 8192 + INODE);
        account.closed(5).unwrap();
        assert_eq!((account.ledger.used(), account.ledger.nameless()), (0, 0));
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
