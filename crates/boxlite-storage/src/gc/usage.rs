//! How much space everything takes: the figures of `system df`. Allocated bytes throughout.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxlite_home::Home;
use boxlite_home::durable::FileId;
use boxlite_home::settings::Settings;
use boxlite_types::gc::{BoxUsage, ImageShare, ImageUsage, KindUsage, Unreadable};
use boxlite_types::{GcOptions, Result, Usage};

use super::category::Category;
use super::census::{Census, StoredFile};
use super::measure;
use super::plan::{GcPlan, Planned, files_of};
use super::rules::{GcScope, Rules, seconds};
use crate::catalog::Catalog;

/// Measures `home`, in which the boxes `running` run; changes nothing.
pub fn usage(
    home: &Home,
    catalog: &Arc<dyn Catalog>,
    settings: &Settings,
    running: &BTreeSet<String>,
) -> Result<Usage> {
    let rules = Rules::new(settings, &GcOptions::default(), &[]);
    let plan = GcPlan::make(&GcScope { home, catalog: &**catalog, rules });
    let mut usage = Measuring::of(&plan, home, running).finish();
    usage.image_shares = image_shares(&plan.census, &rules);
    Ok(usage)
}

/// Figures that are being added up.
struct Measuring<'a> {
    plan: &'a GcPlan,
    home: &'a Home,
    running: &'a BTreeSet<String>,
    usage: Usage,
    /// Paths of what the plan removes.
    removed: HashSet<&'a Path>,
    /// Which boxes need a file.
    users: HashMap<FileId, HashSet<u32>>,
    /// Files that count in a row: a base may be another name of an overlay.
    counted: HashSet<FileId>,
}

impl<'a> Measuring<'a> {
    fn of(plan: &'a GcPlan, home: &'a Home, running: &'a BTreeSet<String>) -> Self {
        let usage = Usage {
            unreadable: plan.unreadable.clone(),
            reclaimable: plan.reclaimable().bytes,
            ..Usage::default()
        };
        let removed = plan.candidates.iter().map(|planned| planned.item.path.as_path()).collect();
        let counted = plan.census.overlays.iter().map(|overlay| overlay.id).collect();
        Self { plan, home, running, usage, removed, users: users(&plan.census), counted }
    }

    fn finish(mut self) -> Usage {
        let census = &self.plan.census;
        let mut below = vec![0_u64; census.boxes.len()];
        for file in &census.files {
            for owner in self.users.get(&file.id).into_iter().flatten() {
                below[*owner as usize] += file.allocated;
            }
            self.add_file(file);
        }
        for (index, below) in below.into_iter().enumerate() {
            self.add_box(index, below);
        }
        self.usage.blobs = self.directory(&self.home.blobs(), Category::Blob);
        self.usage.boot_files = self.directory(&self.home.vm(), Category::BootFile);
        self.usage.unfinished = self.directory(&self.home.tmp(), Category::Unfinished);
        // There is no such directory before the first volume, and one that leads out of the home is no part of it.
        if self.home.volumes().symlink_metadata().is_ok_and(|found| found.is_dir()) {
            self.usage.volumes = self.directory(&self.home.volumes(), Category::Volume);
        }
        self.add_files_of_the_home();
        self.usage.other = self.measure(self.home.root()).saturating_sub(self.rows());
        self.usage
    }

    fn runs(&self, index: u32) -> bool {
        self.running.contains(&*self.plan.census.boxes[index as usize].id)
    }

    /// Bytes of all rows but the last.
    fn rows(&self) -> u64 {
        let Usage { disk_images, deltas, overlays, bases, blobs, logs, boot_files, unfinished, .. } =
            &self.usage;
        let Usage { unexplained, database, reserves, volumes, .. } = &self.usage;
        let rows = [disk_images, deltas, overlays, bases, blobs, logs, boot_files, unfinished];
        rows.into_iter().chain([unexplained, database, reserves, volumes]).map(|row| row.allocated).sum()
    }

    /// The database and the reserves, which lie in the home itself.
    fn add_files_of_the_home(&mut self) {
        let database = self.home.database();
        let database = database.file_name().unwrap_or_default().as_encoded_bytes();
        for entry in std::fs::read_dir(self.home.root()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_database = name.as_encoded_bytes().starts_with(database);
            if !is_database && !name.as_encoded_bytes().starts_with(b"reserve-") {
                continue;
            }
            let allocated = self.measure(&entry.path());
            let row = if is_database { &mut self.usage.database } else { &mut self.usage.reserves };
            row.count += 1;
            row.allocated += allocated;
        }
    }

    fn add_file(&mut self, file: &StoredFile) {
        let boxes = self.users.get(&file.id).map_or(0, HashSet::len);
        let reclaimable = self.removed.contains(file.path(self.home).as_path());
        if boxes > 0 && self.users[&file.id].iter().all(|index| !self.runs(*index)) {
            self.usage.stopped.pinned += file.allocated;
        }
        if boxes > 1 {
            self.usage.shared += file.allocated;
        }
        let category = file.kind.category();
        let share = match category {
            Category::DiskImage => &mut self.usage.disk_images,
            Category::Delta => &mut self.usage.deltas,
            _ => &mut self.usage.bases,
        };
        share.count += 1;
        share.allocated += if self.counted.insert(file.id) { file.allocated } else { 0 };
        share.reclaimable += if reclaimable { file.freed() } else { 0 };
        if category == Category::DiskImage {
            self.usage.images.push(ImageUsage {
                digest: file.name.trim_end_matches(".ext4").to_owned(),
                allocated: file.allocated,
                boxes: boxes as u64,
                reclaimable,
                last_used: seconds(file.used),
            });
        }
    }

    fn add_box(&mut self, index: usize, below: u64) {
        let (plan, home) = (self.plan, self.home);
        let entry = &plan.census.boxes[index];
        let overlays = plan.census.overlays_of(index);
        let own = overlays.iter().map(|overlay| overlay.allocated).sum::<u64>();
        let total = if entry.directory { self.measure(home.of_box(&entry.id).root()) } else { 0 };
        let logs = total.saturating_sub(own);
        self.usage.boxes.push(BoxUsage { id: entry.id.to_string(), overlays: own, logs, below });
        if entry.recorded && !self.runs(index as u32) {
            self.usage.stopped.boxes += 1;
            self.usage.stopped.own += total;
        }
        if entry.is_lost() && !entry.intended {
            self.usage.unexplained.count += 1;
            self.usage.unexplained.allocated += total;
            return;
        }
        self.usage.overlays.count += overlays.len() as u64;
        self.usage.overlays.allocated += own;
        self.usage.logs.count += 1;
        self.usage.logs.allocated += logs;
        if self.removed.contains(home.of_box(&entry.id).root()) {
            self.usage.overlays.reclaimable += own;
            self.usage.logs.reclaimable += logs;
        }
    }

    /// The share of everything in a directory, without the directory itself.
    fn directory(&mut self, path: &Path, category: Category) -> KindUsage {
        let is_here = |planned: &&Planned| {
            planned.category == category
                || (category == Category::Blob && planned.category == Category::Layer)
        };
        let planned = self.plan.candidates.iter().filter(is_here);
        let mut share = KindUsage {
            reclaimable: planned.map(|planned| planned.item.allocated).sum(),
            ..KindUsage::default()
        };
        match std::fs::read_dir(path) {
            Ok(entries) => {
                for entry in entries.flatten() {
                    share.count += 1;
                    share.allocated += self.measure(&entry.path());
                }
            }
            Err(error) => self.trouble(path.to_owned(), &error),
        }
        share
    }

    fn measure(&mut self, path: &Path) -> u64 {
        measure::allocated_tree(path).unwrap_or_else(|error| {
            self.trouble(path.to_owned(), &error);
            0
        })
    }

    fn trouble(&mut self, path: PathBuf, reason: &dyn std::fmt::Display) {
        self.usage.unreadable.push(Unreadable { path, reason: format!("{reason:#}") });
    }
}

/// Returns the bytes that each image of the catalogue shares with the others, by name.
fn image_shares(census: &Census, rules: &Rules<'_>) -> Vec<ImageShare> {
    let caches = &census.caches;
    let images = || caches.images.iter();
    let files: Vec<Vec<usize>> =
        images().map(|image| files_of(census, &image.disk_digest(rules.disk_size))).collect();
    let mut users: HashMap<usize, u64> = HashMap::new();
    for file in files.iter().flatten() {
        *users.entry(*file).or_default() += 1;
    }
    let blobs: HashSet<&str> = caches.blobs.iter().map(|blob| &*blob.name).collect();
    let mut shares: Vec<ImageShare> = Vec::new();
    for (image, files) in images().zip(&files) {
        let bytes = |is_counted: &dyn Fn(&usize) -> bool| {
            files
                .iter()
                .filter(|file| is_counted(file))
                .map(|file| census.files[*file].allocated)
                .sum::<u64>()
        };
        let (shared, unique) = (bytes(&|file| users[file] > 1), bytes(&|file| users[file] <= 1));
        shares.push(ImageShare {
            digest: image.digest.clone(),
            reference: image.reference.clone(),
            files: files.len() as u64,
            allocated: shared + unique,
            shared,
            unique,
            layers: image.layers.iter().filter(|layer| blobs.contains(&*layer.blob)).count() as u64,
            layers_in_all: image.layers.len() as u64,
            boxes: image.boxes,
        });
    }
    shares.sort_by(|one, other| (&one.reference, &one.digest).cmp(&(&other.reference, &other.digest)));
    shares
}

/// Which boxes need a file, by their records or chains.
fn users(census: &Census) -> HashMap<FileId, HashSet<u32>> {
    let mut users: HashMap<FileId, HashSet<u32>> = HashMap::new();
    for (owner, image) in &census.pins {
        users.entry(census.files[*image as usize].id).or_default().insert(*owner);
    }
    for overlay in &census.overlays {
        census.chains.visit_below(overlay.backing, |id| users.entry(id).or_default().extend([overlay.owner]));
    }
    users
}
