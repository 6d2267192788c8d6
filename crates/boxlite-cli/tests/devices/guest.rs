//! Real guests with Python in them, from the image that `scripts/make-image` makes.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use boxlite_home::BoxPaths;
use boxlite_home::durable::Lock;
use boxlite_proto::ExecSpec;
use boxlite_testkit::assets::Assets;
use boxlite_testkit::oracle;
use boxlite_testkit::program::run;
use boxlite_types::parse_ports;
use boxlite_vm::guest::GuestDevices;
use boxlite_vm::net::{MacAddr, Network, RESOLVER, guest_config};
use boxlite_vm::shim::{HandOver, LaunchSpec, Launched, ShimClient, spawn};
use boxlite_vm::volume::{OffLimits, Shares, VolumeFloors, mounts, parse_volume, resolve};

use crate::ground::{Ground, make_ext4, read_all};

/// Returns what all tests share; `None`, after saying so, where this machine lacks what these tests need.
pub(crate) fn ground() -> Option<&'static Ground> {
    static GROUND: OnceLock<Result<Ground, String>> = OnceLock::new();
    oracle::prepared(&GROUND, prepare)
}

fn prepare() -> Result<Ground, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces and file owners need root".into());
    }
    let assets = Assets::locate();
    let image = assets.test_image();
    let devices = GuestDevices { network: true, shares: true, ..GuestDevices::default() };
    Ground::prepare("devices", &[image], devices, |root, base| make_root(image, root, base))
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
    make_ext4(root, base);
    std::fs::remove_dir_all(root).unwrap();
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
        let (paths, mut spec) = self.launch_spec(&self.home.boxes());
        let off_limits = OffLimits { home: self.home.root().to_owned(), assets: Vec::new() };
        let volume =
            |text: &String| resolve(&parse_volume(text).unwrap(), Path::new("/"), &off_limits).unwrap();
        let volumes: Vec<_> = volumes.iter().map(volume).collect();
        spec.boot.mounts = mounts(&volumes);
        if let Some(texts) = ports {
            spec.boot.dns_servers = vec![RESOLVER.to_string()];
            spec.boot.network = Some(guest_config(MacAddr::of_box(&spec.box_id)));
            let ports = texts.iter().flat_map(|text| parse_ports(text).unwrap()).collect();
            spec.network = Some(Network { ports, ..Network::default() });
        }
        let floors = VolumeFloors { bytes: 1 << 30, inodes: 2000 };
        let (virtiofsd, ledgers) = (Assets::virtiofsd(), paths.ledgers());
        spec.shares = Shares { volumes, virtiofsd, off_limits, floors, ledgers };
        TestBox { paths, spec, launched: None }
    }
}

impl TestBox {
    pub(crate) fn start(&mut self) -> boxlite::Result<Launched> {
        let lock = Lock::try_exclusive(&self.paths.shim_lock())?.expect("the box does not run yet");
        let shim = Path::new(env!("CARGO_BIN_EXE_boxlite-shim"));
        let launched = spawn(
            &self.spec,
            shim,
            HandOver { lock, claim: None, memory: None, tie: None, volumes: Vec::new() },
        )?;
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
        let (out, err) = read_all(&mut execution).await;
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
