//! An image's init system runs as process 1 of a process namespace of its own.
//!
//! It finds what a system's first process finds: an empty `/run` and `/tmp`, a `/proc` of its own processes, the whole tree of
//! control groups, and a terminal as its console if the box has one. It may not restart the machine: told to halt, it exits,
//! and the box ends with its status. Whatever runs in the box later is put beside it, so that it sees and signals the same processes.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use boxlite_proto::Op;
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::process::Pid;

use crate::linux::{self, ForkSide};
use crate::modprobe::{self, HELPER};

/// How long an operation waits for an init system that is just being started.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it looks meanwhile.
const INIT_INTERVAL: Duration = Duration::from_millis(2);

/// Where the child of an operation runs.
pub(super) enum ProcessPlace {
    /// Beside the agent.
    Root,
    /// As the first process of new namespaces.
    NewSystem,
    /// In those of the box's init system.
    System(Pid),
}

impl ProcessPlace {
    /// The place for `op` in a box whose init system is `init`. The box's disk is listed from outside.
    pub(super) fn of(op: &Op, init: Option<Pid>) -> Self {
        match (op, init) {
            (Op::Exec { spec, .. }, None) if spec.init_system => Self::NewSystem,
            (Op::Tree { .. }, _) | (_, None) => Self::Root,
            (_, Some(init)) => Self::System(init),
        }
    }

    /// The place for whatever runs beside the init system `init`, if the box has one.
    pub(super) fn beside(init: Option<Pid>) -> Self {
        init.map_or(Self::Root, Self::System)
    }

    /// Forks a child into the place's process namespace; the caller stays where it is.
    pub(super) fn fork(&self) -> io::Result<ForkSide> {
        const PIDS: i32 = libc::CLONE_NEWPID;
        let own = match self {
            Self::Root => return linux::fork(),
            Self::NewSystem | Self::System(_) => File::open("/proc/self/ns/pid")?,
        };
        match self {
            Self::System(init) => linux::enter_namespace(namespace(*init, "pid")?.as_fd(), PIDS)?,
            Self::Root | Self::NewSystem => linux::unshare(PIDS)?,
        }
        let side = linux::fork();
        if !matches!(side, Ok(ForkSide::Child)) {
            linux::enter_namespace(own.as_fd(), PIDS)?;
        }
        side
    }

    /// Settles the child in the place; `terminal` becomes the console of a new system.
    pub(super) fn settle(&self, terminal: Option<&OwnedFd>) -> io::Result<()> {
        match self {
            Self::Root => Ok(()),
            Self::NewSystem => found_system(terminal),
            Self::System(init) => {
                await_program(*init)?;
                linux::enter_namespace(namespace(*init, "mnt")?.as_fd(), libc::CLONE_NEWNS)
            }
        }
    }
}

fn namespace(process: Pid, kind: &str) -> io::Result<File> {
    File::open(format!("/proc/{}/ns/{kind}", process.as_raw_nonzero()))
}

/// Waits until the program of the init system has taken over, and so has its mounts.
fn await_program(init: Pid) -> io::Result<()> {
    let program = |path: &str| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let own = program("/proc/self/exe")?;
    let deadline = Instant::now() + INIT_TIMEOUT;
    while program(&format!("/proc/{}/exe", init.as_raw_nonzero()))? == own {
        if Instant::now() > deadline {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        std::thread::sleep(INIT_INTERVAL);
    }
    Ok(())
}

/// The agent's files of `/etc` that links of the image put where a system has filesystems of its own, as unattached mounts.
fn hidden_files() -> Vec<(PathBuf, OwnedFd)> {
    let hidden = |path| {
        let path = fs::canonicalize(path).ok()?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let is_hidden = path.starts_with("/run") || path.starts_with("/tmp");
        let mount = is_hidden.then(|| rustix::mount::open_tree(CWD, &path, flags))?.ok()?;
        Some((path, mount))
    };
    ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].into_iter().filter_map(hidden).collect()
}

/// Provides one of them at its path again, unless something of the user's is there.
fn provide_again(path: &Path, mount: &OwnedFd) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    File::create_new(path)?;
    Ok(rustix::mount::move_mount(mount.as_fd(), "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn found_system(terminal: Option<&OwnedFd>) -> io::Result<()> {
    // While a mount is still one for the kernel's requests, too: systemd looks into the modules by itself.
    if fs::exists(HELPER)?
        && let Err(error) = modprobe::provide()
    {
        linux::kernel_log(&format!("providing the kernel's modules failed: {error}"));
    }
    linux::unshare(libc::CLONE_NEWNS)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("proc", "/proc", "proc", plain | MountFlags::NOEXEC, None)?;
    let root = fs::metadata("/")?.dev();
    let hidden = hidden_files();
    for (path, options) in [("/run", c"mode=755"), ("/tmp", c"mode=1777")] {
        match fs::create_dir_all(path) {
            // An image that lacks it does without under --read-only.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => continue,
            made => made?,
        }
        // A mount of the user's stays.
        if fs::metadata(path)?.dev() == root {
            rustix::mount::mount("tmpfs", path, "tmpfs", plain, Some(options))?;
        }
    }
    for (path, mount) in hidden {
        if let Err(error) = provide_again(&path, &mount) {
            linux::kernel_log(&format!("providing {} again failed: {error}", path.display()));
        }
    }
    if let Some(terminal) = terminal {
        rustix::mount::mount_bind(format!("/proc/self/fd/{}", terminal.as_raw_fd()), "/dev/console")?;
    }
    linux::give_up_reboot()
}
