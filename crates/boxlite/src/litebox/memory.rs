//! The memory of boxes: which ones fit this host, and what running ones were promised and take.

use boxlite_home::admission::{
    Claims, MemoryAdmission, MemoryBudget, MemoryHolder, MemoryPromise, MemoryVerdict,
};
use boxlite_storage::store::ListedBox;
use boxlite_types::{BoxOptions, BoxRecord, MemoryInfo, Result};
use boxlite_vm::shim::{memory_need, memory_used};

use super::Observed;
use crate::context::LocalContext;

/// Refuses a box that could never start here, whatever else runs. A host that cannot be measured refuses none.
///
/// # Errors
/// `ResourceExhausted` with the figures.
pub(crate) fn check(context: &LocalContext, options: &BoxOptions) -> Result<()> {
    match MemoryBudget::measure(context.settings.memory_share.value) {
        Ok(budget) => budget.refuse_too_large(memory_need(options.memory)),
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

/// The memory of all boxes in figures.
pub(crate) fn figures(context: &LocalContext) -> Result<MemoryInfo> {
    let budget = MemoryBudget::measure(context.settings.memory_share.value)?;
    let live = Claims::on_memory(&context.home)?.live()?;
    let promises: Vec<u64> = live.iter().map(|claim| claim.bytes).collect();
    let usual = memory_need(BoxOptions::default().memory).total();
    let promised = promises.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    let full = budget.classify(usual, promised) != MemoryVerdict::Fits;
    let running = running(context)?;
    let ids: Vec<&str> = running.iter().map(|record| record.id.as_str()).collect();
    let used = memory_used(&ids);
    Ok(MemoryInfo {
        limit: budget.limit(),
        host: budget.host,
        promises,
        used: used.iter().flatten().sum(),
        unmeasured: used.iter().filter(|used| used.is_none()).count(),
        full,
    })
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
