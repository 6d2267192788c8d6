//! What the tests of a jail share.
#![allow(dead_code, reason = "not every test program uses all of it")]

use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use boxlite_jail::{JailIdentity, JailSpec, Jailed, Limits, NetworkScope, Profile, View, code_of};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A user id that nobody has.
pub(crate) const RESERVED: u32 = 1_700_000_001;

const NOBODY: u32 = 65534;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs the test `name` of this program as `nobody` as well, where root runs it.
pub(crate) fn also_as_nobody(name: &str) {
    if !is_root() {
        return;
    }
    let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
    let mut command = Command::new("setpriv");
    command.args(ids).arg("--clear-groups").arg(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env("TMPDIR", "/tmp");
    let output = command.output().expect("setpriv (util-linux) is needed");
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    assert!(output.status.success(), "as nobody: {text}");
    print!("{text}");
}

/// The program that tries what an attacker would.
pub(crate) fn probe() -> PathBuf {
    env!("CARGO_BIN_EXE_boxlite-jail-test-probe").into()
}

/// A jail for `program` with nothing but the program's own files.
pub(crate) fn plain_spec(program: &Path) -> JailSpec {
    let devices = vec!["/dev/null".into(), "/dev/urandom".into()];
    JailSpec {
        program: program.to_owned(),
        arguments: Vec::new(),
        environment: vec![("LC_ALL".into(), "C".into())],
        descriptors: Vec::new(),
        openings: Vec::new(),
        fillings: Vec::new(),
        view: View { code: code_of(program, &[]).unwrap(), data: Vec::new(), devices },
        identity: JailIdentity::of_box(is_root(), RESERVED, 1, 0),
        limits: Limits { open_files: 256, file_size: 64 << 20, locked_memory: 64 << 10, address_space: None },
        profile: Profile::Tcg,
        network: NetworkScope::None,
        low_ports: false,
        cgroup: None,
        guard: None,
    }
}

/// Starts `spec` with a jailer, the program's output in a pipe.
pub(crate) fn launch(spec: &JailSpec) -> boxlite_jail::JailResult<Jailed> {
    let mut jailer = Command::new(env!("CARGO_BIN_EXE_boxlite-jail-test-jailer"));
    jailer.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    boxlite_jail::launch(jailer, spec, spawn)
}

/// Starts `spec` as [`launch`] does, from a process whose files only its own user may read.
pub(crate) fn launch_in_private(spec: &JailSpec) -> boxlite_jail::JailResult<Jailed> {
    let mut jailer = Command::new(env!("CARGO_BIN_EXE_boxlite-jail-test-jailer"));
    jailer.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: only a system call between fork and exec.
    unsafe {
        jailer.pre_exec(|| {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            Ok(())
        });
    }
    boxlite_jail::launch(jailer, spec, spawn)
}

/// Has a starter with one thread start `spec` with a copy of itself as the jailer: all that the two say, and how the jailer ended.
pub(crate) fn copied(spec: &JailSpec) -> (String, ExitStatus) {
    let mut order = tempfile::tempfile().unwrap();
    order.write_all(&serde_json::to_vec(spec).unwrap()).unwrap();
    order.rewind().unwrap();
    let mut starter = Command::new(env!("CARGO_BIN_EXE_boxlite-jail-test-jailer"));
    starter.arg("copy").stdin(order).stdout(Stdio::piped()).stderr(Stdio::piped());
    let named = spec.descriptors.iter().chain(spec.openings.iter().map(|opening| &opening.descriptor));
    // SAFETY: the tests keep them open.
    let keep: Vec<_> = named.chain(&spec.guard).map(|&fd| unsafe { BorrowedFd::borrow_raw(fd) }).collect();
    let output = spawn(starter, &keep).unwrap().wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status)
}

/// Spawns with the given descriptors under their numbers, as a shim does.
fn spawn(mut command: Command, keep: &[BorrowedFd<'_>]) -> std::io::Result<Child> {
    let keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: only system calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for &descriptor in &keep {
                let descriptor = BorrowedFd::borrow_raw(descriptor);
                rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
            }
            Ok(())
        });
    }
    command.spawn()
}

/// All that the program says, and how it ended.
pub(crate) fn lines(mut jailed: Jailed) -> (String, ExitStatus) {
    let mut text = String::new();
    jailed.jailer.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    jailed.jailer.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (text, jailed.jailer.wait().unwrap())
}

/// Whether the process has ended within `limit`.
pub(crate) fn wait(handle: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    poll(&mut [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)], Some(&limit)).unwrap() > 0
}
