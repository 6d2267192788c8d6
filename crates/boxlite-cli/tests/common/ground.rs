//! What boxes that a test starts by their shim alone, without the façade, stand on: a home, boot files and a root
//! filesystem.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use boxlite::{Execution, OutputStream};
use boxlite_home::{BoxPaths, Home};
use boxlite_proto::BootConfig;
use boxlite_testkit::assets::{self, Assets};
use boxlite_testkit::program::run;
use boxlite_vm::guest::{BootFiles, BootSources, GuestDevices, boot_files};
use boxlite_vm::shim::accel::{Accelerator, choose};
use boxlite_vm::shim::{Accel, DiskFloors, GuestOrigin, JailPolicy, LaunchSpec, LogCaps, Purpose};
use boxlite_vm::volume::Shares;
use futures::StreamExt;

pub(crate) const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// The ground that all tests of a target share.
pub(crate) struct Ground {
    pub(crate) home: Home,
    pub(crate) boot: BootFiles,
    /// The root filesystem below each box's overlay.
    pub(crate) base: PathBuf,
    pub(crate) accel: Accelerator,
    pub(crate) jail: JailPolicy,
}

impl Ground {
    /// Opens a home in a directory of the target `name` and of this process, and makes the boot files.
    ///
    /// `make_root` gets a directory to work in and the path at which it makes the root filesystem; it needs `needed`.
    /// The error says what this machine lacks.
    pub(crate) fn prepare(
        name: &str,
        needed: &[&Path],
        devices: GuestDevices,
        make_root: impl FnOnce(&Path, &Path),
    ) -> Result<Self, String> {
        let assets = Assets::locate();
        let sources = BootSources { kernel_dir: assets.kernel(), agent: assets.agent() };
        let ours = [sources.kernel_dir.as_path(), &sources.agent, Path::new(QEMU)];
        if let Some(reason) = assets::missing(&[&ours[..], needed].concat()) {
            return Err(reason);
        }
        let directory = scratch(name);
        let home = Home::open(&directory.join("home")).map_err(|error| error.to_string())?;
        let boot =
            boot_files(&sources, devices, &home.vm(), &home.tmp()).map_err(|error| error.to_string())?;
        let base = directory.join("base.ext4");
        make_root(&directory.join("root"), &base);
        let accel =
            choose(&home, Path::new(QEMU), Accel::Auto).map_err(|error| error.to_string())?.accelerator;
        let jail = JailPolicy::find(&home, Path::new(QEMU), 0x7000_0000, 1 << 16)
            .map_err(|error| error.to_string())?;
        Ok(Self { home, boot, base, accel, jail })
    }

    /// Makes a box's directory in `boxes`, with an overlay, and the specification of its first run: no main process, no
    /// network card, no volumes.
    pub(crate) fn launch_spec(&self, boxes: &Path) -> (BoxPaths, LaunchSpec) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("box{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let paths = BoxPaths::new(boxes.join(&id));
        std::fs::create_dir_all(paths.disks()).unwrap();
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&self.base).arg(paths.overlay());
        run(&mut create);
        let spec = LaunchSpec {
            bases: Vec::new(),
            box_id: id.clone(),
            run_id: format!("{id}-1"),
            purpose: Purpose::Run,
            box_dir: paths.root().to_owned(),
            overlay: paths.overlay(),
            backing: Some(self.base.clone()),
            qemu: QEMU.into(),
            kernel: self.boot.kernel.clone(),
            initrd: self.boot.initramfs.clone(),
            modules: None,
            kernel_arguments: Vec::new(),
            group: None,
            stays_in_group: false,
            boot_timeout_ms: None,
            accel: self.accel,
            cpus: 1,
            cpu_percent: 100,
            memory_bytes: 256 << 20,
            nested: false,
            origin: GuestOrigin::Boot,
            boot_reason: None,
            boot: BootConfig { hostname: id, ..BootConfig::default() },
            health_retries: 0,
            main: None,
            discard: false,
            auto_remove: false,
            keeper: None,
            stop_signal: 15,
            stop_timeout_ms: 2_000,
            logs: LogCaps::default(),
            floors: DiskFloors { pause_below: 0, resume_at: 0 },
            jail: Some(self.jail.clone()),
            disk_quota: None,
            disk_io: None,
            idle_timeout_ms: None,
            network: None,
            shares: Shares::default(),
            disks: Vec::new(),
        };
        (paths, spec)
    }
}

/// Returns a directory of this process's own; statics are never dropped, so each run clears away what earlier ones left.
fn scratch(name: &str) -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let is_alive = |name: &std::ffi::OsStr| Path::new("/proc").join(name).exists();
    for left in std::fs::read_dir(&all).into_iter().flatten().flatten() {
        if !is_alive(&left.file_name()) {
            let _ = std::fs::remove_dir_all(left.path());
        }
    }
    let own = all.join(std::process::id().to_string());
    std::fs::create_dir_all(&own).unwrap();
    own
}

/// Makes an ext4 of 1 GiB at `base` of what is in `root`.
pub(crate) fn make_ext4(root: &Path, base: &Path) {
    run(Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-m", "0", "-d"])
        .arg(root)
        .arg(base)
        .arg("1g"));
}

/// Returns all of an execution's output by stream.
pub(crate) async fn read_all(execution: &mut Execution) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(chunk) = execution.output.next().await {
        let chunk = chunk.unwrap();
        match chunk.stream {
            OutputStream::Stdout => out.extend_from_slice(&chunk.bytes),
            OutputStream::Stderr => err.extend_from_slice(&chunk.bytes),
        }
    }
    (out, err)
}
