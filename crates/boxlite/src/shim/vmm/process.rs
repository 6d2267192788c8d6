//! The QEMU process of one box.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use super::qemu::{self, Channels};
use crate::error::{Doing, Result};
use crate::shim::kin::Kin;
use crate::shim::launch::LaunchSpec;
use crate::shim::plug::Plug;

/// A started QEMU and the shim's ends of its channels, all non-blocking.
#[derive(Debug)]
pub(crate) struct Vm {
    /// The process; reaped by whoever holds this.
    pub(crate) child: Child,
    /// What QEMU complains.
    pub(crate) stderr: ChildStderr,
    /// QMP, still in its greeting.
    pub(crate) qmp: UnixStream,
    /// The guest agent's port; what is written now is kept until the guest opens it.
    pub(crate) agent: UnixStream,
    /// The guest's serial console.
    pub(crate) console: UnixStream,
}

/// Starts QEMU for `spec` with what `plugs` add.
pub(crate) fn start(spec: &LaunchSpec, kin: &Kin, plugs: &mut [Plug]) -> Result<Vm> {
    let pair = || UnixStream::pair().doing("making a channel for QEMU of", &spec.box_dir);
    let ((qmp, qmp_end), (agent, agent_end), (console, console_end)) = (pair()?, pair()?, pair()?);
    let channels =
        Channels { qmp: qmp_end.as_raw_fd(), agent: agent_end.as_raw_fd(), console: console_end.as_raw_fd() };
    let extra: Vec<_> = plugs.iter().flat_map(|plug| plug.arguments.iter().cloned()).collect();
    let shared_memory = plugs.iter().any(|plug| plug.shared_memory);
    let given: Vec<OwnedFd> = plugs.iter_mut().flat_map(|plug| plug.descriptors.drain(..)).collect();
    let mut keep = vec![qmp_end.as_fd(), agent_end.as_fd(), console_end.as_fd()];
    keep.extend(given.iter().map(AsFd::as_fd));

    let mut command = Command::new(&spec.qemu);
    command.args(qemu::arguments(spec, channels, &extra, shared_memory));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = kin.spawn(command, &keep).doing("starting", &spec.qemu)?;
    let stderr = child.stderr.take().ok_or_else(|| crate::Error::bug("QEMU's stderr is not a pipe"))?;
    for stream in [&qmp, &agent, &console] {
        stream.set_nonblocking(true).doing("preparing a channel for QEMU of", &spec.box_dir)?;
    }
    Ok(Vm { child, stderr, qmp, agent, console })
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
