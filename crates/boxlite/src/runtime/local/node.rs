//! This host as a node of a cluster.

use boxlite_home::admission::{
    Claims, Collector, MemoryBudget, MemoryVerdict, ProcessBounds, Thresholds, classify_inodes, judge,
};
use boxlite_home::settings::{Bytes, Settings};
use boxlite_home::{Home, durable};
use boxlite_types::{
    Allotment, BoxOptions, Error, ErrorCause, FreeSpace, NodeCheck, NodeMemory, NodeReclaimable, NodeSpace,
    Result, Shortage, Verdict,
};
use boxlite_vm::shim::{guest_within, memory_need};

use crate::context::{LocalContext, open_home};
use crate::options::RuntimeOptions;

/// Bytes for the processes beside a box in its starter's control group: the starter, the shim, the network.
const BESIDE_THE_BOX: u64 = 96 << 20;

/// The least memory that a guest is given by `-m auto`.
const LEAST_GUEST: u64 = 64 << 20;

/// Tells whether boxes should be placed on this host, as [`Runtime::check_node`](crate::Runtime::check_node) without what gc
/// could free. The database is not opened, and no lock and no write of others is waited for.
///
/// # Errors
/// As for [`Runtime::local`](crate::Runtime::local).
pub fn measure_node(options: &RuntimeOptions) -> Result<NodeCheck> {
    let (home, settings) = open_home(options)?;
    Ok(measure(&home, &settings))
}

/// Measures what decides whether boxes can be placed here; with `reclaimable`, also what gc could free.
pub(super) fn check(context: &LocalContext, reclaimable: bool) -> NodeCheck {
    let found = reclaimable.then(|| context.collector().collectable(&[])).flatten();
    let reclaimable = found.map(|found| NodeReclaimable { bytes: found.now.bytes, inodes: found.now.inodes });
    NodeCheck { reclaimable, ..measure(&context.home, &context.settings) }
}

fn measure(home: &Home, settings: &Settings) -> NodeCheck {
    let thresholds = Thresholds::of(settings);
    let space = space(home, &thresholds);
    let memory = memory(home, settings).ok();
    let (verdict, reason) = match &space {
        Ok(space) => match judge(&space.free, space.claimed, &thresholds) {
            Verdict::Ok if memory.is_some_and(|memory| memory.full) => {
                (Verdict::Warn, Some(memory_reason(memory)))
            }
            Verdict::Ok => (Verdict::Ok, None),
            verdict => (verdict, Some(space_reason(space, &thresholds))),
        },
        // As for a start: the guard never blocks because a measurement failed.
        Err(error) => (Verdict::Warn, Some(format!("the free space could not be read: {}", error.chain()))),
    };
    let space = space.ok();
    NodeCheck { verdict, reason, home: home.root().to_owned(), space, memory, reclaimable: None }
}

/// Returns the share of a box that is to use all that this process may.
///
/// # Errors
/// `ResourceExhausted` where the bound of memory leaves too little.
pub(super) fn allotment(context: &LocalContext) -> Result<Allotment> {
    let bounds = ProcessBounds::measure()?;
    let processors = Allotment::of_processors(bounds.processors, bounds.cpu_percent);
    if bounds.memory.is_none() {
        return Ok(processors);
    }
    let limit = MemoryBudget::measure(context.settings.memory_share.value)?.limit();
    let memory = guest_within(limit.saturating_sub(BESIDE_THE_BOX)).filter(|memory| *memory >= LEAST_GUEST);
    if memory.is_some() {
        return Ok(Allotment { memory, ..processors });
    }
    let need = memory_need(LEAST_GUEST).total() + BESIDE_THE_BOX;
    let message = format!(
        "the control group of this process leaves boxes {}, and the smallest needs {}",
        Bytes(limit),
        Bytes(need)
    );
    let shortage = Shortage { need, have: limit, inodes: false, reclaimable: None };
    Err(Error::exhausted(message, shortage).about(ErrorCause::Memory))
}

fn space(home: &Home, thresholds: &Thresholds) -> Result<NodeSpace> {
    let Thresholds { hard_floor, soft_floor, inode_floor, .. } = *thresholds;
    // Claims first, as for a start: what their owners write in between is counted twice rather than not at all.
    let claimed = Claims::open(home)?.promised()?;
    let free = durable::free_space(home.root())?;
    Ok(NodeSpace { free, claimed, hard_floor, soft_floor, inode_floor })
}

fn memory(home: &Home, settings: &Settings) -> Result<NodeMemory> {
    let budget = MemoryBudget::measure(settings.memory_share.value)?;
    let promised = Claims::on_memory(home)?.promised()?;
    let usual = memory_need(BoxOptions::default().memory).total();
    let full = budget.classify(usual, promised) != MemoryVerdict::Fits;
    Ok(NodeMemory { limit: budget.limit(), promised, full })
}

fn memory_reason(memory: Option<NodeMemory>) -> String {
    let (limit, promised) = memory.map_or((0, 0), |memory| (memory.limit, memory.promised));
    format!("boxes may have {} of memory, of which {} is promised", Bytes(limit), Bytes(promised))
}

/// Says what is short: inodes where the bytes suffice.
fn space_reason(space: &NodeSpace, thresholds: &Thresholds) -> String {
    let free = &space.free;
    let inodes = classify_inodes(free.inodes, free.inodes_total, thresholds);
    let bytes = judge(&FreeSpace { inodes_total: 0, ..*free }, space.claimed, thresholds);
    if inodes > bytes {
        return format!("{} of {} inodes free", free.inodes, free.inodes_total);
    }
    let claimed = match space.claimed {
        0 => String::new(),
        claimed => format!(", {} of it claimed", Bytes(claimed)),
    };
    let floor = match bytes {
        Verdict::Reject => format!("starts need {}", Bytes(space.hard_floor)),
        _ => format!("starts warn below {} or {} %", Bytes(space.soft_floor), thresholds.soft_percent),
    };
    format!("{} of {} free{claimed}; {floor}", Bytes(free.bytes), Bytes(free.bytes_total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_names_what_is_short() {
        let thresholds =
            Thresholds { hard_floor: 1 << 30, soft_floor: 5 << 30, soft_percent: 10, inode_floor: 100 };
        let with = |bytes, claimed, inodes| {
            let free = FreeSpace { bytes, bytes_total: 100 << 30, inodes, inodes_total: 1000 };
            space_reason(
                &NodeSpace { free, claimed, hard_floor: 1 << 30, soft_floor: 5 << 30, inode_floor: 100 },
                &thresholds,
            )
        };
        assert_eq!(with(2 << 30, 0, 900), "2 GiB of 100 GiB free; starts warn below 5 GiB or 10 %");
        assert_eq!(
            with(2 << 30, 3 << 30, 900),
            "2 GiB of 100 GiB free, 3 GiB of it claimed; starts need 1 GiB"
        );
        assert_eq!(with(50 << 30, 0, 99), "99 of 1000 inodes free");
        assert_eq!(with(1 << 20, 0, 99), "1 MiB of 100 GiB free; starts need 1 GiB", "bytes come first");
    }
}
