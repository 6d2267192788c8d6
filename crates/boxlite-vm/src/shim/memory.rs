//! The memory of a box on the host: what it is promised, and what it takes.

use std::collections::HashMap;
use std::path::Path;

use boxlite_home::admission::MemoryNeed;

/// QEMU is given whole mebibytes.
const UNIT: u64 = 1 << 20;

/// The memory of a guest that was asked to have `wanted` bytes.
pub fn guest_memory(wanted: u64) -> u64 {
    wanted.checked_next_multiple_of(UNIT).unwrap_or(u64::MAX / UNIT * UNIT)
}

/// Returns the promise to a box whose guest was asked to have `wanted` bytes: the bound of its control group.
pub fn memory_need(wanted: u64) -> MemoryNeed {
    let guest = guest_memory(wanted);
    MemoryNeed { guest, overhead: boxlite_jail::memory_overhead(guest) }
}

/// The most memory of a guest with which its box needs no more than `bytes`; `None` where that leaves none.
pub fn guest_within(bytes: u64) -> Option<u64> {
    let most = bytes.checked_sub(boxlite_jail::memory_overhead(0))?;
    // The overhead grows with the guest's memory, so what is left is more than it may have.
    let guest = (most / UNIT * 32 / 33).checked_sub(1)? * UNIT;
    (guest > 0 && memory_need(guest).total() <= bytes).then_some(guest)
}

/// Bytes that each of the running boxes `ids` takes now: as the kernel charges them to its control group, caches of files
/// included, or, where it has none, what its QEMU has resident. `None` where neither can be measured.
pub fn memory_used(ids: &[&str]) -> Vec<Option<u64>> {
    let mut used: Vec<_> = ids.iter().map(|id| boxlite_jail::memory_used(id)).collect();
    if used.contains(&None) {
        let resident = resident();
        for (used, id) in used.iter_mut().zip(ids) {
            *used = used.or_else(|| resident.get(*id).copied());
        }
    }
    used
}

/// Returns the resident memory of each box's QEMU on this host, by the id in the name that QEMU was given.
fn resident() -> HashMap<String, u64> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| resident_of(&entry.path())).collect()
}

fn resident_of(process: &Path) -> Option<(String, u64)> {
    let arguments = std::fs::read_to_string(process.join("cmdline")).ok()?;
    let id =
        arguments.split('\0').skip_while(|argument| *argument != "-name").nth(1)?.strip_prefix("boxlite-")?;
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((id.to_owned(), kib * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation tried: with `next_multiple_of`, a debug build panics and a release promises nothing.
    #[test]
    fn a_promise_is_what_the_control_group_allows_whatever_was_asked_for() {
        for wanted in [0, 1, UNIT, 96 << 20, (96 << 20) + 1, 500 << 30, u64::MAX - 1, u64::MAX] {
            let (need, guest) = (memory_need(wanted), guest_memory(wanted));
            assert!(guest.is_multiple_of(UNIT) && guest >= wanted.min(u64::MAX / UNIT * UNIT), "{wanted}");
            let group = boxlite_jail::CgroupSpec::of_box("b", guest, 1);
            assert_eq!((need.guest, need.total()), (guest, group.memory_max), "{wanted}");
        }
    }

    #[test]
    fn a_guest_within_a_bound_is_as_large_as_it_can_be() {
        for bytes in [300 << 20, 512 << 20, (1 << 30) + 12345, 64 << 30] {
            let guest = guest_within(bytes).unwrap();
            assert!(memory_need(guest).total() <= bytes, "{bytes}");
            assert!(memory_need(guest + (4 << 20)).total() > bytes, "{bytes}: {guest} is too little");
        }
        assert_eq!(guest_within(0), None);
        assert_eq!(guest_within(boxlite_jail::memory_overhead(0)), None);
    }

    #[test]
    fn a_box_that_does_not_run_is_not_measured() {
        assert_eq!(memory_used(&["no-such-box"]), [None]);
        assert_eq!(memory_used(&[]), []);
    }
}
