//! A host and its home, as `boxlite info` shows them.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{FreeSpace, Verdict};

/// The state of a host and its home.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Version of this library.
    pub version: String,
    /// The home.
    pub home: PathBuf,
    /// Boxes in the home.
    pub boxes: usize,
    /// Running boxes, those that are paused included.
    pub running: usize,
    /// Running boxes whose guest waits for space on the host's disk.
    #[serde(default)]
    pub paused: usize,
    /// Images in the catalogue.
    pub images: usize,
    /// The accelerator that runs guests' code, and why; absent when nothing can.
    pub acceleration: Option<Acceleration>,
    /// Why `acceleration` is absent.
    pub acceleration_problem: Option<String>,
    /// The programs and files that a box needs of this host, found or not.
    pub assets: Vec<AssetReport>,
    /// Free space of the home's filesystem, and admission's verdict on it; absent when it cannot be measured.
    pub space: Option<SpaceInfo>,
    /// The memory of boxes, and admission's verdict on it; absent when the host's cannot be measured, and from an older
    /// server.
    #[serde(default)]
    pub memory: Option<MemoryInfo>,
    /// The confinement of a box's QEMU.
    pub jail: JailInfo,
    /// Every setting in force and where it came from.
    pub settings: Vec<SettingLine>,
}

/// The accelerator that runs guests' code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceleration {
    /// `kvm` or `tcg`.
    pub name: String,
    /// Why it was chosen.
    pub reason: String,
    /// QEMU's version.
    pub qemu: String,
}

/// The confinement of a box's QEMU on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailInfo {
    /// Whether boxes start in a jail: false where the setting `jail` is off.
    pub on: bool,
    /// Every measure of the jail, in force or missing.
    pub measures: Vec<JailMeasure>,
    /// Why no jail can be built here, so that no box starts.
    pub problem: Option<String>,
}

/// One measure of a jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailMeasure {
    /// Its description, in a few words.
    pub name: String,
    /// Whether it is in force.
    pub in_force: bool,
    /// How, or why not.
    pub detail: String,
}

/// The home's filesystem in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceInfo {
    /// Free space and inodes, as measured.
    pub free: FreeSpace,
    /// Admission's verdict on it, live claims included.
    pub verdict: Verdict,
    /// Bytes of each live claim.
    pub claims: Vec<u64>,
    /// The free bytes that are compared with; absent from an older server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floors: Option<SpaceFloors>,
}

/// The settings that free space is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceFloors {
    /// Fewer free bytes refuse starts.
    pub hard: u64,
    /// Fewer free bytes warn.
    pub soft: u64,
    /// A smaller free share of the filesystem, in percent, warns.
    pub soft_percent: u8,
    /// Fewer free bytes pause boxes.
    pub emergency: u64,
}

/// The memory that boxes share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMemory {
    /// Bytes: the host's, or the limit of a control group that is smaller.
    pub bytes: u64,
    /// The directory of that control group.
    pub limited_by: Option<PathBuf>,
}

/// The memory of boxes in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryInfo {
    /// The memory that they share.
    pub host: HostMemory,
    /// Bytes of it that they may be promised together.
    pub limit: u64,
    /// Bytes of each live promise: a guest's memory and the overhead around it.
    pub promises: Vec<u64>,
    /// Bytes of each promise to a guest that waits for a box: such guests go before a box is refused.
    #[serde(default)]
    pub waiting: Vec<u64>,
    /// Bytes that running boxes take now, as the kernel charges them to their control groups, caches of files included;
    /// for a box without a control group, what its QEMU has resident.
    pub used: u64,
    /// Running boxes for which that could not be measured.
    pub unmeasured: usize,
    /// Whether a box with the usual memory would be refused now.
    pub full: bool,
}

impl MemoryInfo {
    /// Bytes that are promised to all boxes, and guests that wait for one, together.
    pub fn promised(&self) -> u64 {
        self.promises.iter().chain(&self.waiting).fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// One asset as `boxlite info` reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetReport {
    /// Its name.
    pub name: String,
    /// Where it was found.
    pub path: Option<PathBuf>,
    /// Whether boxes start without it.
    pub optional: bool,
    /// The remedy when it was not found.
    pub remedy: String,
}

/// One line of `boxlite info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingLine {
    /// The key in the settings file.
    pub name: String,
    /// The value, as the settings file would spell it.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
    /// Its meaning, in one sentence.
    pub meaning: String,
}

/// Where the value in force came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The built-in default.
    Default,
    /// The settings file.
    File(PathBuf),
    /// The environment variable of this name.
    Env(String),
    /// The embedding program or the command line.
    Options,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Options => f.write_str("options"),
        }
    }
}
