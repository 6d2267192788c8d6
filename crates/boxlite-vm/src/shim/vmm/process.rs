//! The QEMU process of one box.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use boxlite_home::lease::Leased;
use boxlite_types::{Doing, Result};

use super::qemu::{self, Channels, Memory};
use crate::shim::backend::DeviceBackend;
use crate::shim::child::ChildSpawner;
use crate::shim::launch::{GuestOrigin, LaunchSpec};

/// A started QEMU and the shim's ends of its channels, all non-blocking.
#[derive(Debug)]
pub(crate) struct Vm {
    /// The process; its owner reaps it.
    pub(crate) child: Child,
    /// What QEMU complains.
    pub(crate) stderr: ChildStderr,
    /// QMP, still in its greeting.
    pub(crate) qmp: UnixStream,
    /// The guest agent's port; what is written now is kept until the guest opens it.
    pub(crate) agent: UnixStream,
    /// The guest's serial console.
    pub(crate) console: UnixStream,
    /// The guest's memory, where it is to be kept as a template.
    pub(crate) memory: Option<File>,
    /// The number of QEMU's descriptor of its devices' state, which it waits to be told to read.
    pub(crate) state: Option<RawFd>,
}

/// Starts QEMU for `spec` with what `backends` add, from `template` if there is one: the very file that is leased.
pub(crate) fn start(
    spec: &LaunchSpec,
    template: Option<&Leased>,
    spawner: &ChildSpawner,
    backends: &mut [DeviceBackend],
) -> Result<Vm> {
    let pair = || UnixStream::pair().doing("making a channel for QEMU of", &spec.box_dir);
    let ((qmp, qmp_end), (agent, agent_end), (console, console_end)) = (pair()?, pair()?, pair()?);
    let channels =
        Channels { qmp: qmp_end.as_raw_fd(), agent: agent_end.as_raw_fd(), console: console_end.as_raw_fd() };
    let extra: Vec<_> = backends.iter().flat_map(|backend| backend.arguments.iter().cloned()).collect();
    let shared = backends.iter().any(|backend| backend.shared_memory);
    let given: Vec<OwnedFd> = backends.iter_mut().flat_map(|backend| backend.descriptors.drain(..)).collect();
    let memory_file = memory_file(spec)?;
    let state_file = template.map(|template| state_file(template, spec.memory_bytes)).transpose()?;
    let memory = match (template, &memory_file) {
        _ if shared => Memory::Shared,
        (Some(template), _) => Memory::Template(template.file().as_raw_fd()),
        (None, Some(file)) => Memory::File(file.as_raw_fd()),
        (None, None) => Memory::Own,
    };
    let mut keep = vec![qmp_end.as_fd(), agent_end.as_fd(), console_end.as_fd()];
    keep.extend(given.iter().map(AsFd::as_fd));
    let template = template.map(Leased::file);
    keep.extend(template.into_iter().chain(&memory_file).chain(&state_file).map(AsFd::as_fd));

    let mut command = Command::new(&spec.qemu);
    command.args(qemu::arguments(spec, channels, &extra, memory));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = spawner.spawn(command, &keep).doing("starting", &spec.qemu)?;
    let stderr =
        child.stderr.take().ok_or_else(|| boxlite_types::Error::bug("QEMU's stderr is not a pipe"))?;
    for stream in [&qmp, &agent, &console] {
        stream.set_nonblocking(true).doing("preparing a channel for QEMU of", &spec.box_dir)?;
    }
    let state = state_file.map(|file| file.as_raw_fd());
    Ok(Vm { child, stderr, qmp, agent, console, memory: memory_file, state })
}

/// The memory of a guest that is to be kept.
fn memory_file(spec: &LaunchSpec) -> Result<Option<File>> {
    let GuestOrigin::BootAndKeep(_) = &spec.origin else { return Ok(None) };
    let doing = "making the memory of a guest of";
    let memory = rustix::fs::memfd_create("boxlite-guest", rustix::fs::MemfdFlags::CLOEXEC)
        .doing(doing, &spec.box_dir)?;
    let memory = File::from(memory);
    memory.set_len(spec.memory_bytes).doing(doing, &spec.box_dir)?;
    Ok(Some(memory))
}

/// A template opened once more, standing behind its `memory` bytes of memory, where the devices' state begins.
fn state_file(template: &Leased, memory: u64) -> Result<File> {
    let doing = "opening the template";
    let mut state =
        File::open(format!("/proc/self/fd/{}", template.file().as_raw_fd())).doing(doing, template.path())?;
    state.seek(SeekFrom::Start(memory)).doing(doing, template.path())?;
    Ok(state)
}

/// How QEMU ended, in words.
pub(crate) fn describe(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("QEMU exited with status {code}"),
            (None, Some(signal)) => format!("QEMU was killed by signal {signal}"),
            (None, None) => "QEMU ended in an unknown way".into(),
        },
        Err(error) => format!("QEMU's end could not be observed: {error}"),
    }
}
