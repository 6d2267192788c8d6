//! A home of its own for each test, and the machine they all need.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::process::Pid;
use tempfile::TempDir;

use crate::output::Output;
use crate::reach::Reach;

/// What `scripts/test` sets up.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) assets: PathBuf,
    pub(crate) layout: PathBuf,
}

impl Machine {
    /// What this machine has; `None`, after saying so, where virtual machines can't be run.
    pub(crate) fn find() -> Option<Self> {
        let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
        // Programs are in target/PROFILE, assets in target/assets.
        let usual = Path::new(program()).ancestors().nth(2).map(|target| target.join("assets"));
        let assets = named("BOXLITE_ASSETS").or(usual)?;
        let layout = named("BOXLITE_TEST_IMAGE").unwrap_or_else(|| assets.join("test-image"));
        if assets.join("kernel").exists() && layout.join("index.json").exists() {
            return Some(Self { assets, layout });
        }
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "run scripts/test: {} lacks assets",
            assets.display()
        );
        println!("SKIPPED: {} or {} is incomplete; run scripts/test", assets.display(), layout.display());
        None
    }
}

pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_boxlite")
}

/// A home, removed with all of its boxes at the end.
pub(crate) struct Home {
    /// How commands find it, from the first one on.
    reach: OnceLock<Reach>,
    directory: TempDir,
    machine: Option<Machine>,
}

impl Home {
    /// A home on a machine that may lack everything.
    pub(crate) fn bare() -> Self {
        let directory = TempDir::with_prefix("boxlite-cli-").expect("making a home");
        Self { reach: OnceLock::new(), directory, machine: None }
    }

    /// A home where boxes can run.
    pub(crate) fn able() -> Option<Self> {
        let mut home = Self::bare();
        home.machine = Some(Machine::find()?);
        Some(home)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn reach(&self) -> &Reach {
        self.reach.get_or_init(|| Reach::of(self.path(), self.machine.as_ref()))
    }

    /// The test image of that tag.
    pub(crate) fn image(&self, tag: &str) -> String {
        let layout = self.machine.as_ref().map(|machine| machine.layout.display().to_string());
        format!("oci:{}:{tag}", layout.expect("an able home"))
    }

    pub(crate) fn layout(&self) -> &Path {
        &self.machine.as_ref().expect("an able home").layout
    }

    /// `boxlite ARGUMENTS`, not yet started, with pipes and no standard input.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).env_remove("BOXLITE_LOG");
        self.reach().lead(&mut command);
        if let Some(machine) = &self.machine {
            command.env("BOXLITE_ASSETS", &machine.assets);
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
        let status = std::fs::read_to_string(format!("/proc/{qemu}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
        Some((Pid::from_raw(qemu)?, Pid::from_raw(parent)?))
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
