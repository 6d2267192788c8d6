//! The limits of the user-mode stack's process, set between fork and exec.
//!
//! A jail sets the same from its specification, and more; these hold without one too.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use boxlite_types::PortForward;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Descriptors of a stack without connections: stdio, its wire, QEMU's event loop.
const OWN_DESCRIPTORS: u64 = 64;

/// Bytes of address space of a stack without connections, of which it uses a tenth.
const OWN_ADDRESS_SPACE: u64 = 1 << 30;

/// Bytes of address space for each connection: slirp's buffers take half of it.
const CONNECTION_ADDRESS_SPACE: u64 = 1 << 20;

/// The first port that does not take a privilege to bind.
const FIRST_FREE_PORT: u16 = 1024;

/// What a user-mode stack may take of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StackLimits {
    open_files: u64,
    address_space: u64,
    kept: CapabilitySet,
}

impl StackLimits {
    /// The limits of a stack of so many connections that publishes `ports`.
    ///
    /// Each connection takes a descriptor, so that the kernel holds a guest to its bound that deceives the shim's count.
    pub(super) fn of(max_connections: u32, ports: &[PortForward]) -> Self {
        let connections = u64::from(max_connections);
        let low_ports = ports.iter().any(|port| port.host < FIRST_FREE_PORT);
        Self {
            open_files: OWN_DESCRIPTORS + ports.len() as u64 + connections,
            address_space: OWN_ADDRESS_SPACE + connections * CONNECTION_ADDRESS_SPACE,
            kept: if low_ports { CapabilitySet::NET_BIND_SERVICE } else { CapabilitySet::empty() },
        }
    }
}

/// Has `command` run within `limits`: it writes no file, dumps no core and gains no privilege, and as root it has no
/// capability but the one that binds low ports, where it has to.
pub(super) fn confine(command: &mut Command, limits: StackLimits) {
    // SAFETY: system calls only, no allocation and no lock between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || apply(limits));
    }
}

fn apply(StackLimits { open_files, address_space, kept }: StackLimits) -> io::Result<()> {
    for (resource, most) in [
        (Resource::Nofile, open_files),
        (Resource::As, address_space),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ] {
        // An inherited limit may be lower; raising it takes a privilege.
        let inherited = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let most = Some(most.min(inherited));
        setrlimit(resource, Rlimit { current: most, maximum: most })?;
    }
    if rustix::process::geteuid().is_root() {
        give_up_capabilities(kept)?;
    }
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Root gets back at exec what its bounding set has, so that is what is emptied.
fn give_up_capabilities(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..64 {
        let Some(capability) = CapabilitySet::from_bits(1 << number) else { continue };
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel has no such capability.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}
