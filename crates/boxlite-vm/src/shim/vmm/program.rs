//! QEMU's program: what it is started with, and the process that it becomes.

use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::process::{Child, ChildStderr, Command, ExitStatus};

use boxlite_jail::Filling;
use boxlite_types::{Doing, Error, ErrorKind, Result};

use crate::exit::ChildEnder;
use crate::shim::child::ChildSpawner;
use crate::shim::jail;
use crate::shim::launch::LaunchSpec;

/// QEMU's process, and the one that ends with it.
#[derive(Debug)]
pub(crate) struct QemuProcess {
    /// The jailer, which ends as QEMU ended once nothing of the jail is left, or QEMU itself; its owner reaps it.
    pub(crate) child: Child,
    /// Kills QEMU.
    pub(crate) ender: ChildEnder,
    /// QEMU's process id.
    pub(crate) pid: u32,
    /// QEMU's complaints.
    pub(crate) stderr: ChildStderr,
}

impl QemuProcess {
    /// Kills QEMU, and waits until it is gone and its disks are free.
    pub(crate) fn end(&mut self) -> io::Result<ExitStatus> {
        self.ender.end()?;
        self.child.wait()
    }
}

/// QEMU's command line and everything that it names.
pub(super) struct QemuCommand<'a> {
    pub(super) arguments: Vec<OsString>,
    /// Inherited under their numbers.
    pub(super) descriptors: Vec<BorrowedFd<'a>>,
    /// Opened once more by [`qemu::name_of`] their numbers, and only read.
    pub(super) read: Vec<BorrowedFd<'a>>,
    /// Opened so as well, for more.
    pub(super) named: Vec<BorrowedFd<'a>>,
    /// The one of these that the guest's memory is a copy of, page by page as it writes to them.
    pub(super) template: Option<RawFd>,
    /// The memory file, among these, that is to have a template's contents.
    pub(super) filling: Option<Filling>,
    /// Bytes that its largest file may have.
    pub(super) file_size: u64,
}

/// Starts QEMU as a child of this process, with this process's rights.
pub(super) fn start_unjailed(
    spec: &LaunchSpec,
    command: QemuCommand<'_>,
    spawner: &ChildSpawner,
) -> Result<QemuProcess> {
    let mut program = Command::new(&spec.qemu);
    program.args(command.arguments);
    jail::prepare(&mut program);
    program.env("PATH", "/usr/bin:/bin").envs(jail::QEMU_ENVIRONMENT.iter().copied());
    let keep: Vec<_> = command.descriptors.into_iter().chain(command.read).chain(command.named).collect();
    let doing = "starting";
    let filled = boxlite_jail::fill(command.filling.as_slice());
    filled.map_err(|error| Error::new(ErrorKind::Io, "the template cannot be copied").because(error))?;
    let mut child = spawner.spawn(program, &keep).doing(doing, &spec.qemu)?;
    let pid = child.id();
    let stderr = child.stderr.take().ok_or_else(|| Error::bug("QEMU's stderr is not a pipe"))?;
    let ender = ChildEnder::of(&child).doing(doing, &spec.qemu)?;
    Ok(QemuProcess { child, ender, pid, stderr })
}
