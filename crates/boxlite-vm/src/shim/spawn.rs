//! Starting a shim: a process of its own session that outlives its starter.
//!
//! The starter holds the box's lock and lets the shim inherit that very descriptor, so that there is never a moment in
//! which the box runs and the lock is free. Specification, status, lock and claim travel as descriptors whose numbers
//! are the shim's arguments; nothing about a start is written to disk.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use boxlite_home::admission::Claim;
use boxlite_home::durable::Lock;
use boxlite_home::settings::Settings;
use boxlite_types::{Doing, Error, ErrorCause, ErrorKind, Result};
use rustix::process::Signal;

use super::child;
use super::handover::{LaunchMessage, LaunchReport, PROCEED};
use super::keeper::Keeper;
use super::launch::LaunchSpec;
use super::start::ShimLaunch;

/// Variables of the starter that the shim reads besides those of settings: its logging, and where tests interrupt it.
const PASSED_ON: &[&str] = &["BOXLITE_SHIM_LOG", "BOXLITE_FAULT"];

/// The lock and the claims that a start hands over to its shim.
#[derive(Debug)]
pub struct HandOver {
    /// `boxes/<id>/shim.lock`, held exclusively; the shim and its QEMU keep it until both are gone.
    pub lock: Lock,
    /// The box's claim on disk space: the shim keeps it, and shrinks it as the box writes.
    pub claim: Option<Claim>,
    /// The box's claim on memory: the shim keeps it until its end.
    pub memory: Option<Claim>,
    /// A handle of the process with which the box ends; `None` lets it outlive its starter.
    pub tie: Option<OwnedFd>,
    /// The open disks of the box's named volumes, in the order of [`LaunchSpec::disks`], each with its lock.
    pub volumes: Vec<OwnedFd>,
}

/// A shim that owns a running QEMU and answers on its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launched {
    /// The shim's process id, for people: it proves nothing about whether the shim lives.
    pub shim_pid: u32,
    /// QEMU's.
    pub vm_pid: u32,
}

/// A shim that brings its QEMU up beside its starter, and waits for word from that before it gives the guest its box.
///
/// Dropping it calls the start off, and returns once the shim has ended.
#[derive(Debug)]
pub struct PendingShim {
    pub(super) program: PathBuf,
    /// The process that makes the shim, where it has not been waited for.
    pub(super) first: Option<Child>,
    pub(super) status: UnixStream,
}

impl PendingShim {
    /// Lets the shim go on, and returns once its QEMU runs and its socket answers. Blocks for some milliseconds.
    ///
    /// # Errors
    /// The shim's own failure with its kind. No QEMU runs then, and the lock is free as soon as the shim has exited.
    pub fn proceed(mut self) -> Result<Launched> {
        // A shim that has failed does not listen, and its report says why.
        let _ = rustix::net::send(&self.status, &[PROCEED], rustix::net::SendFlags::NOSIGNAL);
        let report = read_report(&mut self.status);
        // The process started here only made the shim, in its own session, and has ended.
        let ended = self.first.as_mut().map(Child::wait);
        match report {
            Some(LaunchReport::Ready { shim_pid, vm_pid }) => Ok(Launched { shim_pid, vm_pid }),
            Some(LaunchReport::Failed { kind, cause, message }) => Err(failure(kind, cause, message)),
            None => {
                let ended = match ended {
                    Some(ended) => ended.map_or_else(|error| error.to_string(), |status| status.to_string()),
                    None => "while its guest waited".to_owned(),
                };
                let program = self.program.display();
                let message = format!("the shim {program} ended before it had started the box ({ended})");
                Err(Error::new(ErrorKind::Io, message).at(&self.program))
            }
        }
    }
}

impl Drop for PendingShim {
    fn drop(&mut self) {
        // After `proceed` the report has been read, and there is nobody to wait for.
        let _ = self.status.shutdown(Shutdown::Write);
        let _ = read_report(&mut self.status);
        let _ = self.first.as_mut().map(Child::wait);
    }
}

/// Returns the failure that a shim reports.
pub(super) fn failure(kind: ErrorKind, cause: Option<ErrorCause>, message: String) -> Error {
    let error = Error::new(kind, message);
    match cause {
        Some(cause) => error.about(cause),
        None => error,
    }
}

/// Starts the shim program at `shim` for `spec`, of which nothing is to be recorded, and returns once its QEMU runs and its
/// socket answers.
///
/// Blocks for some milliseconds; the guest boots afterwards. The shim needs neither this process nor its terminal.
///
/// # Errors
/// The shim's own failure with its kind; `Io` when the program cannot be started. No QEMU runs then, and the lock is
/// free as soon as the shim has exited.
pub fn spawn(spec: &LaunchSpec, shim: &Path, hand_over: HandOver) -> Result<Launched> {
    begin(spec, shim, hand_over)?.proceed()
}

/// Starts the shim program at `shim` for `spec`. Returns at once: QEMU comes up while the caller records the start.
///
/// # Errors
/// `Io` when the program cannot be started.
#[allow(clippy::needless_pass_by_value, reason = "the starter's own copies are closed on return")]
pub fn begin(spec: &LaunchSpec, shim: &Path, hand_over: HandOver) -> Result<PendingShim> {
    let [claimed, promised] =
        [&hand_over.claim, &hand_over.memory].map(|claim| claim.as_ref().map(Claim::range));
    let tied = hand_over.tie.is_some();
    let message = memory_file(&LaunchMessage { spec: spec.clone(), claimed, promised, wait: None, tied })?;
    let mut handed_over = vec![hand_over.lock.as_fd()];
    handed_over.extend([&hand_over.claim, &hand_over.memory].into_iter().flatten().map(AsFd::as_fd));
    handed_over.extend(hand_over.tie.iter().chain(&hand_over.volumes).map(AsFd::as_fd));
    let (first, status) = start_program(shim, &message, &handed_over)?;
    Ok(PendingShim { program: shim.to_owned(), first: Some(first), status })
}

/// Starts the shim program at `shim` with a message and the descriptors `handed_over`, of which the box's lock is the first.
/// Returns the process that makes the shim, and the status channel.
pub(super) fn start_program(
    shim: &Path,
    message: &File,
    handed_over: &[BorrowedFd<'_>],
) -> Result<(Child, UnixStream)> {
    let (status, status_end) = UnixStream::pair().doing("making the status channel of", shim)?;
    let mut keep = vec![message.as_fd(), status_end.as_fd()];
    keep.extend_from_slice(handed_over);

    let mut command = Command::new(shim);
    command.args(keep.iter().map(|descriptor| descriptor.as_raw_fd().to_string()));
    // The starter's environment may hold secrets, and a process's environment can be read for as long as it lives.
    let passed_on = PASSED_ON.iter().chain(Settings::VARIABLES);
    command.env_clear().envs(passed_on.filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    child::inherit_only(&mut command, &keep);
    let first = command.spawn().doing("starting the shim", shim)?;
    Ok((first, status))
}

pub(super) fn memory_file(message: &LaunchMessage) -> Result<File> {
    let text = serde_json::to_vec(message)
        .map_err(|error| Error::bug("a launch specification does not serialise").because(error))?;
    let memory = rustix::fs::memfd_create("boxlite-launch", rustix::fs::MemfdFlags::CLOEXEC)
        .doing("creating", "a memory file")?;
    let mut file = File::from(memory);
    file.write_all(&text).and_then(|()| file.rewind()).doing("filling", "a memory file")?;
    Ok(file)
}

pub(super) fn read_report(status: &mut impl Read) -> Option<LaunchReport> {
    let mut text = Vec::new();
    // A shim that fails before it has read the word to go on leaves that unread, and its socket then ends in a reset, behind
    // the report.
    let _ = status.read_to_end(&mut text);
    serde_json::from_slice(&text).ok()
}

/// The processes of a detaching shim.
#[derive(Debug)]
pub enum Detached {
    /// The process that was started: its work is done, and it must exit at once with status 0.
    Starter,
    /// The shim's parent, which acts once the run has ended.
    Keeper(Box<Keeper>),
    /// The shim.
    Shim(Box<ShimLaunch>),
}

/// The first step of the shim program: leaves the starter's session and process tree.
///
/// `arguments` are those of the program, without its name. Must run before the process has a second thread.
///
/// # Errors
/// `InvalidInput` when the program was started by anything but [`spawn`].
pub fn detach(arguments: impl Iterator<Item = OsString>) -> Result<Detached> {
    let numbers: Option<Vec<RawFd>> =
        arguments.map(|text| text.to_str()?.parse().ok().filter(|&n| n > 2)).collect();
    let Some([spec, status, lock, claims @ ..]) = numbers.as_deref() else {
        return Err(Error::invalid("boxlite-shim is started by boxlite, not by hand"));
    };
    let [spec, status, lock] = [own(*spec)?, own(*status)?, own(*lock)?];
    let claims: Vec<OwnedFd> = claims.iter().copied().map(own).collect::<Result<_>>()?;
    if fork()?.is_some() {
        return Ok(Detached::Starter);
    }
    rustix::process::setsid().doing("making a session for", "the shim")?;
    // A signal to all processes of a job is for its command. TERM alone asks the shim for a stop.
    for request in boxlite_jail::REQUESTS.into_iter().filter(|signal| *signal != Signal::TERM) {
        boxlite_jail::ignore_signal(request);
    }
    let spec = File::from(spec);
    if let Some(message) = Keeper::wanted(&spec)?
        && let Some(shim) = fork()?
    {
        // Lock and claims are the shim's alone.
        drop((spec, status, lock, claims));
        return Keeper::beside(shim, message).map(|keeper| Detached::Keeper(Box::new(keeper)));
    }
    ShimLaunch::receive(spec, status, lock, claims).map(|shim| Detached::Shim(Box::new(shim)))
}

/// Makes a copy of this process, which has one thread; the copy gets `None`.
fn fork() -> Result<Option<rustix::process::Pid>> {
    // SAFETY: no other thread exists, so the child is a whole copy of this process.
    #[allow(unsafe_code)]
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(std::io::Error::last_os_error()).doing("forking", "the shim"),
        child => Ok(rustix::process::Pid::from_raw(child)),
    }
}

/// Takes a descriptor that the starter named, and keeps it from later programs.
fn own(descriptor: RawFd) -> Result<OwnedFd> {
    // SAFETY: the number is checked to be an open descriptor before it is relied on; the starter passed it to be owned.
    #[allow(unsafe_code)]
    let owned = unsafe {
        if libc::fcntl(descriptor, libc::F_GETFD) < 0 {
            return Err(Error::invalid("boxlite-shim is started by boxlite, not by hand"));
        }
        OwnedFd::from_raw_fd(descriptor)
    };
    rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC).doing("keeping", "a descriptor")?;
    Ok(owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation tried: giving up at the reset loses the report.
    #[test]
    fn a_report_counts_although_its_shim_never_read_the_word_to_go_on() {
        let (mut status, mut shim) = UnixStream::pair().unwrap();
        status.write_all(&[PROCEED]).unwrap();
        let failed = LaunchReport::Failed { kind: ErrorKind::NotFound, cause: None, message: "gone".into() };
        shim.write_all(&serde_json::to_vec(&failed).unwrap()).unwrap();
        drop(shim);
        let report = read_report(&mut status);
        assert!(matches!(report, Some(LaunchReport::Failed { message, .. }) if message == "gone"));
    }
}
