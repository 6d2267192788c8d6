//! A home with a small real guest: the Debian kernel, the real agent, and a root filesystem of a static busybox.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use boxlite_home::admission::Claim;
use boxlite_home::durable::Lock;
use boxlite_home::{BoxPaths, Home};
use boxlite_proto::{BootConfig, ExecSpec};
use boxlite_vm::guest::{BootFiles, BootSources, GuestDevices, boot_files};
use boxlite_vm::shim::accel::{Accelerator, choose};
use boxlite_vm::shim::{
    Accel, DiskFloors, GuestOrigin, HandOver, LaunchSpec, Launched, LogCaps, Outcome, Purpose, ShimClient,
    spawn,
};

pub(crate) const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// What all tests share: made once per run of the test binary.
pub(crate) struct Bench {
    _dir: tempfile::TempDir,
    pub home: Home,
    pub boot: BootFiles,
    pub base: PathBuf,
    pub accel: Accelerator,
}

/// The bench, or `None` (said aloud, and a failure in CI) where this machine lacks what a real guest needs.
pub(crate) fn bench() -> Option<&'static Bench> {
    static BENCH: OnceLock<Result<Bench, String>> = OnceLock::new();
    match BENCH.get_or_init(make) {
        Ok(bench) => Some(bench),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "a real guest cannot be started: {why}");
            eprintln!("skipped: a real guest cannot be started: {why}");
            None
        }
    }
}

fn make() -> Result<Bench, String> {
    let assets = std::env::var_os("BOXLITE_ASSETS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".local/share/boxlite"),
        PathBuf::from,
    );
    let sources = BootSources { kernel_dir: assets.join("kernel"), agent: assets.join("boxlite-guest") };
    for needed in [&sources.kernel_dir, &sources.agent, Path::new(QEMU), Path::new("/bin/busybox")] {
        if !needed.exists() {
            return Err(format!("{} is missing; run scripts/setup --test", needed.display()));
        }
    }
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let home = Home::open(&dir.path().join("home")).map_err(|error| error.to_string())?;
    let boot = boot_files(&sources, GuestDevices::default(), &home.vm(), &home.tmp())
        .map_err(|error| error.to_string())?;
    let base = dir.path().join("base.ext4");
    make_root(dir.path(), &base);
    let accel = choose(&home, Path::new(QEMU), Accel::Auto).map_err(|error| error.to_string())?.accelerator;
    Ok(Bench { _dir: dir, home, boot, base, accel })
}

fn make_root(scratch: &Path, image: &Path) {
    let root = scratch.join("root");
    for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in [
        "sh",
        "true",
        "false",
        "cat",
        "dd",
        "sleep",
        "echo",
        "sha256sum",
        "sync",
        "yes",
        "head",
        "kill",
        "ls",
        "rm",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
    run(Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-m", "0", "-d"])
        .arg(&root)
        .arg(image)
        .arg("1g"));
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A box's directory and the specification of its next run.
pub(crate) struct TestBox {
    pub paths: BoxPaths,
    pub spec: LaunchSpec,
}

impl Bench {
    /// A new box in `boxes` that will run `script` in a shell, or idle.
    pub(crate) fn new_box_in(&self, boxes: &Path, script: Option<&str>) -> TestBox {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let id = format!("box{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
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
            backing: self.base.clone(),
            qemu: QEMU.into(),
            kernel: self.boot.kernel.clone(),
            initrd: self.boot.initramfs.clone(),
            kernel_arguments: Vec::new(),
            accel: self.accel,
            cpus: 1,
            memory_bytes: 256 << 20,
            origin: GuestOrigin::Boot,
            boot: BootConfig { hostname: id, ..BootConfig::default() },
            main: script.map(shell),
            discard: false,
            stop_signal: 15,
            stop_timeout_ms: 2_000,
            logs: LogCaps::default(),
            floors: DiskFloors { pause_below: 0, resume_at: 0 },
            network: None,
            shares: boxlite_vm::volume::Shares::default(),
        };
        TestBox { paths, spec }
    }

    /// A new box in the bench's home.
    pub(crate) fn new_box(&self, script: Option<&str>) -> TestBox {
        self.new_box_in(&self.home.boxes(), script)
    }
}

/// `sh -c script`.
pub(crate) fn shell(script: &str) -> ExecSpec {
    let argv = ["/bin/sh", "-c", script].map(String::from).to_vec();
    ExecSpec { argv, env: vec!["PATH=/bin".into()], ..ExecSpec::default() }
}

impl TestBox {
    pub(crate) fn start(&self) -> Launched {
        self.start_with(None)
    }

    pub(crate) fn start_with(&self, claim: Option<Claim>) -> Launched {
        let lock = Lock::try_exclusive(&self.paths.shim_lock()).unwrap().expect("the box does not run yet");
        let shim = Path::new(env!("CARGO_BIN_EXE_boxlite-shim"));
        spawn(&self.spec, shim, HandOver { lock, claim }).unwrap()
    }

    pub(crate) fn client(&self) -> ShimClient {
        ShimClient::new(self.paths.clone())
    }

    /// Waits until the box has ended, and reads its outcome.
    pub(crate) async fn outcome(&self) -> Option<Outcome> {
        self.client().wait().await.unwrap();
        Outcome::read(&self.paths, &self.spec.run_id).unwrap()
    }

    pub(crate) fn lock_is_free(&self) -> bool {
        Lock::try_exclusive(&self.paths.shim_lock()).unwrap().is_some()
    }

    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.paths.console_log()).unwrap_or_default()).into_owned()
    }

    pub(crate) fn shim_log(&self) -> String {
        std::fs::read_to_string(self.paths.root().join("shim.log")).unwrap_or_default()
    }
}
