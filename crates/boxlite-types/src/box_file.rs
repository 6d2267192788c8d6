//! Boxes as single files: what callers ask, and what such a file says of its box.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{BoxInfo, BoxOptions, ImageConfig, Platform};

/// How a box is packed into a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoxExportOptions {
    /// Leave out what the box's image has: the file is smaller, and of use only where that image is.
    pub relative: bool,
    /// The disk as this snapshot has it; as it is now when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// How a box of a file differs from what the file says; what is absent is the file's.
///
/// A file has no say in what its box reaches of this host: published ports and volumes are those that are given here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoxImportOptions {
    /// The box's unique name. The file's when absent, and a made-up one where that is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Published ports, as in [`BoxOptions::ports`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Volumes, as in [`BoxOptions::volumes`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
}

/// A box that was made of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportedBox {
    /// The box.
    pub info: BoxInfo,
    /// Wishes of the file that were not granted, as sentences.
    pub notices: Vec<String>,
}

/// The first part of a box file: everything of the box but its disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoxFileHead {
    /// Counts up with every change that older builds must not meet.
    pub format: u32,
    /// When it was written.
    pub exported_at: Timestamp,
    /// The platform that it runs on.
    pub platform: Platform,
    /// The box's name.
    pub name: String,
    /// Manifest digest of its image.
    pub image: String,
    /// The image as the user named it.
    pub image_reference: String,
    /// How the image wants to be run.
    pub image_config: ImageConfig,
    /// Names the disk image that the box was made from.
    pub disk_digest: String,
    /// Virtual size in bytes of that disk image.
    pub disk_image_size: u64,
    /// The options that were asked for.
    pub options: BoxOptions,
    /// The second part.
    pub disk: BoxFileDisk,
}

impl BoxFileHead {
    /// The format that this build writes, and the only one that it reads.
    pub const FORMAT: u32 = 1;
}

/// The second part of a box file: its disk. Everything about the layout of the qcow2 file follows from these figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxFileDisk {
    /// Bytes of the disk as the guest sees it.
    pub virtual_size: u64,
    /// Whether it holds only what the box has changed on its disk image.
    pub relative: bool,
    /// Tables of 8,192 clusters each: the parts of 512 MiB of the disk that hold something.
    pub tables: u64,
    /// Clusters of 64 KiB that hold bytes.
    pub clusters: u64,
}
