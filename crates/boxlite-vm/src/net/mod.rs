//! A box's network: QEMU's user-mode stack behind a frame filter that the shim runs.
//!
//! The user-mode stack (slirp) needs no privileges, but by itself it lets the guest into the host: a connection to
//! the gateway address, or to any of `127.0.0.0/8` sent as a raw packet, arrives at servers bound to the host's
//! loopback. Its own `restrict=on` closes that together with everything else. So the network card is wired to the
//! shim, which passes Ethernet frames on to slirp and drops those that [`filter()`] refuses:
//!
//! ```text
//! guest ── virtio-net ── socketpair ── shim: filter ── socketpair ── hub ── slirp ── host
//! ```
//!
//! What a box reaches: any unicast address that the host itself reaches, except loopback, link-local (so no cloud
//! metadata service), multicast, the host's further addresses on its loopback interface, and [`METADATA_HOSTS`]. The
//! host's own LAN addresses are reachable, as they are from a container on a bridge: bind a server to loopback to keep
//! boxes out. DNS is 10.0.2.3 port 53 and ends at the host's resolver. There is no IPv6, no DHCP (the guest is
//! configured statically) and no outbound IP fragmentation, which keeps guest bytes away from slirp's parsers for them.

mod filter;
mod flow;
mod host;
mod mac;
mod qemu;
mod route;
mod wire;

#[cfg(test)]
mod oracle;

use std::net::Ipv4Addr;

use boxlite_proto::NetConfig;
use boxlite_types::PortForward;
use serde::{Deserialize, Serialize};

pub use filter::{FilterVerdict, Policy, Reason, filter};
pub use flow::{Flow, Solicited};
pub use host::{PortClaim, claim_ports, loopback_aliases};
pub use mac::MacAddr;
pub use route::{Ipv4Net, METADATA_HOSTS};
pub use wire::{Counts, QemuEnds, Wire};

/// The box's only address, with a prefix of [`PREFIX`] bits.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The box's default route; peers of published ports on the host's loopback appear to the box under this address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The box's DNS server.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// Length in bits of the virtual network's prefix.
pub const PREFIX: u8 = 24;
/// The virtual network; hosts of a real network with these addresses can't be reached from a box.
pub const SUBNET: Ipv4Net = Ipv4Net::new(Ipv4Addr::new(10, 0, 2, 0), PREFIX);

/// The network of one run of a box that has one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Published ports; the host's ports are chosen beforehand, see [`claim_ports`].
    pub ports: Vec<PortForward>,
}

/// What the guest agent is told about its network card; [`RESOLVER`] is its only DNS server.
pub fn guest_config(mac: MacAddr) -> NetConfig {
    NetConfig { address: GUEST, prefix: PREFIX, gateway: Some(GATEWAY), mac: mac.octets() }
}
