//! Changes of a box after its creation.

use boxlite_types::{Result, UpdateOptions};
use boxlite_vm::shim::DiskQuota;

use super::{BoxGuard, Observed, description, quota};
use crate::context::LocalContext;

/// Checks and records the new values durably; returns whether the box runs, so that its shim must hear of them. Blocks.
///
/// # Crash safety
/// The description comes first: where there is no room for it, nothing has changed. A crash after it leaves a `box.json`
/// with the new values beside the old record, which counts.
///
/// # Errors
/// `InvalidInput` with the figures.
pub(crate) fn update(context: &LocalContext, guard: &mut BoxGuard, options: &UpdateOptions) -> Result<bool> {
    let running = matches!(guard.settle(context)?, Observed::Running { .. });
    if let Some(wanted) = options.disk_quota.map(DiskQuota) {
        let record = &guard.record;
        quota::check(wanted, record.options.disk_size.unwrap_or(record.disk_image_size))?;
        quota::check_beside(wanted, quota::used(&guard.paths)?, &record.name)?;
    }
    guard.record.options.disk_quota = options.disk_quota;
    description::write(context, &guard.paths, &guard.record)?;
    context.store.update_box(&guard.record)?;
    Ok(running)
}
