//! The tree of a home's bytes: the rows of `system df`, each file with the reason that the plan gives.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use boxlite_home::Home;
use boxlite_home::durable::FileId;
use boxlite_home::settings::Settings;
use boxlite_types::gc::{DiskTree, Fate, NodeKind, TreeNode, Unreadable};
use boxlite_types::{BoxState, GcOptions, Result};

use super::category::Category;
use super::census::StoredFile;
use super::measure;
use super::plan::{GcPlan, Planned, files_of};
use super::rules::{GcScope, Rules};
use crate::catalog::Catalog;
use crate::reference::Reference;

/// Names and states of boxes, by id.
pub type BoxNames = BTreeMap<String, (String, BoxState)>;

/// Measures `home`, whose boxes are called so; changes nothing.
pub fn tree(
    home: &Home,
    catalog: &Arc<dyn Catalog>,
    settings: &Settings,
    boxes: &BoxNames,
) -> Result<DiskTree> {
    let rules = Rules::new(settings, &GcOptions::default(), &[]);
    let plan = GcPlan::make(&GcScope { home, catalog: &**catalog, rules });
    let growing = Growing::of(&plan, home, boxes, rules.disk_size);
    Ok(growing.finish())
}

/// A tree that is being put together.
struct Growing<'a> {
    plan: &'a GcPlan,
    home: &'a Home,
    boxes: &'a BoxNames,
    /// The plan's entries by path.
    planned: HashMap<&'a Path, &'a Planned>,
    /// The images that need a file, by its place in the census.
    images: HashMap<usize, Vec<String>>,
    unreadable: Vec<Unreadable>,
}

impl<'a> Growing<'a> {
    fn of(plan: &'a GcPlan, home: &'a Home, boxes: &'a BoxNames, disk_size: u64) -> Self {
        let planned = plan.candidates.iter().chain(&plan.settled);
        let planned = planned.map(|planned| (planned.item.path.as_path(), planned)).collect();
        let mut images: HashMap<usize, Vec<String>> = HashMap::new();
        for image in &plan.census.caches.images {
            let name = image_name(image.reference.as_deref(), &image.digest);
            for file in files_of(&plan.census, &image.disk_digest(disk_size)) {
                images.entry(file).or_default().push(name.clone());
            }
        }
        Self { plan, home, boxes, planned, images, unreadable: plan.unreadable.clone() }
    }

    fn finish(mut self) -> DiskTree {
        let (overlays, logs, unexplained) = self.boxes();
        let rows = [
            self.shared_and_unique(Category::DiskImage, NodeKind::DiskImage, "disk images"),
            self.shared_and_unique(Category::Delta, NodeKind::Delta, "deltas"),
            TreeNode::group(NodeKind::Overlay, "overlays", overlays)
                .because("what boxes have written, each above its image"),
            TreeNode::group(NodeKind::Base, "bases", self.bases())
                .because("what snapshots and clones stand on"),
            self.directory(&self.home.volumes(), NodeKind::Volume, "volumes", Some("removed only by name")),
            self.directory(
                &self.home.blobs(),
                NodeKind::Blob,
                "blobs",
                Some("layers, configs and manifests of images"),
            ),
            TreeNode::group(NodeKind::Log, "logs", logs).because("logs, sockets and locks of boxes"),
            self.directory(
                &self.home.vm(),
                NodeKind::BootFile,
                "boot files",
                Some("unpacked kernels and templates"),
            ),
            self.directory(&self.home.tmp(), NodeKind::Unfinished, "unfinished", None),
            TreeNode::group(NodeKind::Unexplained, "unexplained", unexplained)
                .because("boxes without a record: `gc --adopt` or `gc --purge` decides"),
        ];
        let mut rows = Vec::from(rows);
        rows.extend(self.files_of_the_home());
        let counted = rows.iter().map(|row| row.allocated).sum::<u64>();
        let other = self.measure(self.home.root()).saturating_sub(counted);
        rows.push(
            TreeNode::leaf(NodeKind::Other, "other", other)
                .because("directories, settings, and what boxlite did not make"),
        );
        rows.retain(|row| row.allocated > 0);
        let root = TreeNode::group(NodeKind::Home, self.home.root().display().to_string(), rows);
        let reclaimable = self.plan.reclaimable().bytes;
        DiskTree { root, reclaimable, unreadable: self.unreadable }
    }

    /// Returns a node with the plan's verdict on what lies at `path`.
    fn judged(&self, node: TreeNode, path: &Path) -> TreeNode {
        let Some(planned) = self.planned.get(path) else { return node };
        let name = |id: &str| self.boxes.get(id).map(|(name, _)| name.clone());
        let why = planned.item.fate.why(&name);
        match &planned.item.fate {
            Fate::Removed { .. } => {
                let reclaimable = planned.item.allocated.min(node.allocated);
                TreeNode { reclaimable, ..node }.because(format!("gc would remove it: {why}"))
            }
            Fate::Kept { .. } => node.because(format!("kept for {why}")),
            Fate::Skipped { .. } | Fate::Failed { .. } => node.because(format!("left alone: {why}")),
        }
    }

    /// Disk images or deltas: those that several images share, those of one, and those of none.
    fn shared_and_unique(&self, category: Category, kind: NodeKind, name: &str) -> TreeNode {
        let (mut shared, mut unique, mut unnamed) = (Vec::new(), Vec::new(), Vec::new());
        for (index, file) in self.plan.census.files.iter().enumerate() {
            if file.kind.category() != category {
                continue;
            }
            let images = self.images.get(&index).map_or(&[][..], Vec::as_slice);
            let (group, label) = match images {
                [] => (&mut unnamed, short(&file.name)),
                [one] => (&mut unique, one.clone()),
                [one, others @ ..] => (&mut shared, format!("{one} and {} more", others.len())),
            };
            group.push(self.stored(file, kind, label));
        }
        let groups = [
            (shared, "shared", "several images stand on these"),
            (unique, "unique", "one image alone stands on each of these"),
            (unnamed, "of no image", "no image of the catalogue stands on these"),
        ];
        let groups = groups.into_iter().filter(|(files, ..)| !files.is_empty());
        let groups = groups.map(|(files, name, why)| TreeNode::group(kind, name, files).because(why));
        TreeNode::group(kind, name, groups.collect())
    }

    fn stored(&self, file: &StoredFile, kind: NodeKind, label: String) -> TreeNode {
        let node = TreeNode::leaf(kind, label, file.allocated).called(&*file.name);
        self.judged(node, &file.path(self.home))
    }

    fn bases(&self) -> Vec<TreeNode> {
        // A base may be another name of an overlay, which counts with its box.
        let mut counted: HashSet<FileId> =
            self.plan.census.overlays.iter().map(|overlay| overlay.id).collect();
        let files = self.plan.census.files.iter().filter(|file| file.kind.category() == Category::Base);
        files
            .map(|file| {
                let node = self.stored(file, NodeKind::Base, short(&file.name));
                if counted.insert(file.id) { node } else { TreeNode { allocated: 0, reclaimable: 0, ..node } }
            })
            .collect()
    }

    /// Overlays by box, logs by box, and the boxes that nothing explains.
    fn boxes(&mut self) -> (Vec<TreeNode>, Vec<TreeNode>, Vec<TreeNode>) {
        let (mut overlays, mut logs, mut unexplained) = (Vec::new(), Vec::new(), Vec::new());
        let (plan, home) = (self.plan, self.home);
        let census = &plan.census;
        for (index, entry) in census.boxes.iter().enumerate() {
            let own = census.overlays_of(index).iter().map(|overlay| overlay.allocated).sum::<u64>();
            let path = home.of_box(&entry.id).root().to_owned();
            let total = if entry.directory { self.measure(&path) } else { 0 };
            let (name, why) = match self.boxes.get(&*entry.id) {
                Some((name, state)) => (name.clone(), format!("box {name} is {state}")),
                None => (short(&entry.id), "its box has no record".to_owned()),
            };
            let is_removed = self.planned.get(&*path).is_some_and(|planned| planned.is_candidate());
            let node = |kind, bytes| {
                let reclaimable = if is_removed { bytes } else { 0 };
                let node = TreeNode::leaf(kind, &*name, bytes).called(&*entry.id).because(&*why);
                TreeNode { reclaimable, ..node }
            };
            if entry.is_lost() && !entry.intended {
                unexplained.push(self.judged(node(NodeKind::Unexplained, total), &path));
                continue;
            }
            if own > 0 {
                overlays.push(node(NodeKind::Overlay, own));
            }
            logs.push(node(NodeKind::Log, total.saturating_sub(own)));
        }
        (overlays, logs, unexplained)
    }

    /// Everything in a directory, without the directory itself.
    fn directory(&mut self, path: &Path, kind: NodeKind, name: &str, why: Option<&str>) -> TreeNode {
        let users = self.users_of_blobs(kind);
        let mut children = Vec::new();
        // There is no directory of volumes before the first, and one that leads out of the home is no part of it.
        let is_absent =
            kind == NodeKind::Volume && !path.symlink_metadata().is_ok_and(|found| found.is_dir());
        match std::fs::read_dir(path) {
            _ if is_absent => {}
            Ok(entries) => {
                for entry in entries.flatten() {
                    let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                    let bytes = self.measure(&path);
                    let mut node = TreeNode::leaf(kind, short(&name), bytes);
                    if short(&name) != name {
                        node = node.called(&*name);
                    }
                    if let Some(why) = users.get(&*name) {
                        node = node.because(&**why);
                    }
                    children.push(self.judged(node, &path));
                }
            }
            Err(error) => self.trouble(path, &error),
        }
        let group = TreeNode::group(kind, name, children);
        match why {
            Some(why) => group.because(why),
            None => group,
        }
    }

    /// Which images refer to a blob.
    fn users_of_blobs(&self, kind: NodeKind) -> HashMap<&'a str, String> {
        let caches = &self.plan.census.caches;
        let name = |place: &usize| {
            let image = caches.images.get(*place)?;
            Some(image_name(image.reference.as_deref(), &image.digest))
        };
        let blobs = caches.blobs.iter().filter(|_| kind == NodeKind::Blob);
        blobs
            .filter_map(|blob| {
                let first = blob.users.iter().find_map(&name)?;
                let more = blob.users.len() - 1;
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                Some((&*blob.name, format!("image {first}{more} refers to it")))
            })
            .collect()
    }

    /// The database and the reserves, which lie in the home itself.
    fn files_of_the_home(&mut self) -> [TreeNode; 2] {
        let database = self.home.database();
        let database = database.file_name().unwrap_or_default().as_encoded_bytes();
        let (mut databases, mut reserves) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(self.home.root()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let (kind, list) = if name.as_encoded_bytes().starts_with(database) {
                (NodeKind::Database, &mut databases)
            } else if name.as_encoded_bytes().starts_with(b"reserve-") {
                (NodeKind::Reserve, &mut reserves)
            } else {
                continue;
            };
            list.push((kind, name.to_string_lossy().into_owned(), entry.path()));
        }
        [
            (databases, NodeKind::Database, "database", "records of boxes and images, and their journal"),
            (reserves, NodeKind::Reserve, "reserves", "set aside for what frees space on a full disk"),
        ]
        .map(|(files, kind, name, why)| {
            let files =
                files.into_iter().map(|(kind, name, path)| TreeNode::leaf(kind, name, self.measure(&path)));
            TreeNode::group(kind, name, files.collect()).because(why)
        })
    }

    fn measure(&mut self, path: &Path) -> u64 {
        measure::allocated_tree(path).unwrap_or_else(|error| {
            self.trouble(path, &error);
            0
        })
    }

    fn trouble(&mut self, path: &Path, reason: &dyn std::fmt::Display) {
        self.unreadable.push(Unreadable { path: path.to_owned(), reason: format!("{reason:#}") });
    }
}

/// Returns the name that people use for an image: `alpine:latest`, or the beginning of its digest.
fn image_name(reference: Option<&str>, digest: &str) -> String {
    match reference {
        Some(reference) => reference
            .parse::<Reference>()
            .map_or_else(|_| reference.to_owned(), |reference| reference.familiar()),
        None => short(digest.strip_prefix("sha256:").unwrap_or(digest)),
    }
}

/// The beginning of a digest or id, as the other commands show it; other names whole.
fn short(name: &str) -> String {
    let stem = name.strip_suffix(".ext4").or_else(|| name.strip_suffix(".qcow2")).unwrap_or(name);
    let is_hex = matches!(stem.len(), 32 | 64) && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { stem[..12].to_owned() } else { name.to_owned() }
}
