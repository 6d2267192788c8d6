//! What `boxlite info` says of a host and its home.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::admission::Verdict;
use crate::assets::AssetReport;
use crate::durable::FreeSpace;
use crate::settings::SettingLine;

/// The state of a host and its home.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Version of this library.
    pub version: String,
    /// The home.
    pub home: PathBuf,
    /// Boxes in the home.
    pub boxes: usize,
    /// Those that run.
    pub running: usize,
    /// Images in the catalogue.
    pub images: usize,
    /// What would run a guest's code, and why.
    pub acceleration: Option<Acceleration>,
    /// Why nothing can, when `acceleration` is absent.
    pub acceleration_problem: Option<String>,
    /// What a box needs of this host, found or not.
    pub assets: Vec<AssetReport>,
    /// Free space of the home's filesystem, and what a start would be told.
    pub space: Option<SpaceInfo>,
    /// Every setting in force and where it came from.
    pub settings: Vec<SettingLine>,
}

/// What runs guests' code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceleration {
    /// `kvm` or `tcg`.
    pub name: String,
    /// Why it was chosen.
    pub reason: String,
    /// QEMU's version.
    pub qemu: String,
}

/// The home's filesystem in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceInfo {
    /// As measured.
    pub free: FreeSpace,
    /// What admission makes of it, reservations included.
    pub verdict: Verdict,
    /// Bytes of each live reservation.
    pub claims: Vec<u64>,
}
