//! The host's filesystems that a guest can fill, measured.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use boxlite_home::durable;
use boxlite_types::PauseCause;
use tokio::time::Instant;

use super::growth::GrowthMeter;
use super::space::SpaceReading;
use crate::shim::launch::{DiskFloors, LaunchSpec};

/// A volume's filesystem may be a small one: the floor is at most this fraction of it.
const VOLUME_FLOOR_DIVISOR: u64 = 8;

/// What one box is watched for.
#[derive(Debug)]
pub(super) struct SpaceWatch {
    overlay: PathBuf,
    growth: GrowthMeter,
    places: Vec<Place>,
}

/// A watched filesystem.
#[derive(Debug)]
struct Place {
    cause: PauseCause,
    path: PathBuf,
    device: Option<u64>,
    floors: DiskFloors,
    /// Whether the box has a volume there, of whose growth nothing is known.
    has_volume: bool,
}

impl SpaceWatch {
    /// Watches the overlay's filesystem, and that of each volume that the guest can write to.
    pub(super) fn new(spec: &LaunchSpec) -> Self {
        let home = Place {
            cause: PauseCause::HostDisk,
            path: spec.box_dir.clone(),
            device: device_of(&spec.box_dir),
            floors: spec.floors,
            has_volume: false,
        };
        let mut places = vec![home];
        for volume in spec.shares.volumes.iter().filter(|volume| !volume.read_only) {
            let device = device_of(&volume.source);
            if let Some(place) = places.iter_mut().find(|place| device.is_some() && place.device == device) {
                place.has_volume = true;
                continue;
            }
            let total = durable::free_space(&volume.source).map_or(0, |space| space.bytes_total);
            places.push(Place {
                cause: PauseCause::Volume,
                path: volume.source.clone(),
                device,
                floors: of_volume(spec.floors, total),
                has_volume: true,
            });
        }
        Self { overlay: spec.overlay.clone(), growth: GrowthMeter::default(), places }
    }

    /// The floors of each watched filesystem; the overlay's is the first.
    pub(super) fn floors(&self) -> Vec<DiskFloors> {
        self.places.iter().map(|place| place.floors).collect()
    }

    /// What the watched filesystem `index` is to the box, and a directory on it.
    pub(super) fn place(&self, index: usize) -> Option<(PauseCause, &Path)> {
        self.places.get(index).map(|place| (place.cause, place.path.as_path()))
    }

    /// Measures each watched filesystem.
    pub(super) fn read(&mut self) -> Vec<SpaceReading> {
        let allocated = durable::allocated_of(&self.overlay).ok();
        let overlay_grown = allocated.map(|bytes| self.growth.grown(Instant::now(), bytes));
        let read = |(index, place): (usize, &Place)| SpaceReading {
            free: durable::free_space(&place.path).map(|space| space.bytes).ok(),
            grown: if place.has_volume || index > 0 { None } else { overlay_grown },
        };
        self.places.iter().enumerate().map(read).collect()
    }
}

fn device_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).map(|metadata| metadata.dev()).ok()
}

/// The floors of a volume's filesystem of `total` bytes.
fn of_volume(home: DiskFloors, total: u64) -> DiskFloors {
    let pause_below = home.pause_below.min(total / VOLUME_FLOOR_DIVISOR);
    DiskFloors { pause_below, resume_at: home.resume_at.min(pause_below / 2 * 3) }
}

#[cfg(test)]
mod tests {
    use boxlite_types::Volume;

    use super::*;
    use crate::volume::Shares;

    const MIB: u64 = 1 << 20;

    /// Mutations tried: a watch of read-only volumes, and one that adds a place for a volume on the home's filesystem.
    #[test]
    fn each_filesystem_that_the_guest_writes_to_is_watched_once() {
        let directory = tempfile::tempdir().unwrap();
        let volume =
            |source: &str, read_only| Volume { source: source.into(), target: "/v".into(), read_only };
        let beside = directory.path().to_str().unwrap();
        let volumes = vec![volume("/dev/shm", false), volume("/proc", true), volume(beside, false)];
        let spec = LaunchSpec {
            box_dir: directory.path().to_owned(),
            shares: Shares { volumes, ..Shares::default() },
            floors: DiskFloors { pause_below: 256 * MIB, resume_at: 384 * MIB },
            ..LaunchSpec::sample()
        };
        let watch = SpaceWatch::new(&spec);
        let causes: Vec<PauseCause> = watch.places.iter().map(|place| place.cause).collect();
        assert_eq!(causes, [PauseCause::HostDisk, PauseCause::Volume]);
        assert!(watch.places[0].has_volume);
    }

    #[test]
    fn a_small_volume_has_a_small_floor() {
        let home = DiskFloors { pause_below: 256 * MIB, resume_at: 384 * MIB };
        assert_eq!(of_volume(home, 1 << 40), home);
        assert_eq!(of_volume(home, 64 * MIB), DiskFloors { pause_below: 8 * MIB, resume_at: 12 * MIB });
    }
}
