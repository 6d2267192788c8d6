//! Which sandbox a virtiofsd can have on this host.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use boxlite_types::{Error, Result};
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

/// How a virtiofsd is kept to its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// Mount, process and network namespaces (and a user namespace unless root), the directory being its root.
    Namespace,
    /// `chroot`, where root may not make namespaces, as in many containers.
    Chroot,
}

impl Sandbox {
    /// The strongest that works here, found by trying; a few milliseconds.
    ///
    /// Volumes need one: without it, a guest could then follow a directory moved out of its volume. Where an
    /// ordinary user can't make namespaces, volumes are [`boxlite_types::ErrorKind::Unsupported`].
    pub fn detect() -> Result<Self> {
        let is_root = rustix::process::geteuid().is_root();
        match try_namespaces(is_root) {
            Ok(()) => Ok(Self::Namespace),
            Err(_) if is_root => Ok(Self::Chroot),
            Err(error) => Err(Error::unsupported(format!(
                "volumes need user namespaces, which this host refuses to its users ({error}); allow them (sysctl \
                 kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0) or run as root"
            ))
            .because(error)),
        }
    }
}

fn try_namespaces(is_root: bool) -> io::Result<()> {
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWNET;
    if !is_root {
        flags |= UnshareFlags::NEWUSER;
    }
    let mut probe = Command::new("/proc/self/exe");
    probe.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Whether the namespaces can be made is the answer: the probe ends before it executes anything.
    let step = move || {
        // SAFETY: the child has one thread and shares no memory, so no other thread is surprised by new namespaces.
        #[allow(unsafe_code)]
        unsafe {
            rustix::thread::unshare_unsafe(flags)?;
        }
        // AppArmor may allow the namespace and no capability in it.
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        Err(io::Error::from_raw_os_error(PROBE_WORKED))
    };
    // SAFETY: system calls only, no allocation and no lock between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        probe.pre_exec(step);
    }
    match probe.spawn() {
        Err(error) if error.raw_os_error() == Some(PROBE_WORKED) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::Other.into()),
    }
}

/// An error number that neither call of the probe returns.
const PROBE_WORKED: i32 = libc::EXDEV;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_stays_where_it_is() {
        let before = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        let found = Sandbox::detect();
        assert_eq!(std::fs::read_link("/proc/self/ns/mnt").unwrap(), before);
        if rustix::process::geteuid().is_root() {
            found.unwrap();
        }
    }
}
