//! A home with a small real guest: the Debian kernel, the real agent, and a root filesystem of a static busybox.

use std::path::Path;
use std::sync::OnceLock;

use boxlite_home::BoxPaths;
use boxlite_home::admission::Claim;
use boxlite_home::durable::Lock;
use boxlite_proto::ExecSpec;
use boxlite_testkit::oracle;
use boxlite_vm::guest::GuestDevices;
use boxlite_vm::shim::{HandOver, LaunchSpec, Launched, Outcome, ShimClient, spawn};

use crate::ground::{Ground, make_ext4};

/// Returns what all tests share; `None`, after saying so, where this machine lacks what a real guest needs.
pub(crate) fn bench() -> Option<&'static Ground> {
    static BENCH: OnceLock<Result<Ground, String>> = OnceLock::new();
    let busybox = Path::new("/bin/busybox");
    oracle::prepared(&BENCH, || Ground::prepare("shim", &[busybox], GuestDevices::default(), make_root))
}

fn make_root(root: &Path, base: &Path) {
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
    make_ext4(root, base);
}

/// A box's directory and the specification of its next run.
pub(crate) struct TestBox {
    pub paths: BoxPaths,
    pub spec: LaunchSpec,
}

impl Ground {
    /// A new box in `boxes` that will run `script` in a shell, or idle.
    pub(crate) fn new_box_in(&self, boxes: &Path, script: Option<&str>) -> TestBox {
        let (paths, mut spec) = self.launch_spec(boxes);
        spec.main = script.map(shell);
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
        self.launch(claim).unwrap()
    }

    pub(crate) fn try_start(&self) -> boxlite::Result<Launched> {
        self.launch(None)
    }

    fn launch(&self, claim: Option<Claim>) -> boxlite::Result<Launched> {
        let lock = Lock::try_exclusive(&self.paths.shim_lock()).unwrap().expect("the box does not run yet");
        let shim = Path::new(env!("CARGO_BIN_EXE_boxlite-shim"));
        spawn(&self.spec, shim, HandOver { lock, claim, memory: None, tie: None, volumes: Vec::new() })
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
