//! Mark: which disk images, bases and box directories are reached from the roots. Pure.

use std::collections::{HashMap, HashSet};

use boxlite_home::durable::FileId;
use boxlite_types::gc::HolderKind;

use super::census::Census;
use crate::disk::qcow2::Link;

/// What is treated as gone, because it is (about to be) removed: then it is no root.
#[derive(Debug, Default, Clone)]
pub(super) struct Released {
    /// Box directories, by id.
    pub(super) boxes: HashSet<Box<str>>,
    /// Bases, by file.
    pub(super) bases: HashSet<FileId>,
}

/// Who needs an item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holders {
    /// The first few: index of a box or base in the census.
    pub(super) first: Vec<(u32, HolderKind)>,
    pub(super) total: u64,
}

const SHOWN: usize = 8;

impl Holders {
    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    fn add(&mut self, holder: u32, kind: HolderKind) {
        self.total += 1;
        if self.first.len() < SHOWN {
            self.first.push((holder, kind));
        }
    }
}

/// What is needed, in the order of the census.
#[derive(Debug)]
pub(super) struct Marked {
    pub(super) images: Vec<Holders>,
    pub(super) bases: Vec<Holders>,
    /// Of each box: that another's chain runs through one of its overlays.
    pub(super) boxes: Vec<Holders>,
}

enum Target {
    Image(usize),
    Base(usize),
    Box(usize),
}

/// Follows every root that is not in `released`.
pub(super) fn mark(census: &Census, released: &Released) -> Marked {
    let mut marked = Marked {
        images: vec![Holders::default(); census.images.len()],
        bases: vec![Holders::default(); census.bases.len()],
        boxes: vec![Holders::default(); census.boxes.len()],
    };
    for (owner, image) in &census.pins {
        marked.images[*image as usize].add(*owner, HolderKind::Record);
    }
    let targets = targets(census);
    for overlay in &census.overlays {
        let owner = &census.boxes[overlay.owner as usize];
        if !released.boxes.contains(&owner.id) {
            marked.follow(census, &targets, overlay.backing, overlay.owner, HolderKind::Chain);
        }
    }
    for (index, base) in census.bases.iter().enumerate() {
        if !released.bases.contains(&base.id) {
            marked.follow(census, &targets, base.backing, index as u32, HolderKind::Base);
        }
    }
    marked
}

impl Marked {
    fn follow(
        &mut self,
        census: &Census,
        targets: &HashMap<FileId, Target>,
        link: Link,
        holder: u32,
        kind: HolderKind,
    ) {
        census.chains.visit_below(link, |id| match targets.get(&id) {
            Some(Target::Image(index)) => self.images[*index].add(holder, kind),
            Some(Target::Base(index)) => self.bases[*index].add(holder, kind),
            Some(Target::Box(index)) if kind != HolderKind::Chain || *index != holder as usize => {
                self.boxes[*index].add(holder, kind);
            }
            Some(Target::Box(_)) | None => {}
        });
    }
}

/// The files that can be needed. Overlays only of boxes without a record, since no others are ever removed.
fn targets(census: &Census) -> HashMap<FileId, Target> {
    let images = census.images.iter().enumerate().map(|(index, image)| (image.id, Target::Image(index)));
    let bases = census.bases.iter().enumerate().map(|(index, base)| (base.id, Target::Base(index)));
    let overlays = census.overlays.iter().filter_map(|overlay| {
        let owner = overlay.owner as usize;
        (!census.boxes[owner].recorded).then_some((overlay.id, Target::Box(owner)))
    });
    overlays.chain(images).chain(bases).collect()
}
