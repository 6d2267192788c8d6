//! Removing boxes.

use std::path::Path;

use boxlite_home::EventLog;
use boxlite_home::durable::{self, Lock, fault};
use boxlite_storage::gc;
use boxlite_storage::store::{IntentKind, ListedBox};
use boxlite_types::{BoxRecord, Doing, Error, ErrorKind, EventAction, HomeEvent, Phase, Result};
use jiff::{SignedDuration, Timestamp};

use super::guard::shim_lock;
use super::{BoxGuard, Observed, PendingRestart};
use crate::context::LocalContext;
use crate::starters;

/// How long an exited auto-remove box is left alone, so that its waiters still find its outcome.
const REAP_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// The most intents for what is gone that one removal drops.
const MAX_GONE: usize = 64;

/// Removes a box that does not run: first its record, which releases its disk image, then its directory.
///
/// The intent for the directory is written with the end of the record; after a crash gc acts on it. That of a box which was
/// to remove itself is dropped in the transaction of the next removal, which spares most runs one of their own.
///
/// # Errors
/// `Busy` when processes of the box keep running.
pub(crate) fn remove(context: &LocalContext, guard: &BoxGuard) -> Result<()> {
    let _at_rest = guard.shim_lock()?;
    refuse_link(guard.paths.root())?;
    context.store.delete_box(&guard.record.id, &gone_before(context))?;
    fault::point("rm.unrecorded").doing("removing", guard.paths.root())?;
    durable::discard_dir(guard.paths.root(), &context.home.tmp())?;
    if !guard.record.options.auto_remove {
        forget(context, &guard.record.id);
    }
    released(context);
    let event = HomeEvent::of_box(EventAction::Remove, &guard.record.id, Some(&guard.record.name));
    EventLog::of(&context.home).note(&event);
    Ok(())
}

/// Removes the box `id` whose record cannot be read, or which has lost its directory; its shim must have been
/// ended. What is there in place of the directory stays.
///
/// # Errors
/// `Busy` when another process is changing it, or it runs.
pub(crate) fn remove_damaged(context: &LocalContext, id: &str) -> Result<()> {
    let paths = context.home.of_box(id);
    let mut locks = Vec::new();
    refuse_link(paths.root())?;
    if paths.root().is_dir() {
        let path = paths.state_lock();
        let busy =
            || Error::new(ErrorKind::Busy, format!("box {id} is in use: {} is locked", path.display()));
        locks.push(Lock::try_exclusive(&path)?.ok_or_else(busy)?);
        locks.push(shim_lock(&paths, id)?);
    }
    context.store.delete_box(id, &[])?;
    if paths.root().is_dir() {
        durable::discard_dir(paths.root(), &context.home.tmp())?;
    } else if paths.root().symlink_metadata().is_ok() {
        // boxlite makes nothing but directories there, so this belongs to somebody else.
        tracing::warn!("{} is not a box's directory, and stays where it is", paths.root().display());
    }
    forget(context, id);
    released(context);
    Ok(())
}

/// Refuses a box whose directory was replaced by a link, before its record goes: what the link leads to is not removed.
fn refuse_link(root: &Path) -> Result<()> {
    if !root.is_symlink() {
        return Ok(());
    }
    let message = format!(
        "{} is a symlink, and only directories of the home are removed; move the directory back in its place",
        root.display()
    );
    Err(Error::conflict(message).at(root))
}

/// Tells gc that something was removed, and refills the reserves that the removal may have used.
fn released(context: &LocalContext) {
    gc::note_release(&context.home);
    context.fill_reserves(0);
}

/// The boxes whose intent from their removal is there still, and whose directory is certainly gone. An id is never given
/// again.
fn gone_before(context: &LocalContext) -> Vec<String> {
    let removed = context.store.removed_boxes(MAX_GONE).unwrap_or_else(|error| {
        tracing::debug!(error = %error.chain(), "intents for boxes that are gone stay");
        Vec::new()
    });
    let is_gone = |id: &String| {
        let found = context.home.of_box(id).root().symlink_metadata();
        found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    removed.into_iter().filter(is_gone).collect()
}

/// Drops the intent for a directory that is gone; one that stays says nothing about any other.
pub(super) fn forget(context: &LocalContext, id: &str) {
    if let Err(error) = context.store.drop_intent(IntentKind::Box, id) {
        tracing::debug!(error = %error.chain(), "the intent for a box that is gone stays");
    }
}

/// Removes the auto-remove boxes that exited a while ago and were not removed by their own client, and those that were to end
/// with a process which was killed before they ran.
///
/// A failure with one of them is logged and left to the next time: listing and gc continue, also on a full disk.
pub(crate) fn reap(context: &LocalContext) -> Result<()> {
    for record in context.store.boxes()?.into_iter().filter_map(ListedBox::whole) {
        if record.options.ttl.is_none() {
            log_failure(&record, remove_ended(context, &record, ended_long_ago).map(drop));
            log_failure(&record, remove_unstarted(context, &record));
        }
    }
    Ok(())
}

/// Removes the boxes whose time to live has passed, but for the one with the id `spared`; reads only the records that have one.
///
/// Only operations that make boxes, start them or collect garbage do this: a command that merely lists a home must find
/// everything, even after the clock has jumped.
pub(crate) fn expire(context: &LocalContext, spared: Option<&str>) -> Result<()> {
    for record in context.store.boxes_with_ttl()?.into_iter().filter_map(ListedBox::whole) {
        if spared != Some(record.id.as_str()) {
            log_failure(&record, remove_expired(context, &record).map(drop));
        }
    }
    Ok(())
}

fn log_failure(record: &BoxRecord, removed: Result<()>) {
    if let Err(error) = removed {
        tracing::warn!(id = record.id, error = %error.chain(), "an ended box could not be removed");
    }
}

/// Removes the box of `record` if its time to live has passed; returns when to look again, for one that has stopped and stays.
pub(crate) fn remove_expired(context: &LocalContext, record: &BoxRecord) -> Result<Option<Timestamp>> {
    if record.options.ttl.is_none() {
        return Ok(None);
    }
    let Some(phase) = rest_for_good(context, record)? else { return Ok(None) };
    match expiry(record, &phase) {
        Some(at) if at > Timestamp::now() => return Ok(Some(at)),
        _ => {}
    }
    let Some(mut guard) = BoxGuard::try_acquire(context, &record.id)? else {
        // The guard's holder is soon done.
        return Ok(Some(Timestamp::now()));
    };
    if rest_for_good(context, &guard.record)?.is_none() {
        return Ok(None);
    }
    guard.settle(context)?;
    if let Phase::Failed { started_at, at: None, exit_code, reason } = guard.record.phase.clone() {
        // No process was left to say when the run ended, so its time to live begins when that is noticed.
        guard.enter(context, Phase::Failed { started_at, at: Some(Timestamp::now()), exit_code, reason })?;
    }
    match expiry(&guard.record, &guard.record.phase) {
        Some(at) if at <= Timestamp::now() => {
            tracing::info!(id = record.id, "the box's time to live has passed");
            remove(context, &guard).map(|()| None)
        }
        at => Ok(at),
    }
}

/// The phase of a box that has stopped and is not about to be restarted; `None` for any other.
fn rest_for_good(context: &LocalContext, record: &BoxRecord) -> Result<Option<Phase>> {
    let Observed::Resting(phase) = Observed::of(&context.home, record)? else { return Ok(None) };
    let restarts = PendingRestart::is_shown(&context.home.of_box(&record.id), record, &phase)?;
    Ok((!restarts).then_some(phase))
}

/// When the time to live of a box in `phase` has passed; `None` for one that has not stopped, or at an unknown time.
fn expiry(record: &BoxRecord, phase: &Phase) -> Option<Timestamp> {
    let ttl = SignedDuration::from_secs(record.options.ttl?.try_into().ok()?);
    ended_at(phase)?.checked_add(ttl).ok()
}

fn ended_at(phase: &Phase) -> Option<Timestamp> {
    match phase {
        Phase::Created | Phase::Started { .. } => None,
        Phase::Ended { outcome, .. } => outcome.at,
        Phase::Failed { at, .. } => *at,
    }
}

/// Removes the auto-remove box of that name if its run has ended; says whether the name is free now.
pub(crate) fn release_name(context: &LocalContext, name: &str) -> Result<bool> {
    remove_ended(context, &context.store.find_box(name)?, |_| true)
}

/// Whether the guarded box removes itself at the end of its run, and the run has ended.
pub(crate) fn ended(context: &LocalContext, guard: &BoxGuard) -> Result<bool> {
    let record = &guard.record;
    let at_rest = matches!(Observed::of(&context.home, record)?, Observed::Resting(_));
    Ok(record.options.auto_remove && record.phase != Phase::Created && at_rest)
}

/// Removes an auto-remove box whose run has ended in a way that `suits`; says whether it did.
fn remove_ended(context: &LocalContext, record: &BoxRecord, suits: impl Fn(&Phase) -> bool) -> Result<bool> {
    if !record.options.auto_remove || record.phase == Phase::Created {
        return Ok(false);
    }
    let Some(guard) = BoxGuard::try_acquire(context, &record.id)? else { return Ok(false) };
    match Observed::of(&context.home, &guard.record)? {
        Observed::Resting(phase) if suits(&phase) => remove(context, &guard).map(|()| true),
        _ => Ok(false),
    }
}

/// Removes an auto-remove box that never ran, if it is tied to a process that has ended.
fn remove_unstarted(context: &LocalContext, record: &BoxRecord) -> Result<()> {
    let paths = context.home.of_box(&record.id);
    if !record.options.auto_remove || record.phase != Phase::Created || !starters::has_ended(&paths)? {
        return Ok(());
    }
    let Some(guard) = BoxGuard::try_acquire(context, &record.id)? else { return Ok(()) };
    match Observed::of(&context.home, &guard.record)? {
        Observed::Resting(Phase::Created) => remove(context, &guard),
        _ => Ok(()),
    }
}

fn ended_long_ago(phase: &Phase) -> bool {
    matches!(phase, Phase::Ended { .. } | Phase::Failed { .. })
        && ended_at(phase).is_none_or(|at| Timestamp::now().duration_since(at) > REAP_AFTER)
}
