//! The host's ports that are free, and its loopback's addresses, as far as the network needs them.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};

use boxlite_types::{Error, ErrorCause, ErrorKind, PortForward, Protocol, Result, refuse_overlaps};

use super::Ipv4Net;

/// Ports of the host that were free, held until the claim is dropped.
///
/// QEMU binds them itself, so the claim is dropped right before QEMU is spawned; if QEMU then fails to start,
/// [`claim_ports`] of the same ports names the one that another process took in between.
#[derive(Debug)]
pub struct PortClaim {
    ports: Vec<PortForward>,
    _held: Vec<Held>,
}

#[derive(Debug)]
enum Held {
    Tcp(#[allow(dead_code)] TcpListener),
    Udp(#[allow(dead_code)] UdpSocket),
}

impl PortClaim {
    /// The ports, each with the host's port chosen.
    pub fn ports(&self) -> &[PortForward] {
        &self.ports
    }

    /// Lets go of the host's ports and keeps the choice.
    pub fn release(self) -> Vec<PortForward> {
        self.ports
    }
}

/// Takes every port of the host that `ports` names, and chooses a free one where it names none.
///
/// A port in use is [`ErrorKind::Conflict`], one that needs privileges [`ErrorKind::Denied`], an address that is not
/// this host's [`ErrorKind::InvalidInput`].
pub fn claim_ports(ports: &[PortForward]) -> Result<PortClaim> {
    refuse_overlaps(ports)?;
    let (mut chosen, mut held) = (vec![None; ports.len()], Vec::with_capacity(ports.len()));
    // Fixed ports first: a free choice must not take one of them.
    let (fixed, free): (Vec<usize>, Vec<usize>) = (0..ports.len()).partition(|&index| ports[index].host != 0);
    for index in fixed.into_iter().chain(free) {
        let (socket, host) = bind(&ports[index]).map_err(|error| refused(&ports[index], error))?;
        held.push(socket);
        chosen[index] = Some(PortForward { host, ..ports[index] });
    }
    Ok(PortClaim { ports: chosen.into_iter().flatten().collect(), _held: held })
}

fn bind(port: &PortForward) -> io::Result<(Held, u16)> {
    let address = SocketAddrV4::new(port.bind, port.host);
    Ok(match port.protocol {
        Protocol::Tcp => {
            let listener = TcpListener::bind(address)?;
            let host = listener.local_addr()?.port();
            (Held::Tcp(listener), host)
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(address)?;
            let host = socket.local_addr()?.port();
            (Held::Udp(socket), host)
        }
    })
}

fn refused(port: &PortForward, error: io::Error) -> Error {
    let PortForward { bind, host, guest, protocol } = port;
    let what =
        format!("port {bind}:{host}/{protocol} of the host, to be published for port {guest} of the box,");
    let refused = match error.kind() {
        io::ErrorKind::AddrInUse => Error::conflict(format!("{what} is in use")).because(error),
        io::ErrorKind::PermissionDenied => {
            Error::new(ErrorKind::Denied, format!("{what} needs privileges")).because(error)
        }
        io::ErrorKind::AddrNotAvailable => {
            Error::invalid(format!("{what} can't be bound: {bind} is not an address of this host"))
                .because(error)
        }
        _ => Error::new(ErrorKind::Io, format!("{what} can't be bound")).because(error),
    };
    refused.about(ErrorCause::Port)
}

/// The addresses outside `127.0.0.0/8` that the host has given to its loopback interfaces.
///
/// Servers bound to them are as private as those on 127.0.0.1.
pub fn loopback_aliases() -> Result<Vec<Ipv4Net>> {
    let aliases = |(address, is_loopback): (Ipv4Addr, bool)| {
        (is_loopback && !address.is_loopback()).then(|| Ipv4Net::host(address))
    };
    Ok(listed_addresses()?.into_iter().filter_map(aliases).collect())
}

/// The addresses of all of the host's interfaces.
pub fn own_addresses() -> Result<Vec<Ipv4Net>> {
    Ok(listed_addresses()?.into_iter().map(|(address, _)| Ipv4Net::host(address)).collect())
}

fn listed_addresses() -> Result<Vec<(Ipv4Addr, bool)>> {
    interface_addresses()
        .map_err(|error| Error::new(ErrorKind::Io, "listing the host's addresses failed").because(error))
}

// getifaddrs has no safe wrapper among our dependencies; the list is walked while it lives and freed once.
/// Every address of an interface, and whether that is a loopback interface.
#[allow(unsafe_code)]
fn interface_addresses() -> io::Result<Vec<(Ipv4Addr, bool)>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` is a valid place for the pointer that the call returns.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut addresses, mut next) = (Vec::new(), list);
    // SAFETY: every node and every non-null address in it is valid until freeifaddrs, and AF_INET says that the
    // address is a sockaddr_in; it is read unaligned because nothing promises its alignment.
    unsafe {
        while let Some(entry) = next.as_ref() {
            next = entry.ifa_next;
            let is_loopback = entry.ifa_flags & libc::IFF_LOOPBACK as libc::c_uint != 0;
            let family = entry.ifa_addr.as_ref().map(|address| i32::from(address.sa_family));
            if family == Some(libc::AF_INET) {
                let address = entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                addresses.push((Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)), is_loopback));
            }
        }
        libc::freeifaddrs(list);
    }
    Ok(addresses)
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
