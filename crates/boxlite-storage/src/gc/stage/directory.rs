//! Box directories without a record: what a crash in `create` or `rm` leaves behind.

use boxlite_home::durable::{self, Lock};
use boxlite_types::Result;
use boxlite_types::gc::{Fate, Item, Skip};

use super::super::census::{Census, box_modified};
use super::super::mark::{Holders, Marked, mark};
use super::super::pass::{Pass, kept, removed, skipped};
use super::super::usage;
use super::{Grip, grip};

/// Removes aged box directories without a record, unless another box's chain runs through one of their overlays
/// or somebody holds one of their locks.
pub(in super::super) fn box_directories(pass: &mut Pass<'_>, census: &Census) {
    for (index, entry) in census.boxes.iter().enumerate() {
        if entry.recorded || !entry.directory || !is_box_id(&entry.id) {
            continue;
        }
        let marked = mark_without(pass, census, &entry.id);
        let path = pass.home.of_box(&entry.id).root().to_owned();
        let overlays = census.overlays.iter().filter(|overlay| overlay.owner as usize == index);
        let modified = box_modified(pass.home, &entry.id, overlays.map(|overlay| overlay.modified));
        let allocated = usage::allocated_tree(&path);
        pass.report.partial |= allocated.is_err();
        let seconds = modified.as_ref().map_or(0, |modified| modified.div_euclid(1_000_000_000));
        let fate = match modified {
            Err(error) => pass.failed(&path, error),
            Ok(modified) => judge(pass, census, &marked.boxes[index], &entry.id, modified),
        };
        pass.report.box_directories.push(Item {
            name: entry.id.to_string(),
            path,
            allocated: allocated.unwrap_or(0),
            modified: seconds,
            last_used: seconds,
            fate,
        });
    }
}

/// Whether only `create` makes directories of that name: all else in `boxes/` is not gc's to remove.
fn is_box_id(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn mark_without(pass: &Pass<'_>, census: &Census, id: &str) -> Marked {
    let mut released = pass.released.clone();
    released.boxes.insert(id.into());
    mark(census, &released)
}

fn judge(pass: &mut Pass<'_>, census: &Census, holders: &Holders, id: &str, modified: i64) -> Fate {
    if !holders.is_empty() {
        return kept(census, holders);
    }
    if pass.rules.blind {
        return skipped(Skip::Unknown);
    }
    if pass.rules.is_young(modified) {
        return skipped(Skip::Grace);
    }
    if pass.reached_goal() {
        return skipped(Skip::Enough);
    }
    let path = pass.home.of_box(id).root().to_owned();
    match sweep(pass, id) {
        Ok(fate) => fate,
        Err(error) => pass.failed(&path, error),
    }
}

fn sweep(pass: &mut Pass<'_>, id: &str) -> Result<Fate> {
    let paths = pass.home.of_box(id);
    let mut locks: Vec<Lock> = Vec::new();
    for path in [paths.state_lock(), paths.shim_lock()] {
        match grip(&path, true)? {
            Grip::Held(lock) if pass.options.dry_run => lock.release(),
            Grip::Held(lock) => locks.push(lock),
            Grip::Busy => return Ok(skipped(Skip::InUse)),
            Grip::Gone => {}
        }
    }
    let second = Census::take(pass.home, pass.catalog);
    pass.note_unreadable(&second);
    if pass.rules.blind {
        return Ok(skipped(Skip::Unknown));
    }
    let marked = mark_without(pass, &second, id);
    let found = second.boxes.iter().position(|entry| *entry.id == *id);
    if let Some(found) = found {
        if !marked.boxes[found].is_empty() {
            return Ok(kept(&second, &marked.boxes[found]));
        }
        if second.boxes[found].recorded || pass.catalog.has_box(id)? {
            return Ok(skipped(Skip::InUse));
        }
        if !pass.options.dry_run {
            durable::discard_dir(paths.root(), &pass.home.tmp())?;
        }
    }
    pass.released.boxes.insert(id.into());
    Ok(removed("a box directory without a record"))
}
