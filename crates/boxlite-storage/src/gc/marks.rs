//! Mark: which files and box directories are reached, and by whom. Pure.
//!
//! Records, and overlays of boxes that have one, need what they reach in any case. A base, a delta, or the directory of
//! a box without a record, needs what it stands on only if it stays itself. The plan decides that from the top of the
//! chains down, and tells by [`Marks::keep`], so that one walk settles whole chains.

use std::collections::HashMap;

use boxlite_home::durable::FileId;
use boxlite_types::gc::HolderKind;

use super::census::{Census, Doubt, Holders, LostBox, Overlay, StoredFile};

/// A census whose items know who needs them.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) census: Census,
    /// The files that the boxes that stay may need although nothing readable names them.
    doubt: Doubt,
    /// Whether a box that is not meant to be removed may need another box's disk.
    boxes_in_doubt: bool,
    targets: HashMap<FileId, MarkTarget>,
}

/// An item that a chain can run through; the place in the census.
#[derive(Debug, Clone, Copy)]
enum MarkTarget {
    File(usize),
    Box(usize),
}

/// Something that stands on other files and may be removed itself; the place in the census.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dependent {
    File(usize),
    Box(usize),
}

impl Marks {
    /// Follows every root that stays under any plan.
    pub(super) fn of(census: Census) -> Self {
        let mut marks = Self { targets: targets(&census), doubt: Doubt::None, boxes_in_doubt: false, census };
        let Census { pins, snapshots, files, .. } = &mut marks.census;
        for (owner, file) in pins {
            files[*file as usize].holders.add(*owner, HolderKind::Record);
        }
        for (owner, file) in snapshots {
            files[*file as usize].holders.add(*owner, HolderKind::Snapshot);
        }
        for at in 0..marks.census.overlays.len() {
            let overlay = marks.census.overlays[at];
            if !marks.census.boxes[overlay.owner as usize].is_lost() {
                marks.follow_overlay(&overlay);
            }
        }
        marks
    }

    /// Bases, deltas and the directories of boxes without a record: boxes that are in doubt first, then those on which
    /// nothing else can stand.
    pub(super) fn dependents(&self) -> Vec<Dependent> {
        let depth = |link| {
            let mut depth = 0_usize;
            self.census.chains.visit_below(link, |_| depth += 1);
            depth
        };
        let files = self.census.files.iter().enumerate();
        let files = files.filter(|(_, file)| file.kind.stands_on_others());
        let file = |(index, file): (usize, &StoredFile)| {
            ((Doubt::None, depth(file.backing)), Dependent::File(index))
        };
        let mut found: Vec<_> = files.map(file).collect();
        for (index, entry) in self.census.boxes.iter().enumerate() {
            if entry.is_lost() {
                let deepest =
                    self.census.overlays_of(index).iter().map(|overlay| depth(overlay.backing)).max();
                let first = (self.census.doubt(index), deepest.unwrap_or(0));
                found.push((first, Dependent::Box(index)));
            }
        }
        found.sort_by_key(|(first, _)| std::cmp::Reverse(*first));
        found.into_iter().map(|(_, dependent)| dependent).collect()
    }

    /// Returns who needs the dependent, as far as it is known.
    pub(super) fn holders(&self, dependent: Dependent) -> &Holders {
        match dependent {
            Dependent::File(index) => &self.census.files[index].holders,
            Dependent::Box(index) => &self.census.boxes[index].holders,
        }
    }

    /// Whether one of the boxes that stay might need the file, for all that is known.
    pub(super) fn is_file_in_doubt(&self, index: usize) -> bool {
        let can_be_made_again = self.census.files[index].kind.can_be_made_again();
        self.doubt == Doubt::Everything || (self.doubt == Doubt::Bases && !can_be_made_again)
    }

    /// Whether one of the boxes that stay might stand on a box's disk, for all that is known.
    pub(super) fn are_boxes_in_doubt(&self) -> bool {
        self.boxes_in_doubt
    }

    /// Whether the dependent must stay whatever else becomes of it, as far as it is known.
    pub(super) fn must_stay(&self, dependent: Dependent) -> bool {
        let in_doubt = match dependent {
            Dependent::File(index) => self.is_file_in_doubt(index),
            Dependent::Box(_) => self.boxes_in_doubt,
        };
        in_doubt || !self.holders(dependent).is_empty()
    }

    /// The dependent stays: it holds what it stands on.
    pub(super) fn keep(&mut self, dependent: Dependent) {
        match dependent {
            Dependent::File(index) => {
                let file = &self.census.files[index];
                let (link, kind) = (file.backing, file.kind.pins_as());
                self.follow(link, index as u32, kind);
            }
            Dependent::Box(index) => {
                for overlay in self.census.overlays_of(index).to_vec() {
                    self.follow_overlay(&overlay);
                }
                let doubt = self.census.doubt(index);
                self.doubt = self.doubt.max(doubt);
                self.boxes_in_doubt |= doubt != Doubt::None && !self.census.boxes[index].intended;
                let images = self.census.lost.get(&index).map_or(&[][..], LostBox::images);
                for image in images {
                    let holders = &mut self.census.files[*image as usize].holders;
                    holders.add(index as u32, HolderKind::Description);
                }
            }
        }
    }

    /// A use of a delta is a use of all that it stands on.
    pub(super) fn use_what_is_stood_on(&mut self) {
        let Census { chains, files, .. } = &mut self.census;
        for index in 0..files.len() {
            let (link, used) = (files[index].backing, files[index].used);
            if files[index].kind.pins_as() == HolderKind::Delta {
                chains.visit_below(link, |id| {
                    if let Some(MarkTarget::File(below)) = self.targets.get(&id) {
                        files[*below].used = files[*below].used.max(used);
                    }
                });
            }
        }
    }

    fn follow_overlay(&mut self, overlay: &Overlay) {
        self.follow(overlay.backing, overlay.owner, HolderKind::Chain);
    }

    fn follow(&mut self, link: crate::disk::qcow2::ChainLink, holder: u32, kind: HolderKind) {
        let Census { chains, files, boxes, .. } = &mut self.census;
        chains.visit_below(link, |id| match self.targets.get(&id) {
            Some(MarkTarget::File(index)) => files[*index].holders.add(holder, kind),
            Some(MarkTarget::Box(index)) if kind != HolderKind::Chain || *index != holder as usize => {
                boxes[*index].holders.add(holder, kind);
            }
            Some(MarkTarget::Box(_)) | None => {}
        });
    }
}

/// The files that can be needed. Overlays only of boxes without a record, since no others are ever removed.
fn targets(census: &Census) -> HashMap<FileId, MarkTarget> {
    let files = census.files.iter().enumerate().map(|(index, file)| (file.id, MarkTarget::File(index)));
    let overlays = census.overlays.iter().filter_map(|overlay| {
        let owner = overlay.owner as usize;
        census.boxes[owner].is_lost().then_some((overlay.id, MarkTarget::Box(owner)))
    });
    overlays.chain(files).collect()
}
