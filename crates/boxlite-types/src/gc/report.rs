//! The report of a pass.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::FreeSpace;

/// A whole pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Nothing was deleted: `Fate::Removed` reads "would be removed".
    pub dry_run: bool,
    /// Every disk image, by name.
    pub disk_images: Vec<Item>,
    /// Every delta, by name.
    #[serde(default)]
    pub deltas: Vec<Item>,
    /// Every base, by name.
    pub bases: Vec<Item>,
    /// Box directories that have no record.
    pub box_directories: Vec<Item>,
    /// Named volumes that are to be removed, and what nothing explains among them. All others are no business of gc's.
    #[serde(default)]
    pub volumes: Vec<Item>,
    /// Blobs that no image refers to, and layers that can be fetched again.
    pub blobs: Vec<Item>,
    /// Unfinished files and trash whose owner is gone.
    pub unfinished: Vec<Item>,
    /// Every unpacked kernel, initramfs and template, by name.
    pub boot_files: Vec<Item>,
    /// Catalogue entries considered because of `all`.
    pub images: Vec<Item>,
    /// Paths that could not be read; while there are any, nothing that they might need is removed.
    pub unreadable: Vec<Unreadable>,
    /// Removals that failed.
    pub failures: Vec<RemovalFailure>,
    /// Allocated bytes of everything removed (or that would be).
    pub reclaimed: u64,
    /// Bytes by which the filesystem's free space grew meanwhile, for any reason; absent in a dry run and
    /// where it could not be measured.
    pub free_space_change: Option<i64>,
    /// Free space of the home's filesystem before the pass, where it could be measured.
    pub free_before: Option<FreeSpace>,
    /// Free space afterwards.
    pub free_after: Option<FreeSpace>,
    /// Some figure could not be measured, so the sums are lower bounds.
    pub partial: bool,
}

impl GcReport {
    /// Whether something could not be read or removed: the exit status is then not 0.
    pub fn failed(&self) -> bool {
        !self.unreadable.is_empty() || !self.failures.is_empty()
    }

    /// All items of the pass.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        let stored = [&self.disk_images, &self.deltas, &self.bases, &self.box_directories, &self.blobs];
        stored.into_iter().chain([&self.volumes, &self.boot_files, &self.unfinished, &self.images]).flatten()
    }

    /// All items by kind, in the order in which they are shown.
    pub fn kinds(&self) -> [(&'static str, &[Item]); 9] {
        [
            ("image", &self.images),
            ("disk image", &self.disk_images),
            ("delta", &self.deltas),
            ("base", &self.bases),
            ("box directory", &self.box_directories),
            ("volume", &self.volumes),
            ("blob", &self.blobs),
            ("boot file", &self.boot_files),
            ("unfinished", &self.unfinished),
        ]
    }

    /// Items that are kept because nothing explains them: see [`Skip::Unexplained`].
    pub fn unexplained(&self) -> impl Iterator<Item = &Item> {
        self.items().filter(|item| item.fate == Fate::Skipped { why: Skip::Unexplained })
    }

    /// Items removed, or that would be.
    pub fn removed(&self) -> impl Iterator<Item = &Item> {
        self.items().filter(|item| matches!(item.fate, Fate::Removed { .. }))
    }
}

/// One thing that gc judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// File name, or digest for a catalogue entry.
    pub name: String,
    /// Where it is; empty for a catalogue entry.
    pub path: PathBuf,
    /// Bytes that its removal frees: allocated, and 0 while another hard link holds them.
    pub allocated: u64,
    /// Last modified, seconds since 1970.
    pub modified: i64,
    /// Last used, seconds since 1970.
    pub last_used: i64,
    /// The image of the box that an unexplained directory belonged to, as its user named it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Its fate.
    #[serde(flatten)]
    pub fate: Fate,
}

/// The fate of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fate", rename_all = "snake_case")]
pub enum Fate {
    /// Needed.
    Kept {
        /// The first few that need it.
        by: Vec<Holder>,
        /// How many need it.
        holders: u64,
    },
    /// Removed, or would be.
    Removed {
        /// Why it was not needed.
        reason: String,
    },
    /// Not needed, but left alone.
    Skipped {
        /// Why.
        why: Skip,
    },
    /// Its removal failed.
    Failed {
        /// The reason.
        reason: String,
    },
}

impl Fate {
    /// Returns what was done to the item, in a few words; in a dry run, what would be done.
    pub fn label(&self, dry_run: bool) -> &'static str {
        match self {
            Self::Kept { .. } => "kept",
            Self::Removed { .. } if dry_run => "would be removed",
            Self::Removed { .. } => "removed",
            Self::Skipped { .. } => "skipped",
            Self::Failed { .. } => "not removed",
        }
    }

    /// Why: who needs the item, or the reason for its removal or for leaving it alone. `name` gives boxes their names.
    pub fn why(&self, name: &dyn Fn(&str) -> Option<String>) -> String {
        let (by, holders) = match self {
            Self::Kept { by, holders } => (by, *holders),
            Self::Removed { reason } | Self::Failed { reason } => return reason.clone(),
            Self::Skipped { why } => return why.to_string(),
        };
        let named: Vec<String> = by.iter().map(|holder| holder.text(name)).collect();
        match holders.saturating_sub(by.len() as u64) {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }
}

/// A box, base or delta that needs an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Id of a box, or file name of a base or delta.
    pub name: String,
    /// By which source.
    pub kind: HolderKind,
}

impl Holder {
    fn text(&self, name: &dyn Fn(&str) -> Option<String>) -> String {
        let short = self.name.get(..12).unwrap_or(&self.name);
        let of_box = || name(&self.name).unwrap_or_else(|| short.to_owned());
        match self.kind {
            HolderKind::Record => format!("box {}", of_box()),
            HolderKind::Chain => format!("overlay of box {}", of_box()),
            HolderKind::Base => format!("base {}", self.name),
            HolderKind::Description => format!("box.json of box {}", of_box()),
            HolderKind::Snapshot => format!("snapshot of box {}", of_box()),
            HolderKind::Delta => format!("delta {short}"),
        }
    }
}

/// The source of a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HolderKind {
    /// The box's record names it.
    Record,
    /// It is in the backing chain of one of the box's overlays.
    Chain,
    /// It is in the backing chain of a base.
    Base,
    /// The `box.json` of a box without a record names it.
    Description,
    /// It is in the backing chain of a delta.
    Delta,
    /// A snapshot of the box is kept in it.
    Snapshot,
}

/// Why an unneeded item was left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// Modified within the grace.
    Grace,
    /// A lease or a lock on it is held.
    InUse,
    /// Something was unreadable, so the item may be needed.
    Unknown,
    /// The operation that collects is about to use it.
    Protected,
    /// Used within `until`.
    Recent,
    /// The next start would make it again: the last used of its kind.
    Current,
    /// Enough was removed already.
    Enough,
    /// It may hold a user's data, and no intent asks for its removal. A person decides: `gc --adopt` or
    /// `gc --purge`.
    Unexplained,
    /// A box that nothing explains may need it, and it may not be possible to fetch it again.
    MayBeNeeded,
    /// Its directory leads out of the home, so another home may need it.
    Elsewhere,
    /// An image's layers are gone, so that it could not be made again without its registry.
    OnlyCopy,
    /// The image was given all of its names here, so that no registry can give it back.
    OnlyHere,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grace => "modified within the grace",
            Self::InUse => "in use",
            Self::Unknown => "something is unreadable, so it is unknown who needs it",
            Self::Protected => "about to be used",
            Self::Recent => "used recently",
            Self::Current => "the last used of its kind",
            Self::Enough => "enough was removed already",
            Self::Unexplained => "unexplained: nobody is known to have asked for its removal",
            Self::MayBeNeeded => "an unexplained box may need it",
            Self::OnlyCopy => "an image's layers are gone, so that only its registry could give it back",
            Self::OnlyHere => {
                "it was made or loaded here, and no registry can give it back: gc --all --local drops it"
            }
            Self::Elsewhere => "its directory leads out of the home, where another home may need it",
        })
    }
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// The path that could not be read.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// A removal that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovalFailure {
    /// The path that could not be removed.
    pub path: PathBuf,
    /// The reason.
    pub reason: String,
}
