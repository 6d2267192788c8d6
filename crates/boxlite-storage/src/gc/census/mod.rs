//! The census: one look at everything in the home, without a lock and without a write.
//!
//! A directory, header or record that cannot be read becomes an entry of [`Census::unreadable`], never an empty list.

mod blobs;
mod boot_files;
mod boxes;
mod directory;
mod files;
mod holders;
mod lost;
mod staging;
mod volumes;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::path::Path;

use boxlite_home::Home;
use boxlite_types::gc::Unreadable;

pub(super) use blobs::{BlobFile, CatalogImage};
pub(super) use boot_files::{BootFile, times as boot_file_times};
pub(super) use boxes::{BoxEntry, Overlay, box_modified};
pub(super) use files::{StoredFile, images_named};

pub(super) use holders::Holders;
pub(super) use lost::{Doubt, LostBox};
pub(super) use staging::StagedEntry;
pub(super) use volumes::VolumeEntry;

use files::{Bases, Deltas, DiskImages};

use crate::catalog::Catalog;
use crate::disk::qcow2::{BackingDirectories, ChainLink, Chains};

/// Everything that decides what is needed, and everything that can be removed.
#[derive(Debug)]
pub(super) struct Census {
    /// Disk images, then deltas, then bases, each by name.
    pub(super) files: Vec<StoredFile>,
    /// Those with a directory come first, by id.
    pub(super) boxes: Vec<BoxEntry>,
    pub(super) overlays: Vec<Overlay>,
    /// The boxes without a record, by their place in `boxes`.
    pub(super) lost: BTreeMap<usize, LostBox>,
    /// Which box's record names which disk image or delta, as indices.
    pub(super) pins: Vec<(u32, u32)>,
    /// Boxes and the bases that their snapshots are kept in.
    pub(super) snapshots: Vec<(u32, u32)>,
    pub(super) chains: Chains,
    pub(super) caches: Caches,
    /// Paths that could not be read and might pin anything; what belongs to a box without a record is with that box.
    pub(super) unreadable: Vec<Unreadable>,
    /// Files that are missing or unreadable and pin nothing.
    pub(super) harmless: Vec<Unreadable>,
}

/// Items that are judged without chains.
#[derive(Debug, Default)]
pub(super) struct Caches {
    pub(super) staged: Vec<StagedEntry>,
    pub(super) blobs: Vec<BlobFile>,
    /// Catalogue entries, least recently used first.
    pub(super) images: Vec<CatalogImage>,
    pub(super) boot_files: Vec<BootFile>,
    /// Everything in `volumes/`, by name.
    pub(super) volumes: Vec<VolumeEntry>,
    pub(super) unreadable: Vec<Unreadable>,
}

impl Census {
    /// Looks at all of `home` and its records.
    pub(super) fn take(home: &Home, catalog: &dyn Catalog) -> Self {
        let caches = Caches::take(home, catalog);
        Self { caches, ..Self::of_chains(home, catalog) }
    }

    /// Looks only at what backing chains and records reach.
    pub(super) fn of_chains(home: &Home, catalog: &dyn Catalog) -> Self {
        let mut census = Self {
            files: Vec::new(),
            boxes: Vec::new(),
            overlays: Vec::new(),
            lost: BTreeMap::new(),
            pins: Vec::new(),
            snapshots: Vec::new(),
            chains: Chains::new(Some(BackingDirectories::of_home(home))),
            caches: Caches::default(),
            unreadable: Vec::new(),
            harmless: Vec::new(),
        };
        census.list_files(home, &DiskImages);
        // A delta that is published later was built under a lease on what it stands on.
        census.list_files(home, &Deltas);
        let boxes = census.list_boxes(&home.boxes());
        // The records come after the directories: a box that is being created has its directory first.
        census.read_records(home, catalog);
        census.read_descriptions(home);
        if let Some(boxes) = boxes {
            census.read_overlays(&home.boxes(), &boxes);
        }
        // Bases come after overlays: a snapshot turns an overlay into a base, never the other way round.
        census.list_files(home, &Bases);
        census.read_snapshots(home, catalog);
        // Intents come last: everything that an intent names existed when the intent was written.
        census.read_intents(home, catalog);
        census
    }

    /// Whether something could not be read that might pin anything. A blob directory or a page of the database that
    /// cannot be read counts too: what would be removed could perhaps not be made again.
    pub(super) fn is_blind(&self) -> bool {
        !self.unreadable.is_empty() || !self.caches.unreadable.is_empty()
    }

    /// The overlays of the box at this place.
    pub(super) fn overlays_of(&self, owner: usize) -> &[Overlay] {
        // Read in the order of their owners.
        let first = self.overlays.partition_point(|overlay| (overlay.owner as usize) < owner);
        let count = self.overlays[first..].partition_point(|overlay| overlay.owner as usize == owner);
        &self.overlays[first..first + count]
    }

    /// The doubt that the box at this place causes while it stays.
    pub(super) fn doubt(&self, index: usize) -> Doubt {
        self.lost.get(&index).map_or(Doubt::None, |lost| lost.doubt(!self.overlays_of(index).is_empty()))
    }

    /// Whether there is a box that no record and no intent explains.
    pub(super) fn has_unexplained(&self) -> bool {
        self.lost.keys().any(|index| !self.boxes[*index].intended)
    }

    fn trouble(&mut self, path: &Path, reason: impl Display) {
        self.unreadable.push(unreadable(path, reason));
    }

    /// Notes something of the box at this place that could not be read.
    fn trouble_of(&mut self, owner: usize, path: &Path, reason: impl Display) {
        match self.lost.get_mut(&owner) {
            Some(lost) => lost.unread.push(unreadable(path, lost::advised(&self.boxes[owner].id, reason))),
            None => self.trouble(path, reason),
        }
    }

    /// Notes how the chain of a base, or of an overlay of the box `owner`, at `holder` ends, if it is not whole.
    fn note_end(&mut self, end: ChainLink, holder: &Path, owner: Option<usize>) {
        let Some(index) = end.problem() else { return };
        let unknown = self.chains.unknown(index);
        let shown = holder.display().to_string();
        let reason = if unknown.why.contains(&shown) || unknown.path == holder {
            unknown.why.clone()
        } else {
            format!("{} ({shown} needs it)", unknown.why)
        };
        let path = unknown.path.clone();
        match (end, owner) {
            (ChainLink::Missing(_), _) => self.harmless.push(unreadable(&path, reason)),
            (_, Some(owner)) => self.trouble_of(owner, &path, reason),
            (_, None) => self.trouble(&path, reason),
        }
    }

    fn open_directory(&mut self, path: &Path) -> Option<OwnedFd> {
        match directory::open_directory(path) {
            Ok(handle) => Some(handle),
            Err(errno) => {
                self.trouble(path, format!("it cannot be opened: {errno}"));
                None
            }
        }
    }
}

impl Caches {
    fn take(home: &Home, catalog: &dyn Catalog) -> Self {
        let mut caches = Self::default();
        caches.list_staged(&home.tmp());
        caches.list_blobs(home, catalog);
        caches.list_boot_files(&home.vm());
        caches.list_volumes(home, catalog);
        caches
    }

    fn trouble(&mut self, path: &Path, reason: impl Display) {
        self.unreadable.push(unreadable(path, reason));
    }
}

fn unreadable(path: &Path, reason: impl Display) -> Unreadable {
    Unreadable { path: path.to_owned(), reason: format!("{reason:#}") }
}
