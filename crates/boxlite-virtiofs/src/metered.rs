//! A folder whose growth has a bound: virtiofsd's passthrough, asked through a counter.
//!
//! Every request that can make something grow is checked before it is carried out, and its growth is measured by what
//! the host has allocated afterwards (`st_blocks`). The check uses the most that the request can add. Where that does
//! not fit, a write that provably adds nothing still goes on, so that a full folder can be worked with.
//!
//! # Limits
//! A filesystem that allocates blocks long after it was asked to is charged as late, at the next request for that file. One
//! that does not show in `st_blocks` what extended attributes take, such as btrfs, has them for nothing.

mod requests;

use std::ffi::CStr;
use std::io;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use boxlite_types::FreeSpace;
use virtiofsd::filesystem::{Context, Entry, FileSystem, SerializableFileSystem};
use virtiofsd::fuse::Attr;

use crate::INODE_BYTES;
use crate::account::Account;
use crate::headroom::{Growth, Headroom};
use crate::ledger::Ledger;
use crate::metering::{Metering, SharedMetering, report};
use crate::total::Total;

/// The most that a new name takes in a directory, and that a short file takes: a block each.
const BLOCK: u64 = 4096;

/// Most bytes that are copied in one request, so that it is answered soon.
const MAX_COPY: u64 = 64 << 20;

/// How often the folder is added up at most to see whether the host has removed what the box wrote.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(10);

/// A folder served by `F`, with bounds.
pub(crate) struct Metered<F> {
    inner: F,
    metering: Arc<SharedMetering>,
    /// Adds up what the folder holds, as far as the given number.
    recount: fn(u64) -> Total,
}

/// The identity for looks at files that no request makes; a look takes nobody's rights.
fn nobody() -> Context {
    Context { uid: 0.into(), gid: 0.into(), pid: 0 }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    Quota,
    Host,
}

impl<F: FileSystem<Inode = u64, Handle = u64>> Metered<F> {
    pub(crate) fn new(
        inner: F,
        ledger: Option<Ledger>,
        headroom: Headroom,
        recount: fn(u64) -> Total,
    ) -> Self {
        let metering = SharedMetering::of(ledger.map(Account::new), headroom);
        let metered = Self { inner, metering, recount };
        metered.recount(&mut metered.state(), nobody());
        metered
    }

    /// Returns its counters.
    pub(crate) fn metering(&self) -> Arc<SharedMetering> {
        Arc::clone(&self.metering)
    }

    fn state(&self) -> MutexGuard<'_, Metering> {
        self.metering.state()
    }

    fn attributes(&self, ctx: Context, inode: u64) -> io::Result<Attr> {
        self.inner.getattr(ctx, inode, None).map(|(attributes, _)| attributes)
    }

    /// Looks at `inode`, which a request is about to change, for the first time.
    fn look_first(&self, state: &mut Metering, ctx: Context, inode: u64) -> io::Result<()> {
        match &mut state.account {
            Some(account) if !account.has_seen(inode) => {
                account.settle(inode, allocated(&self.attributes(ctx, inode)?))
            }
            _ => Ok(()),
        }
    }

    /// Looks at `inode` again, which a request has changed without making it shrink.
    fn settle(&self, state: &mut Metering, ctx: Context, inode: u64) {
        if let Some(account) = &mut state.account
            && let Ok(attributes) = self.attributes(ctx, inode)
        {
            report(account.settle(inode, allocated(&attributes)));
        }
    }

    /// Looks at `inode` again after a request that can have added `bytes` at most, unless these are reserved.
    fn grew(&self, state: &mut Metering, ctx: Context, inode: u64, bytes: u64) {
        let Some(account) = &mut state.account else { return };
        match account.reserve(inode, bytes) {
            Ok(true) => return,
            Ok(false) if account.ledger.may_reserve(bytes) => {}
            Ok(false) => self.settle_all(state, ctx),
            Err(error) => report(Err(error)),
        }
        if let (Some(account), Ok(attributes)) = (&mut state.account, self.attributes(ctx, inode)) {
            report(account.grew(inode, allocated(&attributes), bytes));
        }
    }

    /// Looks at all files for which something is reserved.
    fn settle_all(&self, state: &mut Metering, ctx: Context) {
        for inode in state.account.as_ref().map_or_else(Vec::new, Account::unsettled) {
            self.settle(state, ctx, inode);
        }
    }

    /// Makes room for `bytes` in the filesystem of `inode`, or says what is full.
    fn admit(&self, state: &mut Metering, ctx: Context, inode: u64, growth: Growth) -> Result<(), Full> {
        let bytes = growth.bytes();
        let lacks =
            |state: &Metering| state.account.as_ref().is_some_and(|account| account.ledger.room() < bytes);
        if lacks(state) {
            self.settle_all(state, ctx);
        }
        if lacks(state) {
            let due = state.recounted.is_none_or(|last| last.elapsed() >= RECOUNT_INTERVAL);
            if due {
                self.recount(state, ctx);
            }
            if lacks(state) {
                return Err(Full::Quota);
            }
        }
        let look = || free_space(&self.inner.statfs(ctx, inode).ok()?);
        if state.headroom.take(inode, growth, look) { Ok(()) } else { Err(Full::Host) }
    }

    /// Notices what the host or another box has deleted.
    fn recount(&self, state: &mut Metering, ctx: Context) {
        let Some(account) = &mut state.account else { return };
        if account.ledger.used() <= 0 {
            return;
        }
        state.recounted = Some(Instant::now());
        // A file that another has unlinked while the guest keeps it open is not found below, and still takes its space.
        for inode in account.named() {
            if let Ok(found) = self.attributes(ctx, inode)
                && found.nlink == 0
            {
                report(account.settle(inode, allocated(&found)));
                report(account.lost_name(inode, allocated(&found)));
            }
        }
        if let Total::Known(total) = (self.recount)(account.ledger.used() as u64) {
            report(account.ledger.bound(total));
        }
    }

    /// Looks at what the folder holds once the box has freed more than it has added.
    fn bound_credit(&self, state: &mut Metering) {
        if let Some(account) = &mut state.account
            && account.ledger.is_in_credit()
        {
            let (Total::Known(bytes) | Total::AtLeast(bytes)) = (self.recount)(u64::MAX);
            report(account.ledger.held(bytes));
        }
    }

    /// Whether writing `size` bytes at `offset` provably allocates nothing.
    fn adds_nothing(
        &self,
        state: &Metering,
        full: Full,
        (ctx, inode, handle): (Context, u64, u64),
        (offset, size): (u64, u64),
    ) -> bool {
        let Ok(attributes) = self.attributes(ctx, inode) else { return false };
        let end = offset.saturating_add(size);
        // As much is allocated as the file is long, by `fallocate` for example. What lies beyond the end of the file
        // can deceive here, but only once: the growth that follows exceeds the limit.
        let exceeded = state.account.as_ref().is_some_and(|account| account.ledger.is_exceeded());
        if full == Full::Quota && !exceeded && allocated(&attributes) as u64 >= end {
            return true;
        }
        // It seeks on a descriptor of which nothing uses the position.
        let hole = self.inner.lseek(ctx, inode, handle, offset, libc::SEEK_HOLE as u32);
        !state.holes_are_hidden && hole.is_ok_and(|hole| hole >= end)
    }

    /// Carries out a request that adds a name to `parent`, and maybe a file.
    fn with_new_name<T>(
        &self,
        ctx: Context,
        parent: u64,
        request: impl FnOnce() -> io::Result<T>,
        entry_of: impl FnOnce(&T) -> Option<&Entry>,
    ) -> io::Result<T> {
        let mut state = self.state();
        self.look_first(&mut state, ctx, parent)?;
        let growth = Growth::File(2 * BLOCK + INODE_BYTES);
        self.admit(&mut state, ctx, parent, growth)?;
        let made = request().inspect_err(|error| {
            // The file is made, and only the descriptor to answer with is missing.
            if let Some(libc::ENFILE | libc::EMFILE | libc::ENOMEM) = error.raw_os_error()
                && let Some(account) = &mut state.account
            {
                report(account.ledger.charge((BLOCK + INODE_BYTES) as i64));
            }
        })?;
        let entry = entry_of(&made);
        if let Some(entry) = entry {
            state.headroom.made(parent, entry.inode);
        }
        if let (Some(account), Some(entry)) = (&mut state.account, entry) {
            // An entry that is neither empty nor a directory nor a link was there before.
            let kind = entry.attr.mode & libc::S_IFMT;
            if kind != libc::S_IFREG || entry.attr.size == 0 {
                report(account.made(entry.inode, allocated(&entry.attr)));
            }
        }
        self.grew(&mut state, ctx, parent, 2 * BLOCK);
        Ok(made)
    }

    /// Carries out a request that may take the last name of the file `name` in `parent`.
    fn with_lost_name(
        &self,
        state: &mut Metering,
        ctx: Context,
        (parent, name): (u64, &CStr),
        request: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        if state.account.is_none() {
            return request();
        }
        // Held meanwhile, so that it still can be looked at.
        let held = self.inner.lookup(ctx, parent, name).ok();
        let done = request();
        if let Some(entry) = held {
            if done.is_ok()
                && let Some(account) = &mut state.account
                && let Ok(found) = self.attributes(ctx, entry.inode)
                && found.nlink == 0
            {
                let bytes = allocated(&found);
                report(account.settle(entry.inode, bytes));
                report(account.lost_name(entry.inode, bytes));
            }
            self.forget_known(state, ctx, entry.inode, 1);
        }
        done
    }

    /// Lets a name be moved to `directory`, which can grow by it, unless all is full; one that it has can be replaced.
    fn admit_moved(
        &self,
        state: &mut Metering,
        ctx: Context,
        (directory, name): (u64, &CStr),
    ) -> Result<(), Full> {
        let exceeded = state.account.as_ref().is_some_and(|account| account.ledger.is_exceeded());
        let look = || free_space(&self.inner.statfs(ctx, directory).ok()?);
        if !exceeded && state.headroom.take(directory, Growth::Bytes(BLOCK), look) {
            return Ok(());
        }
        match self.inner.lookup(ctx, directory, name) {
            Ok(entry) => {
                self.forget_known(state, ctx, entry.inode, 1);
                Ok(())
            }
            Err(_) => Err(if exceeded { Full::Quota } else { Full::Host }),
        }
    }

    fn forget_known(&self, state: &mut Metering, ctx: Context, inode: u64, count: u64) {
        let Some(account) = &mut state.account else { return self.inner.forget(ctx, inode, count) };
        if account.puts_off(inode, count) {
            return;
        }
        if account.is_unsettled(inode) {
            self.settle(state, ctx, inode);
        }
        self.inner.forget(ctx, inode, count);
        let Some(account) = &mut state.account else { return };
        if account.knows(inode) && self.attributes(ctx, inode).is_err() {
            report(account.forgotten(inode));
            self.bound_credit(state);
        }
    }

    /// Carries out a request after which the guest knows no file any more.
    fn with_all_forgotten<T>(&self, request: impl FnOnce() -> T) -> T {
        let mut state = self.state();
        self.settle_all(&mut state, nobody());
        let done = request();
        if let Some(account) = &mut state.account {
            report(account.forget_all());
            self.bound_credit(&mut state);
        }
        drop(state);
        self.metering.settle();
        done
    }

    /// A request that gives bytes of `inode` back; measured on both sides, so that all of it is credited, and what a request
    /// has done before it failed too.
    fn with_shrinking<T>(
        &self,
        state: &mut Metering,
        ctx: Context,
        inode: u64,
        request: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.settle(state, ctx, inode);
        let done = request();
        if let Some(account) = &mut state.account
            && let Ok(found) = self.attributes(ctx, inode)
        {
            report(account.changed(inode, allocated(&found)));
            self.bound_credit(state);
        }
        done
    }

    fn count_handle(&self, inode: u64) {
        if let Some(account) = &mut self.state().account {
            account.opened(inode);
        }
    }

    fn count_closed(&self, state: &mut Metering, ctx: Context, inode: u64) {
        let forgets = state.account.as_mut().map_or(0, |account| account.closed(inode));
        if forgets > 0 {
            self.forget_known(state, ctx, inode, forgets);
        }
    }
}

/// A guest's programs know what to do about a full disk, whichever it is.
impl From<Full> for io::Error {
    fn from(_: Full) -> Self {
        Self::from_raw_os_error(libc::ENOSPC)
    }
}

/// Bytes allocated on the host.
fn allocated(attributes: &Attr) -> i64 {
    i64::try_from(attributes.blocks.saturating_mul(512)).unwrap_or(i64::MAX)
}

/// The whole blocks that `size` bytes at `offset` touch, in bytes.
fn covering(offset: u64, size: u64) -> u64 {
    let end = offset.saturating_add(size);
    (end.div_ceil(BLOCK).saturating_mul(BLOCK)).saturating_sub(offset / BLOCK * BLOCK)
}

fn free_space(found: &libc::statvfs64) -> Option<FreeSpace> {
    (found.f_blocks > 0).then(|| FreeSpace {
        bytes: found.f_bavail.saturating_mul(found.f_frsize),
        bytes_total: found.f_blocks.saturating_mul(found.f_frsize),
        inodes: found.f_favail,
        inodes_total: found.f_files,
    })
}

/// Without the flags that would create a file of which nothing here knows: a guest's kernel never sends them.
fn plain_open(flags: u32) -> u32 {
    const MAKING: i32 = (libc::O_TMPFILE & !libc::O_DIRECTORY) | libc::O_CREAT | libc::O_EXCL;
    flags & !(MAKING as u32)
}

/// Without `O_TMPFILE`, with which a file would be made that has another inode than the one that is counted.
fn plain_create(flags: u32) -> u32 {
    flags & !((libc::O_TMPFILE & !libc::O_DIRECTORY) as u32)
}

impl<F> SerializableFileSystem for Metered<F> {}

#[cfg(test)]
#[path = "metered_tests.rs"]
mod tests;
