//! Why something is kept or removed.

use serde::{Deserialize, Serialize};

use super::{Item, Unreadable};

/// An explanation of everything that a name means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The items of that name.
    pub subjects: Vec<ExplainedItem>,
    /// The items that a box, base or image of that name stands on, and that stay because of it, if anything does.
    pub needs: Vec<ExplainedItem>,
    /// Paths that could not be read; while there are any, more may be needed than is known.
    pub unreadable: Vec<Unreadable>,
}

/// One item, its fate, and when that may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedItem {
    /// Its kind.
    pub kind: SubjectKind,
    /// The item; its fate says who pins it and by which source, or why it is skipped.
    #[serde(flatten)]
    pub item: Item,
    /// When it becomes eligible for removal if nothing needs it then, in seconds since 1970; `None` unless it could be
    /// removed now or is only within its grace.
    pub eligible_at: Option<i64>,
}

/// The kind of an explained item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// A disk image.
    DiskImage,
    /// The changes of an image's further layers to a disk image.
    Delta,
    /// A snapshot or clone base.
    Base,
    /// The directory of a box without a record.
    BoxDirectory,
    /// A named volume that is to be removed, or what nothing explains among them.
    Volume,
    /// A blob that no image refers to, or a layer.
    Blob,
    /// A kernel, initramfs or template.
    BootFile,
    /// An unfinished file, or trash.
    Unfinished,
    /// A catalogue entry.
    CatalogEntry,
}
