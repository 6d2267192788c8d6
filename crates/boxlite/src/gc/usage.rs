//! How much space everything takes: the figures of `system df`. Allocated bytes throughout.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::GcOptions;
use super::catalog::Catalog;
use super::census::Census;
use super::pass::Pass;
use super::report::{Fate, Unreadable};
use crate::durable::{self, FileId};
use crate::error::{Error, Result};
use crate::home::Home;
use crate::settings::Settings;

/// Number and size of a kind of file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// How many there are.
    pub count: u64,
    /// Bytes allocated to them.
    pub allocated: u64,
    /// Bytes of these that `gc` would free now.
    pub reclaimable: u64,
}

/// The space that a home takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Disk images.
    pub disk_images: Share,
    /// Copy-on-write overlays of boxes.
    pub overlays: Share,
    /// Snapshot and clone bases.
    pub bases: Share,
    /// Layers, configs, manifests.
    pub blobs: Share,
    /// Everything else in box directories: logs, sockets, locks.
    pub logs: Share,
    /// Unpacked kernels and initramfs files, and what was learnt of the host.
    pub boot_files: Share,
    /// Unfinished files and trash.
    pub unfinished: Share,
    /// Bytes of disk images and bases that more than one box stands on.
    pub shared: u64,
    /// What `gc` would free now.
    pub reclaimable: u64,
    /// Each box, by id.
    pub boxes: Vec<BoxUsage>,
    /// Each disk image, by digest.
    pub images: Vec<ImageUsage>,
    /// What could not be read; the figures are then lower bounds.
    pub unreadable: Vec<Unreadable>,
}

/// The space that a box takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxUsage {
    /// Its id.
    pub id: String,
    /// Its overlays.
    pub overlays: u64,
    /// The rest of its directory.
    pub logs: u64,
    /// Disk images and bases below its overlays, which it may share.
    pub below: u64,
}

/// The space that a disk image takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUsage {
    /// Digest that names it.
    pub digest: String,
    /// Bytes allocated to it.
    pub allocated: u64,
    /// How many boxes need it.
    pub boxes: u64,
    /// Whether `gc` would remove it now.
    pub reclaimable: bool,
    /// When it was last used, seconds since 1970.
    pub last_used: i64,
}

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
        let total = if entry.directory { usage.measure(&root) } else { 0 };
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
    usage.blobs = usage.directory(&home.blobs(), plan.blobs.iter());
    usage.boot_files = usage.directory(&home.vm(), plan.boot_files.iter());
    usage.unfinished = usage.directory(&home.tmp(), plan.unfinished.iter());
    Ok(usage)
}

impl Usage {
    fn measure(&mut self, path: &Path) -> u64 {
        allocated_tree(path).unwrap_or_else(|error| {
            self.unreadable.push(Unreadable { path: path.to_owned(), reason: error.to_string() });
            0
        })
    }

    /// The share of everything in a directory, without the directory itself.
    fn directory<'a>(&mut self, path: &Path, items: impl Iterator<Item = &'a super::report::Item>) -> Share {
        let removed = items.filter(|item| matches!(item.fate, Fate::Removed { .. }));
        let mut share = Share { reclaimable: removed.map(|item| item.allocated).sum(), ..Share::default() };
        match std::fs::read_dir(path) {
            Ok(entries) => {
                for entry in entries.flatten() {
                    share.count += 1;
                    share.allocated += self.measure(&entry.path());
                }
            }
            Err(error) => {
                self.unreadable.push(Unreadable { path: path.to_owned(), reason: error.to_string() });
            }
        }
        share
    }
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
