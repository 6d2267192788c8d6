//! The memory of boxes: which ones fit this host, and what running ones were promised and take.

use boxlite_home::admission::{
    Claims, MemoryAdmission, MemoryBudget, MemoryHolder, MemoryPromise, MemoryVerdict, ProcessBounds,
};
use boxlite_storage::store::ListedBox;
use boxlite_types::{BoxOptions, BoxRecord, MemoryInfo, Phase, Result};
use boxlite_vm::shim::{memory_need, memory_used};

use super::Observed;
use crate::context::LocalContext;

/// Refuses a box whose guest has so much memory that it could not start here even alone. Where the host's memory cannot be
/// measured, no box is refused.
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
    let admission = MemoryAdmission { home: &context.home, share, need, holders: &holders };
    let promise = if stays_in_group(context) { admission.run_in_own_group() } else { admission.run() };
    promise.map_err(|error| error.while_doing(format_args!("box {} is not started", record.name)))
}

/// Whether boxes that are started here stay in this process's control group: that of an engine, which bounds them and ends
/// them with the job. Where it bounds neither memory nor processors they get groups of their own all the same.
pub(super) fn stays_in_group(context: &LocalContext) -> bool {
    context.tied && ProcessBounds::measure().is_ok_and(|bounds| bounds.come_from_groups())
}

/// The memory promised to all boxes, and what the running ones, `ids`, take of it.
pub(crate) fn figures(context: &LocalContext, ids: &[&str]) -> Result<MemoryInfo> {
    let budget = MemoryBudget::measure(context.settings.memory_share.value)?;
    let live = Claims::on_memory(&context.home)?.live()?;
    let promises: Vec<u64> = live.iter().map(|claim| claim.bytes).collect();
    let usual = memory_need(BoxOptions::default().memory).total();
    let used = used(context, ids);
    let waiting = Claims::of_pool(&context.home)?.live()?.iter().map(|claim| claim.bytes).collect();
    let mut figures = MemoryInfo {
        limit: budget.limit(),
        host: budget.host.clone(),
        promises,
        waiting,
        used: used.iter().flatten().sum(),
        unmeasured: used.iter().filter(|used| used.is_none()).count(),
        full: false,
    };
    // Waiting guests go before a box is refused.
    let to_boxes = figures.promises.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    figures.full = budget.classify(usual, to_boxes) != MemoryVerdict::Fits;
    Ok(figures)
}

/// Bytes that each of the running boxes `ids` takes; the control group of one whose guest waited for it is called by its run.
fn used(context: &LocalContext, ids: &[&str]) -> Vec<Option<u64>> {
    let mut used = memory_used(ids);
    for (used, id) in used.iter_mut().zip(ids).filter(|(used, _)| used.is_none()) {
        if let Ok(BoxRecord { phase: Phase::Started { run, .. }, .. }) = context.store.find_box(id) {
            *used = memory_used(&[run.as_str()]).into_iter().next().flatten();
        }
    }
    used
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
