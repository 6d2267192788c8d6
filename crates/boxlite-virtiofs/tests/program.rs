//! The program as the shim starts it; what a guest sees of it is tested with boxes (`boxlite-cli/tests/cli/shared.rs`).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// Has it serve `path`, when the file that is meant is `meant`.
fn serve_file(path: &Path, meant: &File, sandbox: &str) -> Output {
    let scratch = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(scratch.path().join("socket")).unwrap();
    // QEMU hangs up at once, with which a daemon that serves ends well.
    drop(UnixStream::connect(scratch.path().join("socket")).unwrap());
    for descriptor in [listener.as_fd(), meant.as_fd()] {
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_boxlite-virtiofsd"));
    command.arg(format!("--fd={}", listener.as_raw_fd()));
    command.arg("--shared-file").arg(path).arg(format!("--file-fd={}", meant.as_raw_fd()));
    command.args(["--sandbox", sandbox, "--hard-floor=0", "--inode-floor=0"]);
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if !uid.is_root() {
        command.arg(format!("--uid-map=:0:{uid}:1:")).arg(format!("--gid-map=:0:{gid}:1:"));
    }
    command.output().unwrap()
}

/// What a box that writes above a file can do between the check and the daemon's own look at the path. Mutation tried: no
/// comparison.
#[test]
fn a_file_that_was_replaced_after_the_check_is_not_served() {
    let scratch = tempfile::tempdir().unwrap();
    let (path, away) = (scratch.path().join("file"), scratch.path().join("away"));
    std::fs::write(&path, "meant").unwrap();
    let meant = File::open(&path).unwrap();
    std::fs::rename(&path, &away).unwrap();
    for replace in [
        |path: &Path| std::fs::write(path, "another").unwrap(),
        |path: &Path| {
            std::os::unix::fs::symlink("/etc/shadow", path).unwrap();
        },
    ] {
        replace(&path);
        let output = serve_file(&path, &meant, "namespace");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("was replaced"), "{said}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_is_served_from_namespaces_alone() {
    let scratch = tempfile::NamedTempFile::new().unwrap();
    for sandbox in ["chroot", "none"] {
        let output = serve_file(scratch.path(), scratch.as_file(), sandbox);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("namespaces only"), "{said}");
    }
}

/// As a host's suspend does it, and a debugger. Mutation tried: a thread that waits by `park_timeout`, which the kernel then resumes
/// by a system call that the filter kills for.
#[test]
fn a_daemon_that_was_stopped_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let (folder, socket) = (scratch.path().join("folder"), scratch.path().join("socket"));
    std::fs::create_dir(&folder).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_boxlite-virtiofsd"));
    command.arg(format!("--fd={}", listener.as_raw_fd())).arg("--shared-dir").arg(&folder);
    let sandbox = if rustix::process::geteuid().is_root() { "namespace" } else { "none" };
    command.args(["--sandbox", sandbox, "--hard-floor=0", "--inode-floor=0", "--size=1000000"]);
    let mut daemon = command.process_group(0).spawn().unwrap();
    let group = Pid::from_child(&daemon);
    let threads = || -> Vec<PathBuf> {
        let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let tasks = processes.filter_map(|path| std::fs::read_dir(path.join("task")).ok()).flatten();
        tasks
            .filter_map(|task| Some(task.ok()?.path()))
            .filter(|task| group_of(task) == Some(group))
            .collect()
    };
    let begun = Instant::now();
    let keeper = loop {
        let named = |task: &PathBuf| std::fs::read(task.join("comm")).is_ok_and(|name| name == b"ledger\n");
        if let Some(task) = threads().into_iter().find(named) {
            break task;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come up");
        std::thread::yield_now();
    };
    for _ in 0..3 {
        for (signal, state) in [(Signal::STOP, "T"), (Signal::CONT, "S")] {
            kill_process_group(group, signal).unwrap();
            while state_of(&keeper).is_some_and(|now| now != state) {
                std::thread::yield_now();
            }
        }
        assert!(state_of(&keeper).is_some(), "it was killed");
    }
    // QEMU hangs up at once.
    drop(UnixStream::connect(&socket).unwrap());
    let status = daemon.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(test_kill_process_group(group).is_err(), "nothing of it is left");
}

/// The words of the file `stat` of a task after its name.
fn status_of(task: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(task.join("stat")).ok()?;
    let (_, words) = text.rsplit_once(')')?;
    Some(words.split_whitespace().map(str::to_owned).collect())
}

fn state_of(task: &Path) -> Option<String> {
    status_of(task).map(|words| words[0].clone())
}

fn group_of(task: &Path) -> Option<Pid> {
    Pid::from_raw(status_of(task)?[2].parse().ok()?)
}
