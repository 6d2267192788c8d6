//! The loopback interface and a static `eth0`.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

use boxlite_proto::NetConfig;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::linux;

const INTERFACE: &str = "eth0";

/// Brings the interfaces up. Returns a warning if that failed.
pub(super) fn configure(network: Option<&NetConfig>) -> Option<String> {
    let configure = || -> io::Result<()> {
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        bring_up(socket.as_fd(), "lo")?;
        if let Some(network) = network {
            set_hardware_address(socket.as_fd(), network.mac)?;
            set_address(socket.as_fd(), INTERFACE, (network.address, network.prefix))?;
            bring_up(socket.as_fd(), INTERFACE)?;
            if let Some(gateway) = network.gateway {
                add_default_route(socket.as_fd(), gateway)?;
            }
            // A label each: an address without one of its own would replace the address before.
            for (number, member) in (1..).zip(&network.members) {
                set_address(socket.as_fd(), &format!("{INTERFACE}:{number}"), *member)?;
            }
        }
        Ok(())
    };
    configure().err().map(|error| format!("configuring the network failed: {error}"))
}

fn bring_up(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    linux::interface_request(socket, name, libc::SIOCSIFFLAGS, |request| {
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    })
}

/// Gives the interface with that label an address and the bits of its network part.
fn set_address(socket: BorrowedFd<'_>, label: &str, (address, prefix): (Ipv4Addr, u8)) -> io::Result<()> {
    for (request, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, netmask(prefix))] {
        linux::interface_request(socket, label, request, |request| {
            request.ifr_ifru.ifru_addr = socket_address(value);
        })?;
    }
    Ok(())
}

/// Sets the card's Ethernet address: a card restored from a template starts with the template's.
fn set_hardware_address(socket: BorrowedFd<'_>, mac: [u8; 6]) -> io::Result<()> {
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().zip(mac) {
        *to = from as libc::c_char;
    }
    linux::interface_request(socket, INTERFACE, libc::SIOCSIFHWADDR, |request| {
        request.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: data };
    })
}

fn add_default_route(socket: BorrowedFd<'_>, gateway: Ipv4Addr) -> io::Result<()> {
    linux::add_default_route(socket, socket_address(gateway), socket_address(Ipv4Addr::UNSPECIFIED))
}

fn netmask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

/// Makes a `sockaddr` whose first bytes are a `sockaddr_in`: port 0, then the address.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_become_netmasks() {
        let texts = [0, 1, 8, 24, 32, 200].map(|prefix| netmask(prefix).to_string());
        assert_eq!(
            texts,
            ["0.0.0.0", "128.0.0.0", "255.0.0.0", "255.255.255.0", "255.255.255.255", "255.255.255.255"]
        );
    }
}
