//! The counters of a mount, and the thread that keeps its figures.
//!
//! The thread makes the ledger's file exact once a second, where it is not, and then waits until the disk has it. It holds no
//! lock while it waits, so a disk that stands still holds up no request.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::account::Account;
use crate::headroom::Headroom;

/// How often the file is made exact.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The counters of a mount.
#[derive(Debug)]
pub(crate) struct Metering {
    /// `None` counts nothing: only the host's floor is kept.
    pub(crate) account: Option<Account>,
    pub(crate) headroom: Headroom,
    /// When the folder was last added up.
    pub(crate) recounted: Option<Instant>,
    /// Whether a write grew although the filesystem said that it had data there.
    pub(crate) holes_are_hidden: bool,
}

/// The counters of a mount, shared with the thread.
#[derive(Debug)]
pub(crate) struct SharedMetering(Mutex<Metering>);

impl SharedMetering {
    pub(crate) fn of(account: Option<Account>, headroom: Headroom) -> Arc<Self> {
        let metering = Metering { account, headroom, recounted: None, holes_are_hidden: false };
        Arc::new(Self(Mutex::new(metering)))
    }

    /// Locks it. A request holds it for as long as it takes.
    pub(crate) fn state(&self) -> MutexGuard<'_, Metering> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread, which ends with the process.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        let metering = Arc::clone(self);
        let waiting = EventlessWait::new()?;
        let keep = move || {
            loop {
                metering.keep();
                waiting.wait(KEEP_INTERVAL);
            }
        };
        std::thread::Builder::new().name("ledger".into()).spawn(keep).map(drop)
    }

    /// Writes the exact figures into the file.
    pub(crate) fn settle(&self) {
        if let Some(account) = &mut self.state().account {
            report(account.ledger.settle());
        }
    }

    fn keep(&self) {
        let mut state = self.state();
        let Some(account) = state.account.as_mut().filter(|account| account.ledger.is_unsettled()) else {
            return;
        };
        report(account.ledger.settle());
        let file = account.ledger.file();
        drop(state);
        report(file.and_then(|file| file.map_or(Ok(()), |file| file.sync_data())));
    }
}

/// Lets time pass by waiting for events of nothing.
///
/// The kernel resumes a sleep, or a wait for a lock until a time, by `restart_syscall` when the process was stopped or the host
/// suspended meanwhile, and the filter of system calls kills for that one. This wait ends instead.
#[derive(Debug)]
struct EventlessWait(OwnedFd);

impl EventlessWait {
    fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Waits for `time`, or less where a signal comes.
    fn wait(&self, time: Duration) {
        let time = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
        let mut none = [MaybeUninit::uninit(); 1];
        let _ = epoll::wait(&self.0, &mut none, Some(&time));
    }
}

/// A ledger that cannot be written costs the next start its figures, and this mount nothing.
pub(crate) fn report(stored: io::Result<()>) {
    if let Err(error) = stored {
        log::warn!("the quota's figures were not kept: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    /// Mutation tried: a thread that only waits.
    #[test]
    fn the_file_becomes_exact_while_nothing_is_asked() {
        let file = tempfile::tempfile().unwrap();
        let open = || Ledger::open(1 << 30, Some(file.try_clone().unwrap()), || None).unwrap();
        let metering = SharedMetering::of(Some(Account::new(open())), Headroom::new(0, 0));
        metering.start().unwrap();
        metering.state().account.as_mut().unwrap().ledger.charge(12345).unwrap();
        let began = Instant::now();
        while metering.state().account.as_ref().unwrap().ledger.is_unsettled() {
            assert!(began.elapsed() < Duration::from_secs(60));
            std::thread::yield_now();
        }
        assert_eq!(open().used(), 12345);
    }
}
