//! Starting a box's volumes: a virtiofsd and a QEMU device each.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use boxlite_jail::PrivilegeBits;
use boxlite_types::{Doing, Error, ErrorCause, Result};

use super::daemon::{self, Descriptors, Identity};
use super::served::ServedSource;
use super::{Daemon, Sandbox, Shares, ledger, socket, source, tag};

/// A started volume.
#[derive(Debug)]
pub struct Share {
    /// For QEMU, whose guest's memory must be shared.
    pub device: ShareDevice,
    /// The process that serves it.
    pub daemon: Daemon,
}

/// QEMU's side of a started volume.
#[derive(Debug)]
pub struct ShareDevice {
    index: usize,
    /// The connection to the process that serves it.
    pub descriptor: OwnedFd,
}

impl ShareDevice {
    /// The volume's place among those of its box.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The tag by which the guest mounts it.
    pub fn tag(&self) -> String {
        tag(self.index)
    }

    /// The arguments of a QEMU that has it from the start, and inherits the descriptor under its own number.
    pub fn arguments(&self) -> Vec<String> {
        let Self { index, descriptor } = self;
        vec![
            "-chardev".into(),
            format!("socket,id=share{index},fd={}", descriptor.as_raw_fd()),
            "-device".into(),
            format!("vhost-user-fs-device,chardev=share{index},tag={}", self.tag()),
        ]
    }
}

/// Starts a virtiofsd for each volume of `shares`.
///
/// `spawn` starts a command that inherits the given descriptors and nothing else, and that dies with this process.
/// Directories and files are checked again, because they may have changed since they were resolved; each virtiofsd that is
/// returned serves the one that was checked, or has ended.
pub fn start(
    shares: &Shares,
    mut spawn: impl FnMut(Command, &[BorrowedFd<'_>]) -> io::Result<Child>,
) -> Result<Vec<Share>> {
    let Shares { volumes, virtiofsd, off_limits, floors, ledgers } = shares;
    if volumes.is_empty() {
        return Ok(Vec::new());
    }
    daemon::require(virtiofsd)?;
    let sandbox = Sandbox::detect()?;
    let privilege_bits = PrivilegeBits::refuse().map_err(|error| {
        Error::unsupported("volumes need a filter of system calls that this host does not have")
            .because(error)
    })?;
    let privilege_bits = Arc::new(privilege_bits);
    let user =
        Identity { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let mut started = Vec::with_capacity(volumes.len());
    let mut sources = Vec::with_capacity(volumes.len());
    for (index, volume) in volumes.iter().enumerate() {
        source::check(volume, off_limits)?;
        if volume.file && sandbox == Sandbox::Chroot {
            return Err(Error::unsupported(format!(
                "the file {} can't be a volume here: a single file needs mount namespaces, which this host refuses; \
                 share its directory",
                volume.source.display()
            ))
            .about(ErrorCause::Volume)
            .at(&volume.source));
        }
        let served = ServedSource::open(&volume.source, volume.file)?;
        let owner = served.owner(&volume.source)?;
        let ledger = volume.size.map(|_| ledger::open(ledgers, volume)).transpose()?;
        let connection = socket::connection().doing("making a socket for the volume", &volume.source)?;
        let mut command = Command::new(virtiofsd);
        let descriptors = Descriptors {
            listener: connection.listener.as_raw_fd(),
            source: served.descriptor().as_raw_fd(),
            ledger: ledger.as_ref().map(AsRawFd::as_raw_fd),
        };
        command.args(daemon::arguments(volume, *floors, descriptors, sandbox, user, owner));
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        refuse_privilege_bits(&mut command, &privilege_bits);
        let mut inherited = vec![connection.listener.as_fd()];
        inherited.extend(volume.file.then(|| served.descriptor()));
        inherited.extend(ledger.as_ref().map(AsFd::as_fd));
        let child = spawn(command, &inherited).doing("starting", virtiofsd)?;
        sources.push(served);
        started.push(Share {
            device: ShareDevice { index, descriptor: connection.connected },
            daemon: Daemon::new(child, volume.clone()),
        });
    }
    let all = started.iter_mut().zip(&sources).zip(volumes);
    for ((share, source), volume) in all.filter(|(_, volume)| !volume.file) {
        source.confirm(&mut share.daemon, &volume.source)?;
    }
    Ok(started)
}

/// Has `command` make no file that gives privileges on the host.
fn refuse_privilege_bits(command: &mut Command, filters: &Arc<PrivilegeBits>) {
    let filters = Arc::clone(filters);
    // SAFETY: the filters are made already, and applying them makes system calls only.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || filters.apply());
    }
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
