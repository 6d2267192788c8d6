//! The memory of boxes: which ones fit this host, and what running ones were promised and take.

use boxlite_home::admission::{
    Claims, MemoryAdmission, MemoryBudget, MemoryHolder, MemoryPromise, MemoryVerdict,
};
use boxlite_storage::store::ListedBox;
use boxlite_types::{BoxOptions, BoxRecord, MemoryInfo, Result};
use boxlite_vm::shim::{memory_need, memory_used};

use super::Observed;
use crate::context::LocalContext;

/// Refuses a box with so many bytes of memory for its guest that it could never start here, whatever else runs. A host that cannot be measured refuses none.
///
/// # Errors
/// `ResourceExhausted` with the figures.
pub(crate) fn check(context: &LocalContext, guest: u64) -> Result<()> {
    match MemoryBudget::measure(context.settings.memory_share.value) {
        Ok(budget) => budget.refuse_too_large(memory_need(guest)),
        Err(_) => Ok(()),
    }
}

/// Promises the box of `record` its memory.
///
/// # Errors
/// `ResourceExhausted` with the figures, and the boxes that were promised most.
pub(super) fn admit(context: &LocalContext, record: &BoxRecord) -> Result<MemoryPromise> {
    let holders = || {
        let running = running(context).unwrap_or_default().into_iter();
        let promised = |record: BoxRecord| MemoryHolder {
            bytes: memory_need(record.options.memory).total(),
            name: record.name,
        };
        running.map(promised).collect()
    };
    let need = memory_need(record.options.memory);
    let share = context.settings.memory_share.value;
    MemoryAdmission { home: &context.home, share, need, holders: &holders }
        .run()
        .map_err(|error| error.while_doing(format_args!("box {} is not started", record.name)))
}

/// The memory of all boxes in figures, where those with `ids` run.
pub(crate) fn figures(context: &LocalContext, ids: &[&str]) -> Result<MemoryInfo> {
    let budget = MemoryBudget::measure(context.settings.memory_share.value)?;
    let live = Claims::on_memory(&context.home)?.live()?;
    let promises: Vec<u64> = live.iter().map(|claim| claim.bytes).collect();
    let usual = memory_need(BoxOptions::default().memory).total();
    let used = memory_used(ids);
    let mut figures = MemoryInfo {
        limit: budget.limit(),
        host: budget.host.clone(),
        promises,
        used: used.iter().flatten().sum(),
        unmeasured: used.iter().filter(|used| used.is_none()).count(),
        full: false,
    };
    figures.full = budget.classify(usual, figures.promised()) != MemoryVerdict::Fits;
    Ok(figures)
}

/// The records of the boxes that run.
fn running(context: &LocalContext) -> Result<Vec<BoxRecord>> {
    let runs =
        |record: &BoxRecord| matches!(Observed::of(&context.home, record), Ok(Observed::Running { .. }));
    let records = context.store.boxes()?.into_iter().filter_map(|listed| match listed {
        ListedBox::Whole(record) => Some(*record),
        ListedBox::Damaged(_) => None,
    });
    Ok(records.filter(runs).collect())
}
