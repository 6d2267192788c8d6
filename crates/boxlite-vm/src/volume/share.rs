//! Starting a box's volumes: a virtiofsd and a QEMU device each.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use boxlite_jail::PrivilegeBits;
use boxlite_types::{Doing, Error, Result};

use super::daemon::{self, Identity};
use super::served::ServedDirectory;
use super::{Daemon, Sandbox, Shares, socket, source, tag};

/// A started volume.
#[derive(Debug)]
pub struct Share {
    /// QEMU's arguments, which name `descriptor` by its number; the guest's memory must be shared.
    pub arguments: Vec<String>,
    /// To be inherited by QEMU under its own number.
    pub descriptor: OwnedFd,
    /// The process that serves it.
    pub daemon: Daemon,
}

/// Starts a virtiofsd for each volume of `shares`.
///
/// `spawn` starts a command that inherits the given descriptors and nothing else, and that dies with this process.
/// The directories are checked again, because they may have changed since they were resolved; each virtiofsd that is
/// returned serves the directory that was checked, or has ended.
pub fn start(
    shares: &Shares,
    mut spawn: impl FnMut(Command, &[BorrowedFd<'_>]) -> io::Result<Child>,
) -> Result<Vec<Share>> {
    let Shares { volumes, virtiofsd, off_limits } = shares;
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
    let mut directories = Vec::with_capacity(volumes.len());
    for (index, volume) in volumes.iter().enumerate() {
        source::check(volume, off_limits)?;
        let directory = ServedDirectory::open(&volume.source)?;
        let owner = directory.owner(&volume.source)?;
        directories.push(directory);
        let connection = socket::connection().doing("making a socket for the volume", &volume.source)?;
        let mut command = Command::new(virtiofsd);
        command.args(daemon::arguments(volume, connection.listener.as_raw_fd(), sandbox, user, owner));
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        refuse_privilege_bits(&mut command, &privilege_bits);
        let child = spawn(command, &[connection.listener.as_fd()]).doing("starting", virtiofsd)?;
        started.push(Share {
            arguments: device(index, connection.connected.as_raw_fd()),
            descriptor: connection.connected,
            daemon: Daemon::new(child, volume.clone()),
        });
    }
    for ((share, directory), volume) in started.iter_mut().zip(&directories).zip(volumes) {
        directory.confirm(&mut share.daemon, &volume.source)?;
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

fn device(index: usize, descriptor: RawFd) -> Vec<String> {
    vec![
        "-chardev".into(),
        format!("socket,id=share{index},fd={descriptor}"),
        "-device".into(),
        format!("vhost-user-fs-device,chardev=share{index},tag={}", tag(index)),
    ]
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
