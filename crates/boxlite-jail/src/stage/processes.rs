//! The processes of a jail, and who ends whom.
//!
//! ```text
//! starter (shim) ── stage ─┬─ init   (process 1 inside)
//!    host's processes      └─ program (process 2 inside)
//! ```
//!
//! - The stage is outside of the jail's process namespace: nothing in there can name it. It holds the guard, is the
//!   program's parent and ends as the program ended, once nothing of the jail is left. When its starter dies, it ends init.
//! - Init is inside. When it dies, however it dies, the kernel kills everything in the namespace. It holds the guard too:
//!   when the stage dies, it kills the program, waits until that has ended and only then lets go.
//!
//! So the guard is free only after the program has ended, whichever one of the three is killed. The program has neither
//! the guard nor a way to a process that has: signals of its own namespace do not kill init, and its seccomp filter knows no
//! call that reaches into another process.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};

use super::namespaces::c_string;
use super::opener::HeldOpens;
use super::{FAILED, filling, opener, seal};
use crate::cgroup::Cgroup;
use crate::error::{JailDoing, JailError, JailResult as Result};
use crate::filter;
use crate::spec::JailSpec;

/// The process id of the program inside, where init is 1.
const PROGRAM: i32 = 2;

/// Forks: `None` in the child.
///
/// Must be called with one thread, so that the child is a whole copy of this process.
pub(super) fn fork() -> Result<Option<Pid>> {
    // SAFETY: this process has one thread, so the child may do whatever this process could.
    #[allow(unsafe_code)]
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(std::io::Error::last_os_error()).doing("making a process of the jail"),
        0 => Ok(None),
        child => Ok(Pid::from_raw(child)),
    }
}

/// The side of a fork into a control group that this process is on.
pub(super) enum Forked {
    /// The parent.
    Parent(Pid),
    /// The child, and whether it is in the group.
    Child(std::io::Result<()>),
}

/// Forks a child that is in `cgroup`.
///
/// Must be called with one thread, as [`fork`].
pub(super) fn fork_into(cgroup: Option<&Cgroup>) -> Result<Forked> {
    let (forked, is_born_inside) = match cgroup.and_then(Cgroup::birthplace).map(fork_inside) {
        Some(Ok(forked)) => (forked, true),
        // A kernel before 5.7, or a sandbox around this process that does not know the call: it joins as any process can.
        Some(Err(_)) | None => (fork()?, false),
    };
    Ok(match forked {
        Some(child) => Forked::Parent(child),
        None => Forked::Child(cgroup.map_or(Ok(()), |cgroup| cgroup.join(is_born_inside))),
    })
}

/// Forks a child in the control group of version 2 whose directory is `group`: `None` in the child.
fn fork_inside(group: BorrowedFd<'_>) -> std::io::Result<Option<Pid>> {
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    // SAFETY: all zeros is a value of this structure of numbers.
    #[allow(unsafe_code)]
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = group.as_raw_fd() as u64;
    // SAFETY: it is a fork, of a process with one thread. glibc, which does not know of it, keeps its number of this thread: it
    // is used for locks alone, which nobody else takes in the child.
    #[allow(unsafe_code)]
    let child = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&arguments), size_of::<libc::clone_args>())
    };
    match child {
        -1 => Err(std::io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child as i32)),
    }
}

/// Ends this process at once; nothing of the copy that it is of its parent is dropped.
pub(super) fn exit(status: i32) -> ! {
    // SAFETY: it does not return, and runs nothing of this process.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(status)
    }
}

/// Is the jail's first process: ends the program when `life`, of which the stage holds the other end, breaks.
pub(super) fn be_init(spec: &JailSpec, joined: std::io::Result<()>, life: &OwnedFd) -> ! {
    let prepared = (|| -> Result<()> {
        joined.doing("joining the control group")?;
        let keep: Vec<RawFd> = spec.guard.into_iter().chain([life.as_raw_fd()]).collect();
        // Its standard streams would last as long as the box, and it has nothing to say there.
        for stdio in 0..3 {
            // SAFETY: nothing is written or read through these by this process.
            #[allow(unsafe_code)]
            unsafe {
                libc::close(stdio);
            }
        }
        seal::close_all_but(&keep)?;
        rustix::thread::set_name(c"boxlite-jail").doing("naming the jail's process")?;
        seal::become_nobody(spec.identity, seal::KeptPrivilege::Nothing)?;
        seal::filter(&filter::init_filter()?)
    })();
    if prepared.is_err() {
        exit(FAILED.into());
    }
    loop {
        let mut ends = [PollFd::new(life, PollFlags::IN)];
        if poll(&mut ends, None).is_ok_and(|ready| ready > 0) {
            break;
        }
    }
    // SAFETY: as the first process of its namespace it reaches the others of that and none besides.
    #[allow(unsafe_code)]
    unsafe {
        libc::kill(-1, libc::SIGKILL);
    }
    if let Some(program) = Pid::from_raw(PROGRAM)
        && let Ok(program) = rustix::process::pidfd_open(program, PidfdFlags::empty())
    {
        while poll(&mut [PollFd::new(&program, PollFlags::IN)], None).is_err() {}
    }
    exit(0)
}

/// Becomes the program; whatever goes wrong is written to `complaints`, which closes when the program starts.
pub(super) fn be_program(
    spec: &JailSpec,
    held: HeldOpens,
    joined: std::io::Result<()>,
    complaints: &OwnedFd,
    stage: &OwnedFd,
) -> ! {
    let error = match become_program(spec, held, joined, stage) {
        Ok(never) => match never {},
        Err(error) => error.to_string(),
    };
    let _ = rustix::io::write(complaints, error.as_bytes());
    exit(FAILED.into())
}

fn become_program(
    spec: &JailSpec,
    held: HeldOpens,
    joined: std::io::Result<()>,
    stage: &OwnedFd,
) -> Result<std::convert::Infallible> {
    super::signals::restore_without_requests()?;
    super::signals::ignore(libc::SIGXFSZ);
    joined.doing("joining the control group")?;
    let program = c_string(&spec.program)?;
    let arguments: Vec<CString> = std::iter::once(Ok(program.clone()))
        .chain(spec.arguments.iter().map(c_string))
        .collect::<Result<_>>()?;
    let variable = |(name, value): &(String, std::ffi::OsString)| {
        c_string(std::ffi::OsStr::from_bytes(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
    };
    let environment: Vec<CString> = spec.environment.iter().map(variable).collect::<Result<_>>()?;

    let gate = filter::gate(spec.limits.open_files);
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::open(program.as_c_str(), flags, rustix::fs::Mode::empty())
        .doing(format_args!("opening {} in the jail", spec.program.display()))?;
    seal::inherit_only(&spec.descriptors)?;
    let gate = seal::gate(&opened, gate)?;
    seal::limit(&spec.limits)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let own = rustix::process::getpid().as_raw_pid() as u32;
    let filter = filter::program_filter(spec.profile, spec.network, own, gate.as_raw_fd())?;
    let keep = if spec.low_ports { seal::KeptPrivilege::LowPorts } else { seal::KeptPrivilege::Nothing };
    seal::become_nobody(spec.identity, keep)?;
    filling::fill(&spec.fillings)?;
    if seal::landlock_version().is_ok() {
        seal::landlock(spec)?;
    }
    if !spec.openings.is_empty() {
        let feigned = spec.openings.iter().any(|opening| opening.feigns_holes);
        let feigned = feigned.then(|| filter::feigned(spec.limits.open_files));
        let listener = opener::listen(held, feigned).doing("having opened files answered")?;
        crate::message::send(stage, b"listener", Some(listener.as_fd()))
            .doing("having opened files answered")?;
    }
    seal::filter(&filter)?;
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(&arguments), pointers(&environment));
    // SAFETY: both arrays end with null and point at strings that outlive the call.
    #[allow(unsafe_code)]
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            gate.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    Err(std::io::Error::last_os_error()).doing(format_args!("executing {}", spec.program.display()))
}

/// A process's child, not yet waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waited(pub(super) Pid);

impl Waited {
    /// Its end, if it has ended.
    pub(super) fn try_wait(self) -> Result<Option<WaitStatus>> {
        let ended = rustix::process::waitpid(Some(self.0), WaitOptions::NOHANG);
        Ok(ended.doing("waiting for a process of the jail")?.map(|(_, status)| status))
    }

    /// Its end.
    pub(super) fn wait(self) -> Result<WaitStatus> {
        loop {
            match rustix::process::waitpid(Some(self.0), WaitOptions::empty()) {
                Ok(Some((_, status))) => return Ok(status),
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).doing("waiting for a process of the jail"),
            }
        }
    }

    /// Ends it, and with init everything in the jail.
    pub(super) fn kill(self) {
        let _ = rustix::process::kill_process(self.0, Signal::KILL);
    }
}

/// Waits until every child has ended.
pub(super) fn wait_for_all() {
    while !matches!(rustix::process::wait(WaitOptions::empty()), Err(rustix::io::Errno::CHILD)) {}
}

/// Ends this process as a process of the jail ended.
pub(super) fn end_as(status: WaitStatus) -> ! {
    if let Some(code) = status.exit_status() {
        exit(code);
    }
    let signal = status.terminating_signal().unwrap_or(libc::SIGKILL);
    let _ = super::signals::restore();
    // SAFETY: the signal is one that has just ended another process, and its effect on this one is wanted.
    #[allow(unsafe_code)]
    unsafe {
        libc::raise(signal);
    }
    exit(128 + signal)
}

/// Says why a program did not start.
pub(super) fn complaint(complaints: &OwnedFd) -> Result<()> {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match rustix::io::read(complaints, &mut buffer) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).doing("waiting for the program"),
        }
    }
    if text.is_empty() { Ok(()) } else { Err(JailError::new(String::from_utf8_lossy(&text))) }
}
