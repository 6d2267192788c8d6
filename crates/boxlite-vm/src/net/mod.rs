//! A box's network: a user-mode stack in a process of its own, behind a frame filter that the shim runs.
//!
//! The user-mode stack (slirp) needs no privileges, but by itself it lets the guest into the host: a connection to
//! the gateway address, or to any of `127.0.0.0/8` sent as a raw packet, arrives at servers bound to the host's
//! loopback. Its own `restrict=on` closes that together with everything else. So the network card is wired to the
//! shim, which passes Ethernet frames on to slirp and drops those that [`filter()`] refuses:
//!
//! ```text
//! guest ── virtio-net ── QEMU ── socketpair ── shim: filter ── socketpair ── stack process: slirp ── host
//! ```
//!
//! The stack's process has the box's sockets and no files; the box's QEMU has its files and no sockets. The wire also
//! counts what the stack has a socket for, and refuses connections beyond the bound.
//!
//! A box reaches any unicast address that the host itself reaches, except loopback, link-local (so no cloud
//! metadata service), multicast, the host's further addresses on its loopback interface, and [`METADATA_HOSTS`]. The
//! host's own LAN addresses are reachable, as they are from a container on a bridge: bind a server to loopback to keep
//! boxes out. DNS is 10.0.2.3 port 53 and ends at the host's resolver. There is no IPv6, no DHCP (the guest is
//! configured statically) and no outbound IP fragmentation, which keeps guest bytes away from slirp's parsers for them.
//! A box that has an [`AllowList`] reaches only what is on it. Ports of the host's loopback that the box's user names
//! ([`Network::host_ports`]) are ports of the gateway for the box, to which slirp connects at `127.0.0.1`.
//!
//! A box that is a member of networks ([`MemberNetwork`]) has one more address in each, on the same card. The wire takes what is
//! for those networks before the filter sees it, and hands it to the other boxes' shims ([`members`]).

mod allow;
mod answer;
mod card;
mod connections;
mod dns;
mod filter;
mod flow;
mod frame;
mod host;
mod mac;
mod members;
mod names;
mod record;
mod route;
mod segment;
mod slirp;
mod stack;
mod wire;

#[cfg(test)]
mod oracle;

use std::net::Ipv4Addr;

use boxlite_proto::NetConfig;
use boxlite_types::{AllowRule, PortForward};
use serde::{Deserialize, Serialize};

pub use allow::AllowList;
pub use card::card_arguments;
pub use connections::MAX_CONNECTIONS;
pub use filter::{FilterVerdict, Policy, Reason, filter};
pub use flow::{Flow, Solicited};
pub use host::{PortClaim, claim_ports, loopback_aliases, own_addresses};
pub use mac::MacAddr;
pub use members::{Exchange, Mailbox, Member, MemberNetwork, join};
pub use route::{Ipv4Net, METADATA_HOSTS, is_unreachable, unreachable_blocks};
pub use slirp::serve_stack;
pub use stack::{ShimProgram, StackCommand, StackProcess};
pub use wire::{Counts, Wire, WireEnd, WireEnds};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Published ports; the host's ports are chosen beforehand, see [`claim_ports`].
    pub ports: Vec<PortForward>,
    /// All that the box may reach; `None` lets it reach whatever boxes reach.
    #[serde(default)]
    pub allowed: Option<Vec<AllowRule>>,
    /// TCP ports of the host's loopback that the box reaches, as ports of [`GATEWAY`].
    #[serde(default)]
    pub host_ports: Vec<u16>,
    /// The most connections that the box may have at a time.
    pub max_connections: u32,
    /// The networks that the box is a member of.
    #[serde(default)]
    pub member_of: Vec<MemberNetwork>,
}

impl Network {
    /// Whether it has a user-mode stack: a box whose networks are all internal reaches nothing else.
    pub fn has_stack(&self) -> bool {
        self.member_of.is_empty() || self.member_of.iter().any(|network| !network.internal)
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            allowed: None,
            host_ports: Vec::new(),
            max_connections: MAX_CONNECTIONS,
            member_of: Vec::new(),
        }
    }
}

/// Returns the guest agent's settings of its network card; [`RESOLVER`] is its only DNS server.
pub fn guest_config(mac: MacAddr) -> NetConfig {
    NetConfig {
        address: GUEST,
        prefix: PREFIX,
        gateway: Some(GATEWAY),
        mac: mac.octets(),
        members: Vec::new(),
    }
}
