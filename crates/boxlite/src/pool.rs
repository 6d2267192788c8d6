//! Guests that wait for the next boxes: restored by a server while it has nothing better to do.
//!
//! The pool follows the starts of its process: the hardware of the last one that a guest could have waited for is what guests
//! wait with. A start takes a guest out, which is its own from then on; [`tend`](GuestPool::tend) makes another.
//!
//! # Memory and disk
//! A waiting guest is promised memory like a box, but apart from boxes: its promise keeps no box from starting. It is made
//! only where it fits beside all that is promised, and given up as soon as boxes and waiting guests together do not fit. It
//! writes nothing, and is made only while the disk's verdict is good.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use boxlite_home::Home;
use boxlite_home::admission::{Claims, MemoryBudget, MemoryVerdict, Thresholds, judge};
use boxlite_home::settings::Settings;
use boxlite_types::{Result, Verdict};
use boxlite_vm::shim::{Hardware, LaunchSpec, WaitingGuest, memory_need};
use tokio::sync::Notify;

/// How long nothing is tried again after a guest could not be made.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// The home whose boxes guests wait for, and its settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolPlace<'a> {
    pub(crate) home: &'a Home,
    pub(crate) settings: &'a Settings,
}

/// The waiting guests of this process.
#[derive(Debug)]
pub(crate) struct GuestPool {
    /// How many are to wait.
    size: usize,
    state: Mutex<PoolState>,
    /// Told when there is something to tend.
    changed: Notify,
}

#[derive(Debug, Default)]
struct PoolState {
    /// The hardware that guests wait with, and the shim program that makes them.
    wanted: Option<(Hardware, PathBuf)>,
    guests: Vec<WaitingGuest>,
    /// Nothing is tried before.
    not_before: Option<Instant>,
}

impl GuestPool {
    /// A pool of `size` guests, none of which is made before it is tended.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, state: Mutex::default(), changed: Notify::new() }
    }

    /// Whether any guest is to wait.
    pub(crate) fn is_wanted(&self) -> bool {
        self.size > 0
    }

    /// Returns when a start has changed something.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes a guest for the box of `spec`, which is marked with that guest's run, if one waits; `shim` makes the next.
    pub(crate) fn take(&self, spec: &mut LaunchSpec, shim: &Path) -> Option<WaitingGuest> {
        if self.size == 0 {
            return None;
        }
        let hardware = Hardware::of(spec)?;
        let mut state = self.state();
        let found =
            state.guests.iter().position(|guest| guest.hardware().fits(&hardware) && guest.is_alive());
        let guest = found.map(|at| state.guests.remove(at));
        state.wanted = Some((hardware, shim.to_owned()));
        drop(state);
        self.changed.notify_one();
        if let Some(guest) = &guest {
            guest.mark(spec);
        }
        guest
    }

    /// Gives up guests that nobody will want or that memory is wanted for, and makes one if there is room and one is missing;
    /// returns whether it did. Blocks for some hundred milliseconds then.
    ///
    /// # Errors
    /// Those of the shim, after which nothing is tried for a while.
    pub(crate) fn tend(&self, place: PoolPlace<'_>) -> Result<bool> {
        let Some((hardware, shim)) = self.keep_wanted(place)? else { return Ok(false) };
        let made = self.make(place, &hardware, &shim);
        if !matches!(made, Ok(true)) {
            self.state().not_before = Some(Instant::now() + RETRY_INTERVAL);
        }
        made
    }

    /// Gives up what is not wanted; returns the hardware of a guest that is missing.
    fn keep_wanted(&self, place: PoolPlace<'_>) -> Result<Option<(Hardware, PathBuf)>> {
        let excess = excess(place)?;
        let mut state = self.state();
        let Some(wanted) = state.wanted.clone() else { return Ok(None) };
        state.guests.retain(|guest| guest.hardware().fits(&wanted.0) && guest.is_alive());
        let mut freed = 0;
        while freed < excess {
            let Some(guest) = state.guests.pop() else { break };
            tracing::info!("a waiting guest is given up, because boxes want its memory");
            freed += memory_need(guest.hardware().memory()).total();
        }
        let waits = state.not_before.is_some_and(|time| time > Instant::now());
        let is_missing = freed == 0 && state.guests.len() < self.size && !waits;
        Ok(is_missing.then_some(wanted))
    }

    /// Makes a guest where there is room for it.
    fn make(&self, place: PoolPlace<'_>, hardware: &Hardware, shim: &Path) -> Result<bool> {
        let need = memory_need(hardware.memory()).total();
        let budget = MemoryBudget::measure(place.settings.memory_share.value)?;
        let promised = promised_to_boxes(place)?;
        let waiting = Claims::of_pool(place.home)?;
        if budget.classify(need, promised.saturating_add(waiting.promised()?)) != MemoryVerdict::Fits
            || !has_disk_space(place)?
        {
            return Ok(false);
        }
        let guest = WaitingGuest::restore(place.home, hardware, shim, waiting.take(need)?)?;
        self.state().guests.push(guest);
        Ok(true)
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes by which the promises to boxes and waiting guests together exceed what the host has for them.
fn excess(place: PoolPlace<'_>) -> Result<u64> {
    let budget = MemoryBudget::measure(place.settings.memory_share.value)?;
    let waiting = Claims::of_pool(place.home)?.promised()?;
    Ok(promised_to_boxes(place)?.saturating_add(waiting).saturating_sub(budget.limit()))
}

fn promised_to_boxes(place: PoolPlace<'_>) -> Result<u64> {
    Claims::on_memory(place.home)?.promised()
}

fn has_disk_space(place: PoolPlace<'_>) -> Result<bool> {
    let claimed = Claims::open(place.home)?.promised()?;
    let free = boxlite_home::durable::free_space(place.home.root())?;
    Ok(judge(&free, claimed, &Thresholds::of(place.settings)) == Verdict::Ok)
}
