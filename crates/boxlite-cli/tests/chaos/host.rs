//! A small host: a home on a filesystem that can be filled to the last block, and another for a volume.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boxlite_home::BoxPaths;
use boxlite_proto::ShimStatus;
use boxlite_testkit::assets::Assets;
use boxlite_testkit::filesystem::SmallFilesystem;
use boxlite_testkit::oracle;
use boxlite_testkit::program::Output;
use boxlite_vm::shim::ShimClient;
use tokio::runtime::Runtime;

pub(crate) const MIB: u64 = 1 << 20;

/// Floors that fit a filesystem of [`SmallHost::BYTES`].
const CONFIG: &str = r#"
hard_floor = "48MiB"
soft_floor = "64MiB"
soft_percent = 0
inode_floor = 100
emergency_floor = "24MiB"
claim = "8MiB"
grace = "0s"
disk_size = "512MiB"
"#;

/// Free bytes below which boxes are paused, and at which they resume.
pub(crate) const PAUSED_BELOW: u64 = 24 * MIB;
pub(crate) const RESUMED_AT: u64 = 36 * MIB;

/// The filesystems, and how `boxlite` is called there.
pub(crate) struct SmallHost {
    assets: Assets,
    disk: SmallFilesystem,
    shared: SmallFilesystem,
    runtime: Runtime,
}

impl SmallHost {
    const BYTES: u64 = 768 * MIB;
    const SHARED_BYTES: u64 = 96 * MIB;

    /// `None`, after saying so, where boxes cannot run or nothing can be mounted.
    pub(crate) fn mount() -> Option<Self> {
        let assets = Assets::require()?;
        if oracle::skip_unless_root("mounting a small filesystem") {
            return None;
        }
        for program in ["qemu-img", "e2fsck"] {
            if !oracle::require(program) {
                return None;
            }
        }
        let disk = SmallFilesystem::ext4(Self::BYTES, &["-m", "0"])?;
        let shared = SmallFilesystem::ext4(Self::SHARED_BYTES, &["-m", "0"])?;
        std::fs::create_dir(disk.path().join("home")).unwrap();
        std::fs::set_permissions(disk.path().join("home"), PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(disk.path().join("home/config.toml"), CONFIG).unwrap();
        std::fs::create_dir(shared.path().join("folder")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Some(Self { assets, disk, shared, runtime })
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.disk.path().join("home")
    }

    /// The directory that boxes have as a volume.
    pub(crate) fn folder(&self) -> PathBuf {
        self.shared.path().join("folder")
    }

    pub(crate) fn image(&self, tag: &str) -> String {
        self.assets.reference(tag)
    }

    /// `boxlite ARGUMENTS`, not yet started, with pipes and no standard input.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boxlite"));
        command.args(arguments).env("BOXLITE_HOME", self.home());
        command.env("BOXLITE_ASSETS", self.assets.directory());
        for floor in ["SOFT_PERCENT", "SOFT_FLOOR", "HARD_FLOOR", "EMERGENCY_FLOOR", "LOG"] {
            command.env_remove(format!("BOXLITE_{floor}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `boxlite ARGUMENTS` to its end.
    pub(crate) fn boxlite(&self, arguments: &[&str]) -> Output {
        Output::of(self.command(arguments).spawn().unwrap())
    }

    /// The status of a running box.
    pub(crate) fn status(&self, id: &str) -> Option<ShimStatus> {
        let client = ShimClient::new(BoxPaths::new(self.home().join("boxes").join(id)));
        self.runtime.block_on(client.status()).ok().flatten()
    }

    pub(crate) fn free(&self) -> u64 {
        free(self.disk.path())
    }

    /// Fills the home's filesystem until at most so many bytes are free.
    pub(crate) fn fill(&self, left: u64) {
        fill(self.disk.path(), left);
    }

    /// Gives back what [`Self::fill`] took, until so many bytes are free.
    pub(crate) fn shrink(&self, left: u64) {
        let filler = self.disk.path().join("filler");
        let taken = std::fs::metadata(&filler).map_or(0, |metadata| metadata.len());
        let give = left.saturating_sub(self.free()).min(taken);
        std::fs::File::options().write(true).open(&filler).unwrap().set_len(taken - give).unwrap();
        commit(self.disk.path());
    }

    /// Gives back everything that [`Self::fill`] took.
    pub(crate) fn relieve(&self) {
        relieve(self.disk.path());
    }

    /// The same as [`Self::fill`] for the volume's filesystem.
    pub(crate) fn fill_folder(&self, left: u64) {
        fill(self.shared.path(), left);
    }

    /// The same as [`Self::relieve`] for the volume's filesystem.
    pub(crate) fn relieve_folder(&self) {
        relieve(self.shared.path());
    }
}

fn free(root: &Path) -> u64 {
    boxlite_home::durable::free_space(root).unwrap().bytes
}

/// Removed extents only count as free once the journal is committed.
fn commit(root: &Path) {
    rustix::fs::syncfs(std::fs::File::open(root).unwrap()).unwrap();
}

/// Boxes write meanwhile, so what is free is looked at again.
fn fill(root: &Path, left: u64) {
    let filler = std::fs::File::options()
        .create(true)
        .append(true)
        .open(root.join("filler"))
        .expect("an inode is left for what fills the disk");
    let slack = if left == 0 { 64 << 10 } else { left };
    let mut share = 1;
    while free(root) > slack && share < 1 << 20 {
        let length = filler.metadata().unwrap().len();
        let more = (free(root).saturating_sub(left) / share).max(4096);
        let flags = rustix::fs::FallocateFlags::empty();
        // Somebody else has taken a part of it already.
        if rustix::fs::fallocate(&filler, flags, length, more).is_err() {
            share *= 2;
        }
    }
}

fn relieve(root: &Path) {
    let _ = std::fs::remove_file(root.join("filler"));
    commit(root);
}
