//! A home of its own for each test.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use boxlite_testkit::assets::Assets;
use boxlite_testkit::program::Output;
use rustix::process::Pid;
use tempfile::TempDir;

use crate::reach::Reach;

pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_boxlite")
}

/// Has `command` take no notice of how full this machine's own disk is, whose last tenth would make each start warn, collect
/// garbage and keep no template.
pub(crate) fn on_any_disk(command: &mut Command) {
    command.env("BOXLITE_SOFT_PERCENT", "0");
}

/// A home, removed with all of its boxes at the end.
pub(crate) struct Home {
    /// How commands find it, from the first one on.
    reach: OnceLock<Reach>,
    directory: TempDir,
    assets: Option<Assets>,
}

impl Home {
    /// A home on a machine that may lack everything.
    pub(crate) fn bare() -> Self {
        // As boxlite makes homes: one that is open to other users would be reported on standard error.
        let private = std::fs::Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new()
            .prefix("boxlite-cli-")
            .permissions(private)
            .tempdir()
            .expect("making a home");
        Self { reach: OnceLock::new(), directory, assets: None }
    }

    /// A home where boxes can run.
    pub(crate) fn able() -> Option<Self> {
        let mut home = Self::bare();
        home.assets = Some(Assets::require()?);
        Some(home)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn reach(&self) -> &Reach {
        self.reach.get_or_init(|| Reach::of(self.path(), self.assets.as_ref()))
    }

    /// The test image of that tag.
    pub(crate) fn image(&self, tag: &str) -> String {
        self.assets.as_ref().expect("an able home").reference(tag)
    }

    pub(crate) fn layout(&self) -> &Path {
        self.assets.as_ref().expect("an able home").test_image()
    }

    /// `boxlite ARGUMENTS`, not yet started, with pipes and no standard input.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).env_remove("BOXLITE_LOG");
        on_any_disk(&mut command);
        self.reach().lead(&mut command);
        if let Some(assets) = &self.assets {
            command.env("BOXLITE_ASSETS", assets.directory());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().expect("starting boxlite")
    }

    /// Runs `boxlite ARGUMENTS` to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Output::of(self.start(arguments))
    }

    /// The same with that standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: Vec<u8>) -> Output {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("starting boxlite");
        let mut stdin = child.stdin.take().expect("a pipe");
        let writer = std::thread::spawn(move || {
            // A program that does not read to the end is judged by what it prints.
            let _ = stdin.write_all(&input);
        });
        let output = Output::of(child);
        writer.join().expect("writing standard input");
        output
    }

    /// A running box that does nothing but serve execs.
    pub(crate) fn sleeper(&self, name: &str) {
        self.run(&["run", "-d", "--name", name, &self.image("mini"), "sleep", "infinity"]).ok();
    }

    /// The process ids of a box's QEMU and of the shim that owns it.
    pub(crate) fn processes(id: &str) -> Option<(Pid, Pid)> {
        let qemu = std::fs::read_dir("/proc").expect("/proc").flatten().find_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let line =
                String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).ok()?).into_owned();
            (line.contains("qemu-system") && line.contains(id)).then_some(pid)
        })?;
        let qemu = Pid::from_raw(qemu)?;
        Some((qemu, Self::parent(Self::parent(qemu)?)?))
    }

    /// The parent of a process.
    pub(crate) fn parent(process: Pid) -> Option<Pid> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).ok()?;
        Pid::from_raw(status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.run(&["ls", "-a"]).text());
        }
        let ids = self.run(&["ls", "-aq", "--no-trunc"]).text();
        for id in ids.split_whitespace() {
            self.run(&["rm", "-f", id]);
        }
    }
}
