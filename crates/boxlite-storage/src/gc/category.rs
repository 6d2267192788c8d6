//! The kinds of things that gc judges, in the order in which it removes them.

use boxlite_types::GcReport;
use boxlite_types::gc::Item;

/// The category of an item of a plan. Cheaper garbage comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Category {
    Unfinished,
    Blob,
    BootFile,
    BoxDirectory,
    Volume,
    Base,
    /// A blob of images that have a disk image and can be fetched again.
    Layer,
    Delta,
    DiskImage,
    CatalogEntry,
}

impl Category {
    /// Where the report lists items of this kind.
    pub(super) fn list(self, report: &mut GcReport) -> &mut Vec<Item> {
        match self {
            Self::Unfinished => &mut report.unfinished,
            Self::Blob | Self::Layer => &mut report.blobs,
            Self::BootFile => &mut report.boot_files,
            Self::BoxDirectory => &mut report.box_directories,
            Self::Base => &mut report.bases,
            Self::Volume => &mut report.volumes,
            Self::Delta => &mut report.deltas,
            Self::DiskImage => &mut report.disk_images,
            Self::CatalogEntry => &mut report.images,
        }
    }

    /// Whether items are made again on demand, so that only as many are removed as there is need for, least recently
    /// used first.
    pub(super) fn is_cache(self) -> bool {
        matches!(self, Self::Layer | Self::Delta | Self::DiskImage | Self::CatalogEntry)
    }

    /// The step of a pass in which items of this kind are removed. Deltas go with what they stand on, so that the least
    /// recently used of all goes first.
    pub(super) fn step(self) -> Self {
        if self == Self::Delta { Self::DiskImage } else { self }
    }

    /// Whether the backing chains decide what is needed, so that removing one wants a second census.
    pub(super) fn is_chained(self) -> bool {
        matches!(self, Self::BoxDirectory | Self::Base | Self::Delta | Self::DiskImage)
    }
}
