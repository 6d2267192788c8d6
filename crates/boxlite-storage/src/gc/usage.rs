//! How much space everything takes: the figures of `system df`. Allocated bytes throughout.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use boxlite_home::Home;
use boxlite_home::durable::{self, FileId};
use boxlite_home::settings::Settings;
use boxlite_types::gc::{BoxUsage, Fate, ImageUsage, Item, Share, Unreadable};
use boxlite_types::{Error, GcOptions, Result, Usage};

use super::catalog::Catalog;
use super::census::Census;
use super::pass::Pass;

/// Measures `home`; changes nothing.
pub fn usage(home: &Home, catalog: &Arc<dyn Catalog>, settings: &Settings) -> Result<Usage> {
    let options = GcOptions { dry_run: true, ..GcOptions::default() };
    let plan = Pass::new(home, &**catalog, settings, &options, None).run();
    let census = Census::take(home, &**catalog);
    let mut usage = Usage { unreadable: plan.unreadable.clone(), ..Usage::default() };
    usage.reclaimable = plan.reclaimed;

    let mut users: HashMap<FileId, HashSet<u32>> = HashMap::new();
    for (owner, image) in &census.pins {
        users.entry(census.images[*image as usize].id).or_default().insert(*owner);
    }
    let mut own = vec![0_u64; census.boxes.len()];
    for overlay in &census.overlays {
        own[overlay.owner as usize] += overlay.allocated;
        usage.overlays.count += 1;
        usage.overlays.allocated += overlay.allocated;
        census.chains.visit_below(overlay.backing, |id| users.entry(id).or_default().extend([overlay.owner]));
    }
    let removed: HashSet<&Path> = plan.removed().map(|item| item.path.as_path()).collect();
    let mut below = vec![0_u64; census.boxes.len()];
    let stored = census.images.iter().map(|image| (image, home.disk_images(), true));
    for (item, directory, is_image) in
        stored.chain(census.bases.iter().map(|base| (base, home.bases(), false)))
    {
        let reclaimable = removed.contains(directory.join(&*item.name).as_path());
        let boxes = users.get(&item.id);
        if boxes.is_some_and(|boxes| boxes.len() > 1) {
            usage.shared += item.allocated;
        }
        for owner in boxes.into_iter().flatten() {
            below[*owner as usize] += item.allocated;
        }
        let share = if is_image { &mut usage.disk_images } else { &mut usage.bases };
        share.count += 1;
        share.allocated += item.allocated;
        share.reclaimable += if reclaimable { item.allocated } else { 0 };
        if is_image {
            usage.images.push(ImageUsage {
                digest: item.name.trim_end_matches(".ext4").to_owned(),
                allocated: item.allocated,
                boxes: boxes.map_or(0, HashSet::len) as u64,
                reclaimable,
                last_used: item.used.div_euclid(1_000_000_000),
            });
        }
    }
    for (index, entry) in census.boxes.iter().enumerate() {
        let root = home.of_box(&entry.id).root().to_owned();
        let total = if entry.directory { measure(&mut usage.unreadable, &root) } else { 0 };
        let logs = total.saturating_sub(own[index]);
        usage.logs.count += 1;
        usage.logs.allocated += logs;
        usage.boxes.push(BoxUsage {
            id: entry.id.to_string(),
            overlays: own[index],
            logs,
            below: below[index],
        });
    }
    usage.blobs = directory(&mut usage.unreadable, &home.blobs(), &plan.blobs);
    usage.boot_files = directory(&mut usage.unreadable, &home.vm(), &plan.boot_files);
    usage.unfinished = directory(&mut usage.unreadable, &home.tmp(), &plan.unfinished);
    Ok(usage)
}

fn measure(unreadable: &mut Vec<Unreadable>, path: &Path) -> u64 {
    allocated_tree(path).unwrap_or_else(|error| {
        unreadable.push(Unreadable { path: path.to_owned(), reason: error.chain().to_string() });
        0
    })
}

/// The share of everything in a directory, without the directory itself.
fn directory(unreadable: &mut Vec<Unreadable>, path: &Path, items: &[Item]) -> Share {
    let removed = items.iter().filter(|item| matches!(item.fate, Fate::Removed { .. }));
    let mut share = Share { reclaimable: removed.map(|item| item.allocated).sum(), ..Share::default() };
    match std::fs::read_dir(path) {
        Ok(entries) => {
            for entry in entries.flatten() {
                share.count += 1;
                share.allocated += measure(unreadable, &entry.path());
            }
        }
        Err(error) => unreadable.push(Unreadable { path: path.to_owned(), reason: error.to_string() }),
    }
    share
}

/// How many files and directories there are at `path` and below; those that cannot be listed count as empty.
pub(super) fn entries(path: &Path) -> u64 {
    let below = std::fs::read_dir(path).into_iter().flatten().flatten();
    let is_dir = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    1 + below.map(|entry| if is_dir(&entry) { entries(&entry.path()) } else { 1 }).sum::<u64>()
}

/// Bytes allocated to a file, or to a directory and everything in it; equals `du --block-size=1`: symlinks are
/// not followed and a file with several names counts once. What vanishes meanwhile counts nothing.
pub(super) fn allocated_tree(path: &Path) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut total: u64 = 0;
    let mut unexplored = vec![path.to_owned()];
    while let Some(path) = unexplored.pop() {
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("examining", path, error)),
        };
        if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert(FileId::of(&metadata)) {
            continue;
        }
        total = total.saturating_add(durable::allocated(&metadata));
        if metadata.is_dir() {
            let entries = match std::fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("listing", path, error)),
            };
            for entry in entries {
                unexplored.push(entry.map_err(|error| Error::io("listing", &path, error))?.path());
            }
        }
    }
    Ok(total)
}
