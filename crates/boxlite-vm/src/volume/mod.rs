//! A box's shared folders: directories and single files of the host, through virtiofs.
//!
//! One virtiofsd (`boxlite-virtiofsd`) per volume serves one directory to one QEMU over vhost-user, and sees nothing else: it runs in
//! namespaces of its own with that directory as its root, or in a chroot where root lacks the right to namespaces. It
//! keeps no socket on disk, is started by the box's shim and dies with it. Read-only is enforced on the host's side by
//! virtiofsd, whatever the guest mounts.
//!
//! Privileges: whatever the guest mounts and whoever it runs as, no set-user-id or set-group-id bit, no device node and no
//! file capability comes to be on the host; see [`boxlite_jail::PrivilegeBits`].
//!
//! Growth: virtiofsd charges what the box adds to a volume with a size, and keeps the sum in a file of the box's directory
//! ([`ledger`]) that it inherits. It refuses what would go past the size, or below the floors of the host's disk.
//!
//! Ownership: run by root, ids in the guest are ids on the host (as with a Docker bind mount), unless the volume has `U`:
//! then everything is root's in the guest, and what the guest makes is the directory owner's. Run by anybody else,
//! everything belongs to that user, and the guest shows it as root's. Of extended attributes `user.*` alone are passed on.

mod daemon;
mod ledger;
mod mounts;
mod named;
mod off_limits;
mod sandbox;
mod served;
mod share;
mod socket;
mod source;
mod spec;
mod tmpfs;

use std::path::{Path, PathBuf};

use boxlite_proto::ShareMount;
use boxlite_types::Volume;
use serde::{Deserialize, Serialize};

pub use daemon::Daemon;
pub(crate) use named::serial;
pub use named::{NamedDisk, check_named, disk_mounts, named_text, parse_named};
pub use off_limits::OffLimits;
pub use sandbox::Sandbox;
pub use share::{Share, ShareDevice, start};
pub use source::resolve;
pub use spec::{MAX_TMPFS, MAX_VOLUMES, VolumeSpec, check_set, parse_volume};
pub use tmpfs::parse_tmpfs;

/// The volumes of one run of a box.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// The directories and files, in the order of [`mounts`].
    pub volumes: Vec<Volume>,
    /// The program that serves them; needed when there is one.
    pub virtiofsd: PathBuf,
    /// The places that none of them may show.
    pub off_limits: OffLimits,
    /// The space of their filesystems that stays free.
    pub floors: VolumeFloors,
    /// The directory in which the volumes with a size have their ledgers.
    pub ledgers: PathBuf,
}

/// The space that a volume's filesystem keeps free, whatever the box wants to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFloors {
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// Returns the mounts that the guest agent is told to make, in the order of `volumes`.
pub fn mounts(volumes: &[Volume]) -> Vec<ShareMount> {
    let mount = |(index, volume): (usize, &Volume)| ShareMount {
        tag: tag(index),
        target: if volume.file { String::new() } else { volume.target.clone() },
        read_only: volume.read_only,
        file: volume.file.then(|| volume.target.clone()),
    };
    volumes.iter().enumerate().map(mount).collect()
}

/// The directories that a box writes to besides its overlay: their filesystems can be filled too.
pub fn writable_sources(volumes: &[Volume]) -> impl Iterator<Item = &Path> {
    volumes.iter().filter(|volume| !volume.read_only).map(|volume| volume.source.as_path())
}

fn tag(index: usize) -> String {
    format!("volume{index}")
}
