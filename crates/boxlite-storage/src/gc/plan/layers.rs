//! Layers of images that have a disk image, and disk images of images whose layers are gone: one of the two stays.
//!
//! A layer is wanted for nothing but building what its image's disk image is made of. Where that is built and the image
//! came from a registry, the setting `keep_blobs` says whether the layer stays; what no registry has always stays.

use std::collections::HashSet;

use boxlite_home::settings::KeepBlobs;
use boxlite_types::gc::{Item, Skip};

use super::judge::{Judgement, skipped};
use super::{GcPlan, Planned};
use crate::gc::category::Category;
use crate::gc::census::{BlobFile, Census, images_named};
use crate::gc::rules::{GcScope, Rules, seconds};

/// How the images of the catalogue are stored.
#[derive(Debug, Default)]
pub(in crate::gc) struct StoredImages {
    /// Whether each image's disk image is there with all that it stands on, by its place in the catalogue.
    built: Vec<bool>,
    /// Files, by their place in the census, that could not be made again without a registry that was not asked.
    only_copies: HashSet<usize>,
}

impl StoredImages {
    pub(in crate::gc) fn of(census: &Census, rules: &Rules<'_>) -> Self {
        let blobs: HashSet<&str> = census.caches.blobs.iter().map(|blob| &*blob.name).collect();
        let mut stored = Self::default();
        for image in &census.caches.images {
            let files = files_of(census, &image.disk_digest(rules.disk_size));
            stored.built.push(!files.is_empty());
            let goes = rules.keep_blobs == KeepBlobs::Never && image.registry.is_some();
            // An image that `gc --all` takes out of the catalogue keeps no layers.
            let is_idle = !rules.is_young(image.last_used) && !rules.is_recent(image.last_used);
            if rules.all && image.boxes == 0 && is_idle && !rules.keeps_here(image.only_here) {
                continue;
            }
            let is_whole = !goes && image.layers.iter().all(|layer| blobs.contains(&*layer.blob));
            if !is_whole && !rules.answered.contains(&image.digest) {
                stored.only_copies.extend(files);
            }
        }
        stored
    }

    /// Whether removing the file, by its place in the census, might lose the last of an image.
    pub(super) fn is_only_copy(&self, file: usize) -> bool {
        self.only_copies.contains(&file)
    }
}

/// The files of a disk image, by their places in the census; none when one of them is missing.
pub(in crate::gc) fn files_of(census: &Census, digest: &str) -> Vec<usize> {
    for top in images_named(&census.files, digest) {
        let (ids, end) = census.chains.below(census.files[top as usize].backing);
        if end.problem().is_some() {
            continue;
        }
        let place = |id| census.files.iter().position(|file| file.id == id);
        return std::iter::once(top as usize).chain(ids.into_iter().filter_map(place)).collect();
    }
    Vec::new()
}

impl GcPlan {
    /// Names and manifest digests of the images whose registries must have them before more may go: those that have both
    /// layers and a disk image, or a disk image alone; least recently used first.
    pub(in crate::gc) fn questions(&self, disk_size: u64) -> Vec<(String, String)> {
        let census = &self.census;
        let is_built = |digest: &str| !files_of(census, digest).is_empty();
        let images = census.caches.images.iter().filter(|image| is_built(&image.disk_digest(disk_size)));
        images.filter_map(|image| Some((image.registry.clone()?, image.digest.clone()))).collect()
    }

    /// Adds the layers that may go before disk images do.
    pub(super) fn add_layers(&mut self, stored: &StoredImages, scope: &GcScope<'_>) {
        let rules = &scope.rules;
        let is_asked_for = match rules.keep_blobs {
            KeepBlobs::Always => false,
            KeepBlobs::Never => true,
            KeepBlobs::Auto => rules.pressed,
        };
        if !is_asked_for || self.is_blind() {
            return;
        }
        let wanted = self.census.has_unexplained();
        let caches = std::mem::take(&mut self.census.caches);
        // Those that go with the last image that has them are planned with it.
        let planned_already: HashSet<String> = self
            .candidates
            .iter()
            .flat_map(|entry| &entry.blobs)
            .map(|blob| blob.item.name.clone())
            .collect();
        let is_open = |blob: &&BlobFile| !blob.users.is_empty() && !planned_already.contains(&blob.name);
        for blob in caches.blobs.iter().filter(is_open) {
            let used = blob.users.iter().filter_map(|user| caches.images.get(*user));
            let used = used.map(|image| image.last_used).max().unwrap_or(blob.modified);
            let is_expendable = blob.users.iter().all(|user| {
                caches.images.get(*user).is_some_and(|image| {
                    let is_layer = image.layers.iter().any(|layer| layer.blob == blob.name);
                    let has_registry = image.registry.is_some()
                        && (rules.keep_blobs == KeepBlobs::Never || rules.answered.contains(&image.digest));
                    is_layer && has_registry && stored.built.get(*user) == Some(&true)
                })
            });
            if is_expendable {
                let judgement = judge_layer(blob, wanted, scope);
                self.add(planned(blob, used, scope), judgement);
            }
        }
        self.census.caches = caches;
    }
}

fn judge_layer(blob: &BlobFile, wanted: bool, scope: &GcScope<'_>) -> Judgement {
    if scope.rules.is_young(blob.modified) {
        return Judgement::skip(Skip::Grace);
    }
    if wanted {
        return Judgement::skip(Skip::MayBeNeeded);
    }
    let reason = match scope.rules.keep_blobs {
        KeepBlobs::Never => "its disk image is built (keep_blobs = never)",
        _ => "space is short, its disk image is built, and its registry still has it",
    };
    Judgement::unless_locked(&scope.home.blobs().join(&blob.name), reason)
}

fn planned(blob: &BlobFile, used: i64, scope: &GcScope<'_>) -> Planned {
    let item = Item {
        name: blob.name.clone(),
        path: scope.home.blobs().join(&blob.name),
        allocated: blob.allocated,
        modified: seconds(blob.modified),
        last_used: seconds(used),
        image: None,
        fate: skipped(Skip::InUse),
    };
    Planned { category: Category::Layer, item, id: None, used, digest: None, blobs: Vec::new() }
}
