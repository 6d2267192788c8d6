//! The host's filesystems that a guest can fill, measured.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use boxlite_home::durable;
use boxlite_types::{FreeSpace, PauseCause};
use tokio::time::Instant;

use super::growth::GrowthMeter;
use super::space::{SpaceReading, SpaceReadings};
use crate::shim::launch::{DiskFloors, LaunchSpec};

/// A volume's filesystem may be a small one: the floor is at most this fraction of it.
const VOLUME_FLOOR_DIVISOR: u64 = 8;

/// The files that one box is watched for. All of them are open: the process that watches has no way to open them.
#[derive(Debug)]
pub(in crate::shim) struct SpaceWatch {
    overlay: Watched,
    /// The named volumes that the guest writes to, which lie on the overlay's filesystem.
    volumes: Vec<Watched>,
    growth: GrowthMeter,
    places: Vec<Place>,
}

/// A watched filesystem.
#[derive(Debug)]
struct Place {
    cause: PauseCause,
    watched: Watched,
    device: Option<u64>,
    floors: DiskFloors,
    /// The growth by everybody there, where the box has a volume: how much of it is the box's is not known.
    volume_growth: Option<GrowthMeter>,
}

/// A file or directory that is looked at and nothing else.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    file: Option<File>,
}

impl Watched {
    /// A directory that cannot be opened cannot be measured.
    fn at(path: &Path) -> Self {
        #[allow(clippy::disallowed_methods, reason = "nothing can be written through such a descriptor")]
        let file = File::options().read(true).custom_flags(libc::O_PATH).open(path).ok();
        Self { path: path.to_owned(), file }
    }

    fn device(&self) -> Option<u64> {
        self.file.as_ref()?.metadata().ok().map(|metadata| metadata.dev())
    }

    fn allocated(&self) -> Option<u64> {
        self.file.as_ref()?.metadata().ok().map(|metadata| durable::allocated(&metadata))
    }

    fn space(&self) -> Option<FreeSpace> {
        durable::free_space_of(self.file.as_ref()?, &self.path).ok()
    }
}

impl SpaceWatch {
    /// Watches the overlay's filesystem, and that of each volume that the guest can write to.
    pub(in crate::shim) fn new(spec: &LaunchSpec) -> Self {
        let watched = Watched::at(&spec.box_dir);
        let home = Place {
            cause: PauseCause::HostDisk,
            device: watched.device(),
            watched,
            floors: spec.floors,
            volume_growth: None,
        };
        let mut places = vec![home];
        for volume in spec.shares.volumes.iter().filter(|volume| !volume.read_only) {
            let watched = Watched::at(&volume.source);
            let device = watched.device();
            if let Some(place) = places.iter_mut().find(|place| device.is_some() && place.device == device) {
                place.volume_growth = Some(GrowthMeter::default());
                continue;
            }
            let total = watched.space().map_or(0, |space| space.bytes_total);
            places.push(Place {
                cause: PauseCause::Volume,
                watched,
                device,
                floors: of_volume(spec.floors, total),
                volume_growth: Some(GrowthMeter::default()),
            });
        }
        let volumes = spec.disks.iter().filter(|disk| !disk.mount.read_only);
        Self {
            overlay: Watched::at(&spec.overlay),
            volumes: volumes.map(|disk| Watched::at(&disk.path)).collect(),
            growth: GrowthMeter::default(),
            places,
        }
    }

    /// The floors of each watched filesystem; the overlay's is the first.
    pub(super) fn floors(&self) -> Vec<DiskFloors> {
        self.places.iter().map(|place| place.floors).collect()
    }

    /// Returns the role of the watched filesystem `index` for the box, and a directory on it.
    pub(super) fn place(&self, index: usize) -> Option<(PauseCause, &Path)> {
        self.places.get(index).map(|place| (place.cause, place.watched.path.as_path()))
    }

    /// The file that the box's quota is for.
    pub(super) fn overlay(&self) -> &Path {
        &self.overlay.path
    }

    /// From now on the overlay is the file `overlay`, under the same name.
    pub(super) fn follow(&mut self, overlay: File) {
        self.overlay.file = Some(overlay);
        self.growth = GrowthMeter::default();
    }

    /// Measures the overlay, the named volumes and each watched filesystem.
    pub(super) fn read(&mut self) -> SpaceReadings {
        let now = Instant::now();
        let allocated = self.overlay.allocated();
        let volumes: Option<u64> = self.volumes.iter().map(Watched::allocated).sum();
        let written = allocated.zip(volumes).map(|(overlay, volumes)| overlay.saturating_add(volumes));
        let mut own_grown = written.map(|bytes| self.growth.grown(now, bytes));
        let read = |place: &mut Place| {
            let space = place.watched.space();
            let used = space.map(|space| space.bytes_total.saturating_sub(space.bytes));
            let volume_grown = match &mut place.volume_growth {
                Some(meter) => used.map(|used| meter.grown(now, used)),
                None => Some(0),
            };
            // The box's own files lie on the first one.
            let own = own_grown.replace(0);
            let grown = own.zip(volume_grown).map(|(own, volume)| own.saturating_add(volume));
            SpaceReading { free: space.map(|space| space.bytes), grown }
        };
        SpaceReadings { places: self.places.iter_mut().map(read).collect(), overlay: allocated, written }
    }
}

/// The floors of a volume's filesystem of `total` bytes.
fn of_volume(home: DiskFloors, total: u64) -> DiskFloors {
    let pause_below = home.pause_below.min(total / VOLUME_FLOOR_DIVISOR);
    DiskFloors { pause_below, resume_at: home.resume_at.min(pause_below / 2 * 3) }
}

#[cfg(test)]
mod tests {
    use boxlite_testkit::filesystem::SmallFilesystem;
    use boxlite_types::{Volume, VolumeMount};

    use super::*;
    use crate::volume::{NamedDisk, Shares};

    const MIB: u64 = 1 << 20;

    #[test]
    fn each_filesystem_that_the_guest_writes_to_is_watched_once() {
        let directory = tempfile::tempdir().unwrap();
        let volume = |source: &str, read_only| Volume {
            source: source.into(),
            target: "/v".into(),
            read_only,
            map_ids: false,
            file: false,
            size: None,
        };
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
        assert!(watch.places[0].volume_growth.is_some());
    }

    #[test]
    fn a_volume_grows_with_its_filesystem_and_the_first_place_with_the_overlay() {
        let directory = tempfile::tempdir().unwrap();
        let overlay = directory.path().join("overlay");
        std::fs::write(&overlay, [1; 4096]).unwrap();
        let Some(disk) = SmallFilesystem::tmpfs("size=8m") else { return };
        let volumes = vec![Volume {
            source: disk.path().to_owned(),
            target: "/v".into(),
            read_only: false,
            map_ids: false,
            file: false,
            size: None,
        }];
        let spec = LaunchSpec {
            box_dir: directory.path().to_owned(),
            overlay: overlay.clone(),
            shares: Shares { volumes, ..Shares::default() },
            ..LaunchSpec::sample()
        };
        let mut watch = SpaceWatch::new(&spec);
        let grown = |measurement: SpaceReadings| {
            measurement.places.iter().map(|reading| reading.grown).collect::<Vec<_>>()
        };
        assert_eq!(grown(watch.read()), [Some(0), Some(0)]);
        std::fs::write(&overlay, vec![1; 4 << 20]).unwrap();
        let allocated = durable::allocated_of(&overlay).unwrap();
        assert_eq!(grown(watch.read()), [Some(allocated - 4096), Some(0)]);
        std::fs::write(disk.path().join("file"), [1; 8192]).unwrap();
        assert_eq!(grown(watch.read()), [Some(allocated - 4096), Some(8192)]);
    }

    /// Mutation tried: without the volumes, a box that writes to one alone counts as idle and is never paused.
    #[test]
    fn the_first_place_grows_with_the_named_volumes_that_may_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let disk = |name: &str, read_only| NamedDisk {
            mount: VolumeMount { name: name.into(), target: "/v".into(), read_only },
            path: file(name),
        };
        for name in ["overlay", "data", "shared"] {
            std::fs::write(file(name), [1; 4096]).unwrap();
        }
        let spec = LaunchSpec {
            box_dir: directory.path().to_owned(),
            overlay: file("overlay"),
            disks: vec![disk("data", false), disk("shared", true)],
            ..LaunchSpec::sample()
        };
        let mut watch = SpaceWatch::new(&spec);
        assert_eq!(watch.read().places[0].grown, Some(0));
        for name in ["data", "shared"] {
            std::fs::write(file(name), vec![1; 4096 + (1 << 20)]).unwrap();
        }
        let readings = watch.read();
        assert_eq!((readings.places[0].grown, readings.overlay), (Some(1 << 20), Some(4096)));
        assert_eq!(readings.written, Some((1 << 20) + 8192));
    }

    #[test]
    fn a_small_volume_has_a_small_floor() {
        let home = DiskFloors { pause_below: 256 * MIB, resume_at: 384 * MIB };
        assert_eq!(of_volume(home, 1 << 40), home);
        assert_eq!(of_volume(home, 64 * MIB), DiskFloors { pause_below: 8 * MIB, resume_at: 12 * MIB });
    }
}
