//! How much space everything takes: the figures of `system df`. Allocated bytes throughout.

use serde::{Deserialize, Serialize};

use super::Unreadable;

/// Number and size of a kind of file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindUsage {
    /// How many there are.
    pub count: u64,
    /// Bytes allocated to them.
    pub allocated: u64,
    /// Bytes of these that `gc` would free now.
    pub reclaimable: u64,
}

/// The space that a home takes; a file with several names counts in one row, once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Whole disk images.
    pub disk_images: KindUsage,
    /// Deltas over disk images.
    #[serde(default)]
    pub deltas: KindUsage,
    /// Copy-on-write overlays of boxes.
    pub overlays: KindUsage,
    /// Snapshot and clone bases.
    pub bases: KindUsage,
    /// Named volumes.
    #[serde(default)]
    pub volumes: KindUsage,
    /// Layers, configs, manifests.
    pub blobs: KindUsage,
    /// Everything else in box directories: logs, sockets, locks.
    pub logs: KindUsage,
    /// Unpacked kernels and initramfs files, templates, and findings about the host.
    pub boot_files: KindUsage,
    /// Unfinished files and trash.
    pub unfinished: KindUsage,
    /// Directories of boxes that nothing explains: `gc` frees nothing of them until a person adopts or purges them.
    #[serde(default)]
    pub unexplained: KindUsage,
    /// The database and its journal.
    #[serde(default)]
    pub database: KindUsage,
    /// Space that is set aside for what frees space on a full disk.
    #[serde(default)]
    pub reserves: KindUsage,
    /// Bytes of everything else in the home: directories, settings, and what boxlite did not make. With this the rows
    /// add up to all that the home allocates.
    #[serde(default)]
    pub other: u64,
    /// Bytes of disk images, deltas and bases that more than one box stands on.
    pub shared: u64,
    /// Allocated bytes that `gc` would free now.
    pub reclaimable: u64,
    /// The bytes of boxes that do not run.
    #[serde(default)]
    pub stopped: StoppedUsage,
    /// Each box, by id.
    pub boxes: Vec<BoxUsage>,
    /// Each disk image, by digest.
    pub images: Vec<ImageUsage>,
    /// Each image of the catalogue, by name, and what of its disk image it shares with others.
    #[serde(default)]
    pub image_shares: Vec<ImageShare>,
    /// Paths that could not be read; the figures are then lower bounds.
    pub unreadable: Vec<Unreadable>,
}

/// The space that boxes take that do not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedUsage {
    /// How many there are.
    pub boxes: u64,
    /// Bytes of their overlays and logs.
    pub own: u64,
    /// Bytes of the disk images, deltas and bases that they alone keep from being collected.
    pub pinned: u64,
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
    /// Disk images, deltas and bases below its overlays, which it may share.
    pub below: u64,
}

/// The space that the disk image of one image takes: its files are a disk image and deltas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageShare {
    /// Manifest digest.
    pub digest: String,
    /// One of its names.
    pub reference: Option<String>,
    /// How many files its disk image has; 0 when it is not built.
    pub files: u64,
    /// Bytes allocated to these.
    pub allocated: u64,
    /// Bytes of these that other images stand on as well.
    pub shared: u64,
    /// Bytes of these that this image alone needs.
    pub unique: u64,
    /// How many of its layers are there as blobs.
    pub layers: u64,
    /// How many layers it has.
    pub layers_in_all: u64,
    /// How many boxes were made of it.
    pub boxes: u64,
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
