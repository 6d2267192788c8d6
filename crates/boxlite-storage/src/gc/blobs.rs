//! Blobs that no image refers to, and images that no box uses.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use boxlite_home::durable::{self, Lock};
use boxlite_types::gc::{Fate, Item, Skip};
use boxlite_types::{Doing, Error, Result};

use super::pass::{Pass, removed, skipped};
use crate::disk::qcow2::chain::nanoseconds;

/// Removes blobs that no image refers to, past their grace and not leased.
///
/// The catalogue is asked again with the blob's lock held: a pull leases every blob it relies on until its image
/// is recorded.
pub(super) fn sweep_unreferenced(pass: &mut Pass<'_>) {
    sweep(pass, &HashSet::new());
}

/// Drops images that no box uses, least recently used first, and then their blobs.
pub(super) fn forget_unused(pass: &mut Pass<'_>) {
    let database = pass.home.database();
    let mut used: HashSet<String> = HashSet::new();
    let mut images: Vec<(SystemTime, String, Option<String>)> = Vec::new();
    let read = pass.catalog.boxes(&mut |pin| used.extend([pin.image.to_owned()])).and_then(|()| {
        pass.catalog.images(&mut |pin| {
            images.push((pin.last_used, pin.digest.to_owned(), pin.reference.map(ToOwned::to_owned)));
        })
    });
    if let Err(error) = read {
        return pass.unreadable(&database, error);
    }
    images.sort();
    let mut forgotten = HashSet::new();
    for (last_used, digest, reference) in images {
        let seconds = seconds(last_used);
        let fate = if used.contains(&digest) {
            continue;
        } else if pass.rules.is_young(nanoseconds(seconds, 0)) {
            skipped(Skip::Grace)
        } else if pass.rules.until.is_some_and(|until| pass.rules.now - nanoseconds(seconds, 0) < until) {
            skipped(Skip::Recent)
        } else if pass.wanted().is_none() {
            skipped(Skip::Enough)
        } else {
            forget(pass, &digest, &mut forgotten)
        };
        let name = reference.map_or_else(|| digest.clone(), |reference| format!("{reference} ({digest})"));
        let path = database.clone();
        pass.report.images.push(Item {
            name,
            path,
            allocated: 0,
            modified: seconds,
            last_used: seconds,
            fate,
        });
    }
}

/// Takes one image out of the catalogue and removes the blobs that were its alone.
fn forget(pass: &mut Pass<'_>, digest: &str, forgotten: &mut HashSet<String>) -> Fate {
    let idle_since = SystemTime::UNIX_EPOCH
        + Duration::from_nanos(pass.rules.now.saturating_sub(pass.rules.grace).max(0) as u64);
    if !pass.options.dry_run {
        match pass.catalog.forget_image(digest, idle_since) {
            Ok(true) => {}
            Ok(false) => return skipped(Skip::InUse),
            Err(error) => {
                let database = pass.home.database();
                return pass.failed(&database, error);
            }
        }
    }
    forgotten.insert(digest.to_owned());
    sweep(pass, forgotten);
    removed("no box uses it")
}

/// Bytes that all blobs allocate.
pub(super) fn allocated(pass: &mut Pass<'_>) -> u64 {
    let listed = list(&pass.home.blobs());
    pass.report.partial |= listed.is_err();
    listed.unwrap_or_default().iter().map(|blob| blob.allocated).fold(0, u64::saturating_add)
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed()
}

struct Blob {
    name: String,
    allocated: u64,
    modified: i64,
    seconds: i64,
}

fn sweep(pass: &mut Pass<'_>, forgotten: &HashSet<String>) {
    let directory = pass.home.blobs();
    let mut referenced = BTreeSet::new();
    let read = pass.catalog.blobs(&mut |image, blob| {
        if !forgotten.contains(image) {
            referenced.insert(blob.to_owned());
        }
    });
    if let Err(error) = read {
        let database = pass.home.database();
        return pass.unreadable(&database, error);
    }
    let blobs = match list(&directory) {
        Ok(blobs) => blobs,
        Err(error) => return pass.unreadable(&directory, error),
    };
    let judged: HashSet<String> = pass.report.blobs.iter().map(|item| item.name.clone()).collect();
    for blob in blobs {
        if referenced.contains(&blob.name) || judged.contains(&blob.name) {
            continue;
        }
        let path = directory.join(&blob.name);
        let fate = if pass.rules.is_young(blob.modified) {
            skipped(Skip::Grace)
        } else if pass.reached_goal() {
            skipped(Skip::Enough)
        } else {
            match remove(pass, &path, &blob, forgotten) {
                Ok(Some(fate)) => fate,
                Ok(None) => continue,
                Err(error) => pass.failed(&path, error),
            }
        };
        if matches!(fate, Fate::Removed { .. }) {
            pass.stored = pass.stored.saturating_sub(blob.allocated);
        }
        let (allocated, modified) = (blob.allocated, blob.seconds);
        pass.report.blobs.push(Item {
            name: blob.name,
            path,
            allocated,
            modified,
            last_used: modified,
            fate,
        });
    }
}

/// `None` when it is gone, or was referred to meanwhile.
fn remove(pass: &Pass<'_>, path: &Path, blob: &Blob, forgotten: &HashSet<String>) -> Result<Option<Fate>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("opening", path, error)),
    };
    let Some(lock) = Lock::try_lock_open(file, path)? else { return Ok(Some(skipped(Skip::InUse))) };
    if !lock.still_at_path()? {
        return Ok(None);
    }
    let metadata = lock.file().metadata().doing("examining", path)?;
    if pass.rules.is_young(nanoseconds(metadata.mtime(), metadata.mtime_nsec())) {
        return Ok(Some(skipped(Skip::Grace)));
    }
    let lock = if pass.options.dry_run {
        lock.release();
        None
    } else {
        Some(lock)
    };
    // In a dry run the catalogue still has the images that would be forgotten, so it cannot be asked about them.
    let would_be_forgotten = pass.options.dry_run && !forgotten.is_empty();
    if !would_be_forgotten && pass.catalog.blob_is_referenced(&blob.name)? {
        return Ok(None);
    }
    if !pass.options.dry_run {
        let trash = durable::discard(path, &pass.home.tmp())?;
        drop(lock);
        trash.delete()?;
    }
    Ok(Some(removed("no image refers to it")))
}

/// The blobs: regular files whose names are digests. Everything else there is not gc's business.
fn list(directory: &Path) -> Result<Vec<Blob>> {
    let doing = "listing";
    let mut blobs = Vec::new();
    for entry in std::fs::read_dir(directory).doing(doing, directory)? {
        let entry = entry.doing(doing, directory)?;
        let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
        if name.len() != 64 || !name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            continue;
        }
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("examining", entry.path(), error)),
        };
        if metadata.is_file() {
            let modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
            let allocated = durable::allocated(&metadata);
            blobs.push(Blob { name, allocated, modified, seconds: metadata.mtime() });
        }
    }
    blobs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(blobs)
}
