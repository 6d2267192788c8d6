//! Real guests with Python in them, from the image that `scripts/make-image` makes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use boxlite::OutputStream;
use boxlite_home::durable::Lock;
use boxlite_home::{BoxPaths, Home};
use boxlite_proto::{BootConfig, ExecSpec};
use boxlite_types::parse_ports;
use boxlite_vm::guest::{BootFiles, BootSources, GuestDevices, boot_files};
use boxlite_vm::net::{MacAddr, Network, RESOLVER, guest_config};
use boxlite_vm::shim::accel::{Accelerator, choose};
use boxlite_vm::shim::{
    Accel, DiskFloors, GuestOrigin, HandOver, LaunchSpec, Launched, LogCaps, Purpose, ShimClient, spawn,
};
use boxlite_vm::volume::{Shares, mounts, parse_volume, resolve};
use futures::StreamExt;

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// What all tests share.
pub(crate) struct Ground {
    pub(crate) home: Home,
    boot: BootFiles,
    base: PathBuf,
    accel: Accelerator,
    assets: PathBuf,
}

/// The ground, or `None` (said aloud, and a failure in CI) where this machine lacks what these tests need.
pub(crate) fn ground() -> Option<&'static Ground> {
    static GROUND: OnceLock<Result<Ground, String>> = OnceLock::new();
    match GROUND.get_or_init(prepare) {
        Ok(ground) => Some(ground),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "no guest can be tried: {why}");
            eprintln!("skipped: no guest can be tried: {why}");
            None
        }
    }
}

fn prepare() -> Result<Ground, String> {
    let of_environment = |name| std::env::var_os(name).map(PathBuf::from);
    let home = of_environment("HOME").unwrap_or_default();
    let assets = of_environment("BOXLITE_ASSETS").unwrap_or_else(|| home.join(".local/share/boxlite"));
    let image =
        of_environment("BOXLITE_TEST_IMAGE").unwrap_or_else(|| home.join(".local/share/boxlite/test-image"));
    let sources = BootSources { kernel_dir: assets.join("kernel"), agent: assets.join("boxlite-guest") };
    for needed in [&sources.kernel_dir, &sources.agent, &image, Path::new(QEMU)] {
        if !needed.exists() {
            return Err(format!(
                "{} is missing; run scripts/setup --test and scripts/make-image",
                needed.display()
            ));
        }
    }
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces and file owners need root".into());
    }
    let dir = scratch();
    let home = Home::open(&dir.join("home")).map_err(|error| error.to_string())?;
    let devices = GuestDevices { network: true, shares: true, ..GuestDevices::default() };
    let boot = boot_files(&sources, devices, &home.vm(), &home.tmp()).map_err(|error| error.to_string())?;
    let base = dir.join("base.ext4");
    make_root(&image, &dir.join("root"), &base);
    let accel = choose(&home, Path::new(QEMU), Accel::Auto).map_err(|error| error.to_string())?.accelerator;
    Ok(Ground { home, boot, base, accel, assets })
}

/// A directory of this process's own; statics are never dropped, so each run clears away what earlier ones left.
fn scratch() -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("devices");
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

/// Unpacks the layers of the image's `python` tag and makes a filesystem of them.
fn make_root(image: &Path, root: &Path, base: &Path) {
    let blob = |digest: &serde_json::Value| {
        let (algorithm, hex) = digest.as_str().unwrap().split_once(':').unwrap();
        image.join("blobs").join(algorithm).join(hex)
    };
    let json =
        |path: &Path| serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()).unwrap();
    let index = json(&image.join("index.json"));
    let is_python = |entry: &&serde_json::Value| {
        entry["annotations"]["org.opencontainers.image.ref.name"].as_str() == Some("python")
    };
    let manifest =
        json(&blob(&index["manifests"].as_array().unwrap().iter().find(is_python).unwrap()["digest"]));
    std::fs::create_dir_all(root).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        run(Command::new("tar").arg("-xzf").arg(blob(&layer["digest"])).arg("-C").arg(root));
    }
    run(Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-m", "0", "-d"])
        .arg(root)
        .arg(base)
        .arg("1g"));
    std::fs::remove_dir_all(root).unwrap();
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A box's directory and the specification of its run; dropping it kills what still runs.
pub(crate) struct TestBox {
    pub(crate) paths: BoxPaths,
    pub(crate) spec: LaunchSpec,
    launched: Option<Launched>,
}

impl Ground {
    /// A box without a main process, with these published ports (`None`: no network card) and volumes.
    pub(crate) fn new_box(&self, ports: Option<&[&str]>, volumes: &[String]) -> TestBox {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("box{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let paths = BoxPaths::new(self.home.boxes().join(&id));
        std::fs::create_dir_all(paths.disks()).unwrap();
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&self.base).arg(paths.overlay());
        run(&mut create);
        let volume =
            |text: &String| resolve(&parse_volume(text).unwrap(), Path::new("/"), self.home.root()).unwrap();
        let volumes: Vec<_> = volumes.iter().map(volume).collect();
        let boot = BootConfig {
            hostname: id.clone(),
            dns_servers: ports.map(|_| RESOLVER.to_string()).into_iter().collect(),
            network: ports.map(|_| guest_config(MacAddr::of_box(&id))),
            mounts: mounts(&volumes),
            ..BootConfig::default()
        };
        let ports = ports.map(|texts| texts.iter().flat_map(|text| parse_ports(text).unwrap()).collect());
        let spec = LaunchSpec {
            bases: Vec::new(),
            run_id: format!("{id}-1"),
            purpose: Purpose::Run,
            box_id: id,
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
            network: ports.map(|ports| Network { ports }),
            shares: Shares {
                volumes,
                virtiofsd: self.assets.join("bin/virtiofsd"),
                home: self.home.root().to_owned(),
            },
            boot,
            main: None,
            discard: false,
            stop_signal: 15,
            stop_timeout_ms: 2_000,
            logs: LogCaps::default(),
            floors: DiskFloors { pause_below: 0, resume_at: 0 },
        };
        TestBox { paths, spec, launched: None }
    }
}

impl TestBox {
    pub(crate) fn start(&mut self) -> boxlite::Result<Launched> {
        let lock = Lock::try_exclusive(&self.paths.shim_lock())?.expect("the box does not run yet");
        let shim = Path::new(env!("CARGO_BIN_EXE_boxlite-shim"));
        let launched = spawn(&self.spec, shim, HandOver { lock, claim: None })?;
        self.launched = Some(launched);
        Ok(launched)
    }

    pub(crate) fn client(&self) -> ShimClient {
        ShimClient::new(self.paths.clone())
    }

    pub(crate) async fn wait_up(&self) {
        assert!(self.client().wait_up().await.unwrap(), "{}", self.shim_log());
    }

    /// Starts it and waits until its guest is up.
    pub(crate) async fn up(&mut self) {
        self.start().unwrap();
        self.wait_up().await;
    }

    pub(crate) fn launched(&self) -> Launched {
        self.launched.expect("the box was started")
    }

    /// Runs a Python program in the guest as root and returns what it prints; anything on stderr fails the test.
    pub(crate) async fn python(&self, program: &str, arguments: &[&str]) -> String {
        let argv: Vec<String> = ["/usr/bin/python3", "-c", program]
            .into_iter()
            .chain(arguments.iter().copied())
            .map(Into::into)
            .collect();
        let env = vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()];
        let mut execution = self.client().exec(ExecSpec { argv, env, ..ExecSpec::default() }).await.unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some(chunk) = execution.output.next().await {
            let chunk = chunk.unwrap();
            match chunk.stream {
                OutputStream::Stdout => out.extend_from_slice(&chunk.bytes),
                OutputStream::Stderr => err.extend_from_slice(&chunk.bytes),
            }
        }
        let code = execution.control.wait().await.unwrap().code;
        assert!(
            code == 0 && err.is_empty(),
            "status {code}: {}\n{}",
            String::from_utf8_lossy(&err),
            self.shim_log()
        );
        String::from_utf8(out).unwrap()
    }

    pub(crate) async fn stop(mut self) {
        self.client().stop(None, 1000).await.unwrap();
        self.launched = None;
    }

    pub(crate) fn lock_is_free(&self) -> bool {
        Lock::try_exclusive(&self.paths.shim_lock()).unwrap().is_some()
    }

    pub(crate) fn shim_log(&self) -> String {
        std::fs::read_to_string(self.paths.root().join("shim.log")).unwrap_or_default()
    }
}

impl Drop for TestBox {
    fn drop(&mut self) {
        // Everything else of the box dies with its shim.
        let pid = self.launched.and_then(|launched| rustix::process::Pid::from_raw(launched.shim_pid as i32));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
