//! Changes of a box after its creation.

use boxlite_types::{BoxRecord, Error, RestartPolicy, Result, UpdateOptions};
use boxlite_vm::shim::DiskQuota;

use super::{BoxGuard, Observed, create, description, memory, name, network, quota};
use crate::context::LocalContext;

/// Checks and records the new values durably; returns whether the box runs, so that its shim must hear of them. Blocks.
///
/// # Crash safety
/// The description comes first: where there is no room for it, nothing has changed. A crash after it leaves a `box.json`
/// with the new values beside the old record, which counts.
///
/// # Errors
/// `InvalidInput` with the figures; `Conflict` for what cannot change while the box runs, and for a name that is taken.
pub(crate) fn update(context: &LocalContext, guard: &mut BoxGuard, changes: &UpdateOptions) -> Result<bool> {
    if *changes == UpdateOptions::default() {
        return Err(Error::invalid("an update names nothing that is to change"));
    }
    let running = matches!(guard.settle(context)?, Observed::Running { .. });
    if running {
        refuse_running(&guard.record, changes)?;
    }
    network::check_changes(&context.home, &guard.record, changes)?;
    let before = guard.record.clone();
    guard.record.options = changes.applied_to(before.options.clone());
    check(context, guard, changes)?;
    // Held until the box is recorded.
    let joined = network::join(context, &before.id, &guard.record.options, &before.memberships)?;
    guard.record.memberships.clone_from(&joined.memberships);
    if let Some(name) = &changes.name {
        guard.record.name.clone_from(name);
    }
    let recorded =
        description::write(context, &guard.paths, &guard.record).and_then(|()| match &changes.name {
            Some(_) => context.store.rename_box(&guard.record),
            None => context.store.update_box(&guard.record),
        });
    if recorded.is_err() && description::write(context, &guard.paths, &before).is_err() {
        tracing::warn!(id = before.id, "the box's description has values that were refused");
    }
    recorded.map(|()| running)
}

fn check(context: &LocalContext, guard: &BoxGuard, changes: &UpdateOptions) -> Result<()> {
    let BoxRecord { options, image_config, disk_image_size, name, .. } = &guard.record;
    if let Some(wanted) = changes.disk_quota.flatten().map(DiskQuota) {
        quota::check(wanted, options.disk_size.unwrap_or(*disk_image_size))?;
        quota::check_beside(wanted, quota::used(&guard.paths)?, name)?;
    }
    if let Some(name) = &changes.name {
        name::check(name)?;
    }
    if let Some(memory) = changes.memory {
        memory::check(context, memory)?;
    }
    create::check(options, image_config, *disk_image_size)
}

/// Refuses what a running box cannot be told.
fn refuse_running(record: &BoxRecord, changes: &UpdateOptions) -> Result<()> {
    let name = &record.name;
    let moves = changes.network.is_some()
        || changes.networks.is_some()
        || changes.join.is_some()
        || changes.leave.is_some();
    if moves {
        return Err(Error::conflict(format!(
            "box {name} is running, and joins and leaves networks only while it does not: stop it first"
        )));
    }
    if changes.needs_rest() {
        return Err(Error::conflict(format!(
            "box {name} is running; only its name, disk quota, restart policy and time to live can change then: stop it first"
        )));
    }
    // By the run, not by the options: those may have changed since it began.
    if changes.restart.is_some_and(|policy| policy != RestartPolicy::No) && !record.restarts.kept {
        return Err(Error::conflict(format!(
            "box {name} is running, and nothing beside it could restart it: stop it first"
        )));
    }
    Ok(())
}

/// Records that the user has stopped the guarded box, so that it is not restarted.
pub(crate) fn halt(context: &LocalContext, guard: &mut BoxGuard) -> Result<()> {
    if guard.record.options.restart == RestartPolicy::No || guard.record.restarts.halted {
        return Ok(());
    }
    guard.record.restarts.halted = true;
    context.store.update_box(&guard.record)
}
