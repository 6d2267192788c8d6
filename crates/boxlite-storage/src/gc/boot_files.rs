//! Boot files that nobody boots any more: kernels, initramfs files and templates of an older set-up.
//!
//! They are a cache that a start fills again from the host's assets, so no record names them. Starts and shims hold a
//! lease on those they use, and every use is noted in the file's access time. What was not used for a day goes, but for
//! the last used of each kind: the next start would only make it again. Where space is short templates go sooner, since
//! without one a box comes up all the same.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use boxlite_home::admission::Missing;
use boxlite_home::boot_file::TEMPLATE;
use boxlite_home::durable::{self, Lock};
use boxlite_types::gc::{Fate, Item, Skip};
use boxlite_types::{Doing, ErrorKind, Result};

use super::pass::{A_DAY, Pass, removed, skipped};
use super::stage::{Grip, grip};
use crate::disk::qcow2::chain::nanoseconds;

/// A boot file; times in nanoseconds since 1970.
struct Found {
    name: String,
    allocated: u64,
    modified: i64,
    used: i64,
    /// The last used of its kind.
    current: bool,
}

/// Removes boot files that are neither leased nor lately used.
pub(super) fn sweep(pass: &mut Pass<'_>) {
    let directory = pass.home.vm();
    let mut files = match list(&directory) {
        Ok(files) => files,
        Err(error) => return pass.unreadable(&directory, error),
    };
    mark_current(&mut files);
    for file in files {
        let path = directory.join(&file.name);
        let fate = match judge(pass, &file) {
            Some(why) => skipped(why),
            None => match remove(pass, &path, &file.name) {
                Ok(Some(fate)) => fate,
                Ok(None) => continue,
                Err(error) => pass.failed(&path, error),
            },
        };
        pass.report.boot_files.push(Item {
            name: file.name,
            path,
            allocated: file.allocated,
            modified: file.modified.div_euclid(1_000_000_000),
            last_used: file.used.div_euclid(1_000_000_000),
            fate,
        });
    }
}

/// Why a boot file that nobody leases is left alone all the same.
fn judge(pass: &Pass<'_>, file: &Found) -> Option<Skip> {
    if is_young(pass, file.modified) {
        Some(Skip::Grace)
    } else if is_recent(pass, &file.name, file.used) {
        Some(Skip::Recent)
    } else if file.current && !pass.options.all && !is_pressed(pass, &file.name) {
        Some(Skip::Current)
    } else if pass.reached_goal() {
        Some(Skip::Enough)
    } else {
        None
    }
}

fn is_young(pass: &Pass<'_>, modified: i64) -> bool {
    pass.rules.is_young(modified)
}

fn is_recent(pass: &Pass<'_>, name: &str, used: i64) -> bool {
    let lasting = if is_pressed(pass, name) { pass.rules.grace } else { A_DAY };
    pass.rules.now.saturating_sub(used) < pass.rules.until.unwrap_or(0).max(lasting)
}

/// Whether it is a template and a floor is not kept.
fn is_pressed(pass: &Pass<'_>, name: &str) -> bool {
    let is_short = |missing: Missing| !missing.is_nothing() && !missing.share_only;
    name.starts_with(TEMPLATE) && pass.goal.is_some_and(|goal| is_short((goal.missing)()))
}

/// Removes one under its lock, which no start and no shim has then; `None` when it is gone.
fn remove(pass: &Pass<'_>, path: &Path, name: &str) -> Result<Option<Fate>> {
    let lock = match grip(path, false)? {
        Grip::Held(lock) => lock,
        Grip::Busy => return Ok(Some(skipped(Skip::InUse))),
        Grip::Gone => return Ok(None),
    };
    let found = lock.file().metadata().doing("examining", path)?;
    if is_young(pass, modified(&found)) || is_recent(pass, name, used(&found)) {
        return Ok(Some(skipped(Skip::Recent)));
    }
    if pass.options.dry_run {
        lock.release();
    } else {
        discard(lock, &pass.home.tmp())?;
    }
    Ok(Some(removed(if is_pressed(pass, name) {
        "space is short, and no box was started from it within the grace"
    } else {
        "no box was started from it for a day"
    })))
}

fn discard(lock: Lock, tmp: &Path) -> Result<()> {
    let trash = match durable::discard_locked(&lock, tmp) {
        Err(error) if error.kind() == ErrorKind::ResourceExhausted => durable::unlink_locked(&lock),
        other => other,
    };
    lock.release();
    trash?.map_or(Ok(()), durable::Trash::delete)
}

/// The boot files: regular files named as `guest::boot_files` names them. All else there is not gc's business.
fn list(directory: &Path) -> Result<Vec<Found>> {
    let doing = "listing";
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).doing(doing, directory)? {
        let entry = entry.doing(doing, directory)?;
        let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
        if kind(&name).is_none() {
            continue;
        }
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).doing("examining", entry.path()),
        };
        if metadata.is_file() {
            files.push(Found {
                name,
                allocated: if metadata.nlink() > 1 { 0 } else { durable::allocated(&metadata) },
                modified: modified(&metadata),
                used: used(&metadata),
                current: false,
            });
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

/// What a boot file's name begins with: `vmlinux`, or `initramfs` or `template` and its devices; `None` for any other file.
fn kind(name: &str) -> Option<&str> {
    let (kind, key) = name.rsplit_once('-')?;
    let is_key = key.len() == 24 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_kind = kind == "vmlinux"
        || kind.split_once('-').is_some_and(|(what, devices)| {
            matches!(what, "initramfs" | TEMPLATE)
                && !devices.is_empty()
                && devices.bytes().all(|byte| byte.is_ascii_lowercase())
        });
    (is_key && is_kind).then_some(kind)
}

fn mark_current(files: &mut [Found]) {
    let mut latest: BTreeMap<String, (i64, usize)> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        let kind = kind(&file.name).unwrap_or_default().to_owned();
        let last = latest.entry(kind).or_insert((file.used, index));
        if file.used > last.0 {
            *last = (file.used, index);
        }
    }
    for (_, index) in latest.into_values() {
        files[index].current = true;
    }
}

fn modified(metadata: &Metadata) -> i64 {
    nanoseconds(metadata.mtime(), metadata.mtime_nsec())
}

fn used(metadata: &Metadata) -> i64 {
    modified(metadata).max(nanoseconds(metadata.atime(), metadata.atime_nsec()))
}
