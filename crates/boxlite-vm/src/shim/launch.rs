//! The orders of a shim: everything about one run of one box, decided beforehand.

use std::path::{Path, PathBuf};

use boxlite_home::Home;
use boxlite_home::admission::Thresholds;
use boxlite_jail::View;
use boxlite_proto::{BootConfig, ExecSpec, GuestStart};
use boxlite_types::{Error, Result};
use serde::{Deserialize, Serialize};

use super::accel::{self, Accelerator};
use super::quota::DiskQuota;
use crate::net::Network;
use crate::volume::{NamedDisk, Shares};

/// One run of one box. It travels to the shim through a memory file and is never written to disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The box.
    pub box_id: String,
    /// This run; the outcome carries it, so that the outcome of an earlier run is never taken for this one's.
    pub run_id: String,
    /// The name of the box's control group where that was made before its guest had a box; else it is the box's id.
    #[serde(default)]
    pub group: Option<String>,
    /// The run's purpose.
    pub purpose: Purpose,
    /// `boxes/<id>/`, absolute.
    pub box_dir: PathBuf,
    /// The qcow2 overlay that is the root disk, absolute.
    pub overlay: PathBuf,
    /// The immutable qcow2 files (bases, deltas) between overlay and disk image, nearest first.
    pub bases: Vec<PathBuf>,
    /// The disk image below it: given to QEMU by name, so that the path in the overlay's header, which is stale in a
    /// home that was moved, is never followed. None below the disk of an imported box, which holds all of it.
    pub backing: Option<PathBuf>,
    /// `qemu-system-x86_64`, absolute.
    pub qemu: PathBuf,
    /// The guest's kernel, as an ELF image.
    pub kernel: PathBuf,
    /// The initramfs with the guest agent.
    pub initrd: PathBuf,
    /// The image of the kernel's modules, which all boxes of this host read.
    #[serde(default)]
    pub modules: Option<PathBuf>,
    /// More arguments for the guest's kernel.
    pub kernel_arguments: Vec<String>,
    /// Milliseconds that the guest may take to come up, where that is not the usual time.
    pub boot_timeout_ms: Option<u64>,
    /// The accelerator of the guest's code.
    pub accel: Accelerator,
    /// Virtual processors.
    pub cpus: u32,
    /// Most processor time of the box, in hundredths of one processor.
    pub cpu_percent: u32,
    /// Whether the box's processes stay in the control group of their starter instead of one of the box's own.
    #[serde(default)]
    pub stays_in_group: bool,
    /// The guest's memory in bytes.
    pub memory_bytes: u64,
    /// Whether the guest sees the processor's virtualisation.
    pub nested: bool,
    /// The network card and what it is connected to; `None` gives the box no network card.
    pub network: Option<Network>,
    /// Directories of the host that the box mounts.
    pub shares: Shares,
    /// Named volumes, in the order of the open files that are handed over beside this.
    pub disks: Vec<NamedDisk>,
    /// How the guest comes to where it waits for its box.
    pub origin: GuestOrigin,
    /// Why it boots, where it is not restored.
    #[serde(default)]
    pub boot_reason: Option<String>,
    /// How the guest comes up then.
    pub boot: BootConfig,
    /// Failures in a row that make the box unhealthy, where [`BootConfig::health`] has it probed.
    #[serde(default)]
    pub health_retries: u32,
    /// The main process, with whose end the box ends; `None` makes a box that serves execs until it is stopped.
    pub main: Option<ExecSpec>,
    /// Whether the disk goes with the box once its main process has ended: nothing is flushed to it then.
    pub discard: bool,
    /// Whether the box is removed once this run has ended: [`super::ShimLaunch::run`] returns it for that.
    pub auto_remove: bool,
    /// The keeper that looks after the box once this run has ended; `None` leaves it as it is then.
    pub keeper: Option<KeeperSpec>,
    /// Signal number that begins a stop.
    pub stop_signal: i32,
    /// Milliseconds between that signal and SIGKILL, where the stopper does not say.
    pub stop_timeout_ms: u64,
    /// Bounds of what the guest's words take on the host's disk.
    pub logs: LogCaps,
    /// When the guest is paused for the sake of the host's disk.
    pub floors: DiskFloors,
    /// The jail that QEMU runs in; `None` leaves it with its own sandbox alone.
    pub jail: Option<JailPolicy>,
    /// The overlay's bound on the host's disk, at the beginning; `None` leaves that to the floors.
    pub disk_quota: Option<DiskQuota>,
    /// Milliseconds after which the box is stopped when nobody uses it; `None` lets it run.
    pub idle_timeout_ms: Option<u64>,
    /// Bytes per second that the guest may read from and write to its disk together; `None` does not bound them.
    pub disk_io: Option<u64>,
}

impl LaunchSpec {
    /// The name of the box's control group.
    pub(super) fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(&self.box_id)
    }

    /// How the guest comes up, for people.
    pub(super) fn guest_start(&self) -> GuestStart {
        let restored = matches!(self.origin, GuestOrigin::Template(_));
        GuestStart { restored, reason: self.boot_reason.clone().filter(|_| !restored) }
    }

    /// Whether the box's shares are plugged into its guest once that waits for its box, because QEMU neither writes nor reads
    /// the state of one that has them.
    pub(super) fn plugs_shares(&self) -> bool {
        !self.shares.volumes.is_empty() && self.origin != GuestOrigin::Boot
    }

    /// The home that the box lies in, as `boxes/<id>`. A shim makes none where there is none.
    pub(super) fn home(&self) -> Result<Home> {
        let root = self.box_dir.ancestors().nth(2);
        Home::open_existing(
            root.ok_or_else(|| Error::bug(format!("{} is not in a home", self.box_dir.display())))?,
        )
    }
}

/// The part of a jail that is the same for all boxes of a home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailPolicy {
    /// The files of the host that QEMU sees.
    pub view: View,
    /// The first of the user ids that root gives to running boxes, each to one box.
    pub first_id: u32,
    /// How many there are.
    pub ids: u32,
}

impl JailPolicy {
    /// The policy for the QEMU at `qemu`, whose files are looked up once and then remembered in `home`.
    ///
    /// # Errors
    /// `Unsupported` when the files that QEMU needs cannot be found.
    pub fn find(home: &Home, qemu: &Path, first_id: u32, ids: u32) -> Result<Self> {
        match accel::examine(home, qemu)?.view {
            Ok(view) => Ok(Self { view, first_id, ids }),
            Err(trouble) => Err(Error::unsupported(format!(
                "no jail can be built for QEMU: {trouble}; the setting jail = off starts boxes without one"
            ))),
        }
    }
}

/// How a guest comes to wait for its box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestOrigin {
    /// It boots.
    Boot,
    /// It boots, and what it has become is kept for others.
    BootAndKeep(TemplateKeep),
    /// It is restored from the template at this path.
    Template(PathBuf),
}

/// The orders of a keeper at launch. Without one, no process is left when the run has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperSpec {
    /// The facts that the starter of the box needs to start it again; the shim does not look into them.
    pub starter: serde_json::Value,
}

/// Where a template is to be, and what it must leave of the host's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateKeep {
    /// The template's path.
    pub path: PathBuf,
    /// Nothing is written that crosses their hard floor.
    pub room: Thresholds,
}

/// The purpose of a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A run of its box.
    Run,
    /// Access to the files of a stopped box: it leaves the main process's log alone, and ends when the last client
    /// has disconnected.
    Maintenance,
}

/// Bytes at which a log is rotated; one old log is kept, so each may take twice this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCaps {
    /// The guest's serial console.
    pub console: u64,
    /// The main process's output.
    pub main: u64,
}

impl Default for LogCaps {
    fn default() -> Self {
        Self { console: 1 << 20, main: 16 << 20 }
    }
}

/// Free bytes (`f_bavail`) of the overlay's filesystem below which the guest is paused, and above which it resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFloors {
    /// Below this the guest is paused; 0 relies on the disk being full alone.
    pub pause_below: u64,
    /// At or above this it resumes; more than `pause_below`, so that it does not flutter.
    pub resume_at: u64,
}

#[cfg(test)]
impl LaunchSpec {
    /// One for tests.
    pub(crate) fn sample() -> Self {
        Self {
            box_id: "b1".into(),
            run_id: "r1".into(),
            group: None,
            purpose: Purpose::Run,
            box_dir: "/h/boxes/b1".into(),
            overlay: "/h/boxes/b1/disks/root.qcow2".into(),
            bases: Vec::new(),
            backing: Some("/h/images/disk-images/d.ext4".into()),
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            kernel: "/h/vm/vmlinux".into(),
            initrd: "/h/vm/initramfs".into(),
            modules: None,
            kernel_arguments: Vec::new(),
            boot_timeout_ms: None,
            accel: Accelerator::Tcg { tsc_khz: 2_800_000 },
            cpus: 2,
            cpu_percent: 200,
            stays_in_group: false,
            memory_bytes: 256 << 20,
            nested: false,
            network: None,
            shares: Shares::default(),
            disks: Vec::new(),
            origin: GuestOrigin::Boot,
            boot_reason: None,
            boot: BootConfig::default(),
            health_retries: 0,
            main: None,
            discard: false,
            auto_remove: false,
            keeper: None,
            stop_signal: 15,
            stop_timeout_ms: 10_000,
            logs: LogCaps::default(),
            floors: DiskFloors { pause_below: 0, resume_at: 0 },
            jail: None,
            disk_quota: None,
            disk_io: None,
            idle_timeout_ms: None,
        }
    }
}
