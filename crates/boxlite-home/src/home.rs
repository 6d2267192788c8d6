//! The layout of `$BOXLITE_HOME`, checked when the home is opened.
//!
//! ```text
//! home.json                        which home this is; the database carries the same id
//! boxlite.db                       SQLite: images, boxes, intents; schema version
//! claims                           empty; live claims on disk space are locks on its byte ranges
//! memory-claims                    empty; live claims on memory are locks on its byte ranges
//! pool-claims                      the same for guests that wait for a box
//! reserve-<purpose>                preallocated space for what frees space on a full disk
//! images/blobs/sha256/<hex>        content-addressed, verified
//! images/disk-images/<digest>.ext4 a read-only root filesystem, whole
//! images/deltas/<digest>.qcow2     what further layers change on the disk image or delta below it
//! images/tmp/                      everything unfinished
//! bases/<id>.qcow2                 immutable snapshot and clone bases
//! volumes/<name>/                  one named volume: volume.json, disk.ext4
//! networks/<name>/                 one network: network.json, members.lock, and what its running boxes find each other by
//! boxes/<id>/                      one box: box.json, disks/*.qcow2, sockets, logs, locks
//! vm/                              boot files: unpacked kernels and initramfs files, by what they were made from
//! ```

use std::path::{Path, PathBuf};

use boxlite_types::{Doing, Error, ErrorKind, Result};

use crate::durable;

/// An opened home: paths only; it holds no lock and no descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// Opens the home at `root`, creating what is missing of its layout; writes nothing when it is complete.
    ///
    /// A home that others could enter is closed to them, with a warning: it holds the secrets of boxes' environments.
    ///
    /// # Errors
    /// `Denied` on a read-only filesystem and for a home that belongs to another user; `Unsupported` when parts of it lie
    /// on different filesystems (publishing is a rename) or on one that lacks the locks and sparse files that boxlite
    /// relies on.
    pub fn open(root: &Path) -> Result<Self> {
        if root.as_os_str().is_empty() {
            return Err(Error::invalid(
                "the home's path is empty; set BOXLITE_HOME or --home to a directory",
            ));
        }
        let absolute = std::path::absolute(root).doing("resolving the home", root)?;
        durable::ensure_dir(&absolute)?;
        let home = Self { root: std::fs::canonicalize(&absolute).doing("resolving the home", &absolute)? };
        home.check_privacy()?;
        for directory in home.directories() {
            durable::ensure_dir(&directory)?;
        }
        home.check_filesystem()?;
        Ok(home)
    }

    /// Opens the home at `root` as [`Home::open`] does, but only where there is one: a mistyped path stays as it is.
    ///
    /// # Errors
    /// `NotFound` when `root` is not a directory, or one that holds neither a database nor boxes.
    pub fn open_existing(root: &Path) -> Result<Self> {
        let is_there = |name: &str| root.join(name).symlink_metadata().is_ok();
        if root.as_os_str().is_empty() || is_there("boxlite.db") || is_there("boxes") {
            return Self::open(root);
        }
        let why = if root.is_dir() { "it has no boxlite.db" } else { "there is no such directory" };
        let message = format!("{} is not a boxlite home: {why}", root.display());
        Err(Error::not_found(message).at(root))
    }

    fn directories(&self) -> [PathBuf; 6] {
        [self.blobs(), self.disk_images(), self.tmp(), self.bases(), self.boxes(), self.vm()]
    }

    /// Checks that the home belongs to this user, and closes it to all other users.
    fn check_privacy(&self) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::metadata(&self.root).doing("examining the home", &self.root)?;
        let me = rustix::process::geteuid().as_raw();
        if found.uid() != me {
            let message = format!(
                "the home {} belongs to user {}, not to user {me} who runs boxlite; \
                 its owner could change what the boxes run",
                self.root.display(),
                found.uid()
            );
            return Err(Error::new(ErrorKind::Denied, message).at(&self.root));
        }
        let mode = found.mode() & 0o7777;
        if mode & 0o077 != 0 {
            durable::restrict(&self.root, mode & 0o7700)?;
            tracing::warn!(
                "the home {} was open to other users (mode {mode:o}); it is now closed to them",
                self.root.display()
            );
        }
        Ok(())
    }

    fn check_filesystem(&self) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        let kind = rustix::fs::statfs(&self.root).doing("examining the filesystem of", &self.root)?;
        if let Some(name) = unsupported_filesystem(kind.f_type as u64) {
            let message = format!(
                "the home {} lies on {name}, which lacks the locks or sparse files boxlite relies on; \
                 use a home on ext4, xfs, btrfs or tmpfs",
                self.root.display()
            );
            return Err(Error::unsupported(message).at(&self.root));
        }
        let device = std::fs::metadata(&self.root).doing("examining", &self.root)?.dev();
        // There are none before the first delta, the first volume and the first network.
        let late = [self.deltas(), self.volumes(), self.networks()].into_iter();
        let late = late.filter(|directory| directory.symlink_metadata().is_ok());
        for directory in self.directories().into_iter().chain(late) {
            if std::fs::metadata(&directory).doing("examining", &directory)?.dev() != device {
                let message = format!(
                    "{} lies on another filesystem than its home {}; a home is one filesystem",
                    directory.display(),
                    self.root.display()
                );
                return Err(Error::unsupported(message).at(directory));
            }
        }
        Ok(())
    }

    /// The home directory itself, absolute and free of symlinks.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that says which home this is; see [`crate::HomeIdentity`].
    pub fn identity(&self) -> PathBuf {
        self.root.join("home.json")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.root.join("boxlite.db")
    }

    /// The settings file; it need not exist.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// Returns the path of the log of the home's events.
    pub fn events(&self) -> PathBuf {
        self.root.join("events.jsonl")
    }

    /// The file whose byte-range locks are the live claims on disk space.
    pub fn claims(&self) -> PathBuf {
        self.root.join("claims")
    }

    /// The file whose byte-range locks are the live claims on memory.
    pub fn memory_claims(&self) -> PathBuf {
        self.root.join("memory-claims")
    }

    /// The file whose byte-range locks are the memory of guests that wait for a box.
    pub fn pool_claims(&self) -> PathBuf {
        self.root.join("pool-claims")
    }

    /// The directory of verified blobs, by SHA-256.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("images/blobs/sha256")
    }

    /// The directory of disk images.
    pub fn disk_images(&self) -> PathBuf {
        self.root.join("images/disk-images")
    }

    /// The disk image of `digest` (lower-case hex).
    pub fn disk_image(&self, digest: &str) -> PathBuf {
        self.disk_images().join(format!("{digest}.ext4"))
    }

    /// The directory of deltas; there is none before the first delta.
    pub fn deltas(&self) -> PathBuf {
        self.root.join("images/deltas")
    }

    /// The delta of `digest` (lower-case hex).
    pub fn delta(&self, digest: &str) -> PathBuf {
        self.deltas().join(format!("{digest}.qcow2"))
    }

    /// The staging directory.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("images/tmp")
    }

    /// The directory of immutable bases.
    pub fn bases(&self) -> PathBuf {
        self.root.join("bases")
    }

    /// The directory of named volumes; there is none before the first volume.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The paths of the named volume `name`, which must be one that [`boxlite_types::is_volume_name`] accepts.
    pub fn of_volume(&self, name: &str) -> VolumePaths {
        VolumePaths { root: self.volumes().join(name) }
    }

    /// The directory of networks; there is none before the first network.
    pub fn networks(&self) -> PathBuf {
        self.root.join("networks")
    }

    /// Held exclusively while a network is being made, so that no two get the same addresses.
    pub fn networks_lock(&self) -> PathBuf {
        self.networks().join(".lock")
    }

    /// The paths of the network `name`, which must be one that [`boxlite_types::check_network_name`] accepts.
    pub fn of_network(&self, name: &str) -> NetworkPaths {
        NetworkPaths { root: self.networks().join(name) }
    }

    /// The directory of boxes.
    pub fn boxes(&self) -> PathBuf {
        self.root.join("boxes")
    }

    /// The paths of the box `id`.
    pub fn of_box(&self, id: &str) -> BoxPaths {
        BoxPaths { root: self.boxes().join(id) }
    }

    /// The directory of unpacked kernels, initramfs files, templates and findings about this host.
    pub fn vm(&self) -> PathBuf {
        self.root.join("vm")
    }
}

/// The paths of one box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxPaths {
    root: PathBuf,
}

impl BoxPaths {
    /// The names of files and directories that a new box has from the beginning.
    pub const DESCRIPTION: &str = "box.json";
    /// As above.
    pub const DISKS: &str = "disks";
    /// As above.
    pub const UNRECORDED: &str = "unrecorded";

    /// The paths of the box that lives in `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The box's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file from which the box can be given its record back.
    pub fn description(&self) -> PathBuf {
        self.root.join(Self::DESCRIPTION)
    }

    /// The directory of its qcow2 overlays.
    pub fn disks(&self) -> PathBuf {
        self.root.join(Self::DISKS)
    }

    /// An empty file that says, where there is no disk, that the box was not recorded yet and holds nobody's data.
    pub fn unrecorded(&self) -> PathBuf {
        self.root.join(Self::UNRECORDED)
    }

    /// The overlay that is its root filesystem.
    pub fn overlay(&self) -> PathBuf {
        self.disks().join("root.qcow2")
    }

    /// The directory in which its volumes with a size keep what is used of it.
    pub fn ledgers(&self) -> PathBuf {
        self.root.join("ledgers")
    }

    /// Held exclusively while the box's state is being changed (start, stop, remove).
    pub fn state_lock(&self) -> PathBuf {
        self.root.join("state.lock")
    }

    /// Held exclusively for as long as its shim or its QEMU lives.
    pub fn shim_lock(&self) -> PathBuf {
        self.root.join("shim.lock")
    }

    /// Held shared by callers that still need what a run of an auto-remove box leaves.
    pub fn attendance_lock(&self) -> PathBuf {
        self.root.join("attendance.lock")
    }

    /// Held exclusively by the process with which an auto-remove box is to end, until the box runs.
    pub fn starter_lock(&self) -> PathBuf {
        self.root.join("starter.lock")
    }

    /// Held exclusively by what waits to start the box again.
    pub fn restart_lock(&self) -> PathBuf {
        self.root.join("restart.lock")
    }

    /// The shim's control socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("shim.sock")
    }

    /// Output of the guest's kernel and agent.
    pub fn console_log(&self) -> PathBuf {
        self.root.join("console.log")
    }

    /// Output of the main process.
    pub fn main_log(&self) -> PathBuf {
        self.root.join("main.log")
    }

    /// Why the present run is paused, shown by its shim; empty while it is not.
    pub fn pause(&self) -> PathBuf {
        self.root.join("pause.json")
    }

    /// How the present run fares by the check of its health, shown by its shim; only where there is a check.
    pub fn health(&self) -> PathBuf {
        self.root.join("health.json")
    }

    /// The outcome of the last run, published by its shim.
    pub fn outcome(&self) -> PathBuf {
        self.root.join("outcome.json")
    }
}

/// The paths of one named volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePaths {
    root: PathBuf,
}

impl VolumePaths {
    /// The paths of the volume that lives in `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The volume's directory. It is locked shared while a box that mounts the volume is being recorded, and exclusively
    /// while the volume is being removed.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that says what volume it is.
    pub fn description(&self) -> PathBuf {
        self.root.join("volume.json")
    }

    /// Its ext4 filesystem. It is locked exclusively while a machine may write to it, and shared while machines read it.
    pub fn disk(&self) -> PathBuf {
        self.root.join("disk.ext4")
    }
}

/// The paths of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPaths {
    root: PathBuf,
}

impl NetworkPaths {
    /// The directory in which running boxes find each other; a new network has it from the beginning.
    pub const MEMBERS: &str = "members";

    /// The paths of the network that lives in `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The network's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that says what network it is.
    pub fn description(&self) -> PathBuf {
        self.root.join("network.json")
    }

    /// Held exclusively while a box that joins is being recorded, and while the network is being removed.
    pub fn lock(&self) -> PathBuf {
        self.root.join("members.lock")
    }

    /// The directory with a socket and a description of each box of it that runs.
    pub fn members(&self) -> PathBuf {
        self.root.join(Self::MEMBERS)
    }
}

fn unsupported_filesystem(magic: u64) -> Option<&'static str> {
    match magic & 0xffff_ffff {
        0x6969 => Some("NFS"),
        0x4d44 => Some("FAT"),
        0x2011_bab0 => Some("exFAT"),
        0x0102_1997 => Some("9p"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => Some("SMB"),
        0x5346_544e => Some("NTFS"),
        _ => None,
    }
}

#[cfg(test)]
#[path = "home_tests.rs"]
mod tests;
