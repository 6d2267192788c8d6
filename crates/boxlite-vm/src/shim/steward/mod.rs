//! The shim's steward: the process that keeps the starter's user and home, and does for the shim what takes them.
//!
//! ```text
//! boxlite-shim ──┬── jailer ── QEMU           the box's user, in its control group
//!  the box's     ├── jailer ── network
//!  user, in its  ├── virtiofsd …
//!  group         └── steward                  the starter's user, outside of the group
//! ```
//!
//! The shim hears what guest, QEMU and network say, so it is what an attacker may take over. Once its children run, it forks
//! its steward and becomes the box's user: it has the files that it has open, and no other. What it needs of the home it
//! asks for by one of a closed list of [`request`]s: a garbage collection, the next file of a log, a template. Nothing that a
//! guest says reaches the steward.
//!
//! # Who proves that the box lives
//! `shim.lock` is held by shim, steward and jailers, through one open file description: it is free once the last of them has
//! gone. QEMU does not have it, and the shim's system calls know no way to release it. The same holds for the byte of the
//! box's user id. The box's claims are the steward's alone.
//!
//! # Who ends whom
//! - The shim ends, however that comes (a kill, `cgroup.kill`): the kernel has its jailers end what they jail. The steward hears
//!   the end of the socket, waits until all have gone, ends what serves devices, removes socket and control group, lets go of
//!   the lock, and removes a box that is to be removed. A run without an outcome is one that was killed.
//! - The steward is killed: the shim flushes the guest and ends the box, whose outcome names the reason.
//! - Both are killed: the jailers end, and with them the lock. What is left is what the next command or gc removes.

mod events;
mod link;
mod request;
mod service;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use boxlite_types::{Doing, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal};

pub(super) use link::{StewardLink, StewardLog};
pub(super) use request::LogName;
pub(super) use service::{Charge, ChildHandle, Steward};

/// The two processes that a shim becomes.
pub(super) enum Fork {
    /// The shim, with its connection to the other.
    Shim(Arc<StewardLink>),
    /// The steward.
    Steward(Box<Steward>),
}

/// Forks the steward, which takes `charge` over; of the descriptors of this process it keeps those of `charge` and `log`.
///
/// In the steward, everything else of this process must be forgotten: its descriptors are closed.
///
/// # Errors
/// When there is no other process. Must be called with one thread.
pub(super) fn fork(charge: Charge, log: Option<RawFd>) -> Result<Fork> {
    let doing = "making the steward of";
    let place = charge.box_dir().to_owned();
    let pair = || -> Result<(OwnedFd, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).doing(doing, &place)
    };
    let ((socket, socket_end), (template, template_end)) = (pair()?, pair()?);
    let shim = rustix::process::getpid();
    let shim_handle = rustix::process::pidfd_open(shim, PidfdFlags::empty()).doing(doing, &place)?;
    // SAFETY: this process has one thread, so the child is a whole copy of it.
    #[allow(unsafe_code)]
    let child = unsafe { libc::fork() };
    let Some(child) = Pid::from_raw(child.max(0)) else {
        if child < 0 {
            return Err(std::io::Error::last_os_error()).doing(doing, &place);
        }
        let own = [&socket_end, &template_end, &shim_handle].map(AsRawFd::as_raw_fd);
        let keep: Vec<RawFd> = own.into_iter().chain(charge.descriptors()).chain(log).collect();
        boxlite_jail::close_all_but(&keep).map_err(super::confinement::unavailable)?;
        // They are closed.
        std::mem::forget((socket, template));
        // It ends with its shim, which a stop is asked of, by a handler that is not this process's.
        boxlite_jail::ignore_signal(Signal::TERM);
        let _ = rustix::thread::set_name(c"boxlite-steward");
        return Ok(Fork::Steward(Box::new(Steward::new(charge, socket_end, template_end, shim_handle))));
    };
    drop((charge, shim_handle));
    let process = rustix::process::pidfd_open(child, PidfdFlags::empty()).doing(doing, &place)?;
    Ok(Fork::Shim(StewardLink::new(socket, template, process)))
}
