//! The forked child: it becomes a program, or carries out one operation and reports the result.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use boxlite_proto::{BootConfig, ExecFailure, ExecSpec, Op, OpEvent};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::ends::ChildEnds;
use super::init_system::ProcessPlace;
use super::{
    copy_in, copy_out, dial, freeze, limits, op_error::OpError, processes, program, stat, tree, user,
};
use crate::linux;

/// Most bytes read of `/etc/passwd` and `/etc/group`.
const MAX_USER_LIST: u64 = 4 << 20;

/// Why a program did not start: its kind, and one sentence.
pub(super) type ExecError = (ExecFailure, String);

/// Carries out `op`, writes its result to `report` if it has one, and never returns.
pub(super) fn carry_out(
    op: Op,
    place: &ProcessPlace,
    config: &BootConfig,
    ends: ChildEnds,
    mut report: File,
) -> ! {
    let id = op.id();
    let settled = place.settle(ends.terminal.then_some(&ends.stdin));
    let event = match (op, settled) {
        (Op::Exec { .. }, Err(trouble)) => {
            let message = format!("joining the box's init system failed: {trouble}");
            OpEvent::ExecFailed { id, kind: ExecFailure::Resources, message }
        }
        (Op::Exec { spec, .. }, Ok(())) => {
            let (kind, message) = become_program(&spec, config, ends);
            OpEvent::ExecFailed { id, kind, message }
        }
        (_, Err(trouble)) => OpError::std_io("joining the box's init system", &trouble).into_event(id),
        (Op::Dial { port, .. }, Ok(())) => match dial(port, ends, &report) {
            Ok(connection) => {
                // Closed without a word, the report says that the connection stands.
                drop(report);
                connection.relay();
                linux::exit_child(0)
            }
            Err(error) => error.into_event(id),
        },
        (op, Ok(())) => operate(op, ends, &report).unwrap_or_else(|error| error.into_event(id)),
    };
    let written = serde_json::to_writer(&mut report, &event).is_ok() && report.flush().is_ok();
    linux::exit_child(i32::from(!written))
}

fn dial(port: u16, ends: ChildEnds, report: &File) -> Result<dial::ServiceConnection, OpError> {
    prepare_operation(ends, report)?;
    dial::ServiceConnection::open(port)
}

fn operate(op: Op, ends: ChildEnds, report: &File) -> Result<OpEvent, OpError> {
    let id = op.id();
    prepare_operation(ends, report)?;
    match op {
        Op::CopyIn { dest, keep_owners, .. } => {
            let archive = copy_in::Upload::on_standard_input()
                .map_err(|e| OpError::std_io("preparing the operation", &e))?;
            let bytes = copy_in::unpack(archive, &dest, keep_owners)?;
            Ok(OpEvent::Copied { id, bytes })
        }
        Op::CopyOut { path, follow, .. } => {
            let bytes = copy_out::pack(io::stdout().lock(), &path, follow)?;
            Ok(OpEvent::Copied { id, bytes })
        }
        Op::Tree { .. } => {
            let input = copy_in::Upload::on_standard_input()
                .map_err(|e| OpError::std_io("preparing the operation", &e))?;
            let bytes = tree::exchange(io::stdout().lock(), input)?;
            Ok(OpEvent::Copied { id, bytes })
        }
        Op::Freeze { timeout_ms, .. } => freeze::hold(id, timeout_ms),
        Op::Stat { path, .. } => Ok(OpEvent::Stat { id, stat: stat::describe(&path)? }),
        Op::Processes { .. } => Ok(OpEvent::Processes { id, list: processes::list(&list("/etc/passwd")) }),
        Op::Exec { .. }
        | Op::Dial { .. }
        | Op::Signal { .. }
        | Op::Resize { .. }
        | Op::Metrics { .. }
        | Op::Ping { .. } => Err(OpError::invalid("the operation does not run in a process".to_owned())),
    }
}

fn prepare_operation(ends: ChildEnds, report: &File) -> Result<(), OpError> {
    linux::reset_signals();
    take_standard_descriptors(ends).map_err(|e| OpError::io("preparing the operation", &e))?;
    // Otherwise the streams of other operations would stay open as long as this child.
    linux::close_all_but_standard_and(report.as_fd());
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    Ok(())
}

pub(super) fn take_standard_descriptors(ends: ChildEnds) -> rustix::io::Result<()> {
    let ChildEnds { stdin, stdout, stderr, terminal: _ } = ends;
    rustix::stdio::dup2_stdin(&stdin)?;
    rustix::stdio::dup2_stdout(&stdout)?;
    rustix::stdio::dup2_stderr(&stderr)
}

/// Replaces this process by the program. Returns only when that failed.
pub(super) fn become_program(spec: &ExecSpec, config: &BootConfig, ends: ChildEnds) -> ExecError {
    match prepare(spec, config, ends) {
        Ok((candidates, argv, env)) => execute(&spec.argv[0], &candidates, &argv, &env),
        Err(failure) => failure,
    }
}

/// Paths to try, arguments and environment.
type Program = (Vec<CString>, Vec<CString>, Vec<CString>);

fn prepare(spec: &ExecSpec, config: &BootConfig, ends: ChildEnds) -> Result<Program, ExecError> {
    let resources =
        |doing: &'static str| move |e: Errno| (ExecFailure::Resources, format!("{doing} failed: {e}"));
    if spec.argv.is_empty() || spec.argv[0].is_empty() {
        return Err((ExecFailure::Invalid, "there is no command to run".to_owned()));
    }
    let (passwd, group) = (list("/etc/passwd"), list("/etc/group"));
    let user = user::resolve(&spec.user, &spec.extra_groups, &passwd, &group)
        .map_err(|message| (ExecFailure::NoSuchUser, message))?;
    let env = program::environment(&spec.env, &config.hostname, &user.home, spec.tty.is_some());
    let candidates = strings(&program::candidates(&spec.argv[0], &env))?;
    let (argv, env) = (strings(&spec.argv)?, strings(&env)?);

    rustix::process::setsid().map_err(resources("starting a session"))?;
    if ends.terminal {
        rustix::process::ioctl_tiocsctty(&ends.stdin).map_err(resources("taking the terminal"))?;
    }
    let uid = Uid::from_raw(user.uid);
    for fd in [&ends.stdin, &ends.stdout, &ends.stderr] {
        // Lets a program that is not root open /dev/stdout. /dev/null keeps its owner.
        let is_null = rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_rdev == rustix::fs::makedev(1, 3));
        if !is_null {
            let _ = rustix::fs::fchown(fd, Some(uid), None);
        }
    }
    take_standard_descriptors(ends).map_err(resources("connecting the streams"))?;
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    linux::reset_signals();
    enter_directory(&spec.cwd, spec.create_cwd)?;

    limits::set(&config.ulimits).map_err(|message| (ExecFailure::Resources, message))?;
    let gid = Gid::from_raw(user.gid);
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups).map_err(resources("setting groups"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(resources("setting the group"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(resources("setting the user"))?;
    Ok((candidates, argv, env))
}

/// Reads a list of users or groups. A missing or unreadable file is an empty list, and so is a FIFO, which would block.
fn list(path: &str) -> String {
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let mut bytes = Vec::new();
    if is_file && let Ok(file) = File::open(path) {
        let _ = file.take(MAX_USER_LIST).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn strings(list: &[String]) -> Result<Vec<CString>, ExecError> {
    list.iter()
        .map(|s| CString::new(s.as_bytes()))
        .collect::<Result<_, _>>()
        .map_err(|_| (ExecFailure::Invalid, "an argument or variable contains a NUL byte".to_owned()))
}

fn enter_directory(cwd: &str, create: bool) -> Result<(), ExecError> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    let bad = |e: &dyn std::fmt::Display| {
        (ExecFailure::BadCwd, format!("the working directory {cwd} cannot be used: {e}"))
    };
    if !cwd.starts_with('/') {
        return Err(bad(&"it is not an absolute path"));
    }
    match rustix::process::chdir(cwd) {
        Err(Errno::NOENT) if create => {
            std::fs::create_dir_all(cwd).map_err(|e| bad(&e))?;
            rustix::process::chdir(cwd).map_err(|e| bad(&e))
        }
        outcome => outcome.map_err(|e| bad(&e)),
    }
}

fn execute(name: &str, candidates: &[CString], argv: &[CString], env: &[CString]) -> ExecError {
    let mut worst = ExecFailure::NotFound;
    for program in candidates {
        let error = linux::execute(program, argv, env);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES | libc::EPERM | libc::EISDIR) => worst = ExecFailure::PermissionDenied,
            Some(libc::ENOEXEC) => return (ExecFailure::BadFormat, format!("{name}: exec format error")),
            Some(libc::ENAMETOOLONG | libc::ELOOP) => {
                return (ExecFailure::NotFound, format!("{name}: {error}"));
            }
            Some(libc::E2BIG) => return (ExecFailure::Invalid, format!("{name}: {error}")),
            _ => return (ExecFailure::Resources, format!("{name}: {error}")),
        }
    }
    let reason = match worst {
        ExecFailure::PermissionDenied => "permission denied",
        _ if name.contains('/') => "no such file or directory",
        _ => "executable file not found in PATH",
    };
    (worst, format!("{name}: {reason}"))
}
