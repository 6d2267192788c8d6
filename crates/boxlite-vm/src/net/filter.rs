//! Which frames from a guest may reach the user-mode stack: a pure decision over bytes that the guest chose.

use std::net::Ipv4Addr;

use boxlite_types::{PortForward, Protocol};

use super::frame::{DNS_PORT, ETHERNET_HEADER, IPV4_HEADER, address, be16};
use super::route::never_reachable;
use super::{Flow, GATEWAY, GUEST, Ipv4Net, METADATA_HOSTS, RESOLVER, SUBNET};

/// The longest Ethernet frame on the virtual wire: 14 bytes of header and 1500 of payload.
pub(super) const MAX_FRAME: usize = 1514;

/// DHCP and TFTP, which slirp serves at the gateway by itself.
const STACK_SERVICES: [u16; 2] = [67, 69];

/// The permissions of a box, beyond the rules that hold for every box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    published_tcp: Vec<u16>,
    published_udp: Vec<u16>,
    host_tcp: Vec<u16>,
    blocked: Vec<Ipv4Net>,
}

impl Policy {
    /// The policy of a box with these published ports, which may not reach `blocked` nor [`METADATA_HOSTS`].
    pub fn new(ports: &[PortForward], blocked: impl IntoIterator<Item = Ipv4Net>) -> Self {
        let published = |protocol| {
            let mut ports: Vec<u16> =
                ports.iter().filter(|p| p.protocol == protocol).map(|p| p.guest).collect();
            ports.sort_unstable();
            ports.dedup();
            ports
        };
        Self {
            published_tcp: published(Protocol::Tcp),
            published_udp: published(Protocol::Udp),
            host_tcp: Vec::new(),
            blocked: blocked.into_iter().chain(METADATA_HOSTS).collect(),
        }
    }

    /// The same for a box that reaches these TCP ports of the host's loopback, as ports of [`GATEWAY`].
    #[must_use]
    pub fn with_host_ports(mut self, ports: &[u16]) -> Self {
        self.host_tcp = ports.to_vec();
        self.host_tcp.sort_unstable();
        self
    }

    /// Whether the box reaches any port of the host's loopback.
    pub(super) fn reaches_any_host_port(&self) -> bool {
        !self.host_tcp.is_empty()
    }

    /// Whether a connection to this port of `peer` leads to a port of the host's loopback that the box may reach.
    fn reaches_host(&self, peer: Ipv4Addr, port: u16) -> bool {
        peer == GATEWAY && self.host_tcp.binary_search(&port).is_ok()
    }

    fn blocks(&self, address: Ipv4Addr) -> bool {
        never_reachable(address) || self.blocked.iter().any(|block| block.contains(address))
    }

    fn publishes(&self, protocol: Protocol, guest_port: u16) -> bool {
        let ports = match protocol {
            Protocol::Tcp => &self.published_tcp,
            Protocol::Udp => &self.published_udp,
        };
        ports.binary_search(&guest_port).is_ok()
    }
}

/// The decision about one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterVerdict {
    /// Hand it to the user-mode stack.
    Pass,
    /// Hand it on only if the gateway has sent on this flow before: it answers a client of a published UDP port.
    PassIfSolicited(Flow),
    /// Drop it.
    Drop(Reason),
}

/// Why a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A length or header field contradicts the frame.
    Malformed,
    /// Neither ARP nor IPv4.
    EtherType,
    /// An ARP message that is not Ethernet/IPv4, or speaks for another address than the guest's.
    Arp,
    /// IPv4 with options.
    Options,
    /// A piece of a fragmented datagram.
    Fragment,
    /// A source address other than the guest's.
    Source,
    /// Neither TCP, UDP nor an ICMP echo request.
    Protocol,
    /// The destination is loopback, link-local, multicast, reserved or blocked by the policy.
    Destination,
    /// The destination is in the virtual network and is not DNS.
    VirtualNetwork,
    /// An answer to the gateway on a flow that the gateway did not begin.
    Unsolicited,
}

impl Reason {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::EtherType,
        Self::Arp,
        Self::Options,
        Self::Fragment,
        Self::Source,
        Self::Protocol,
        Self::Destination,
        Self::VirtualNetwork,
        Self::Unsolicited,
    ];
}

/// Decides about a frame sent by the guest.
///
/// Everything that passes is a well-formed ARP message about the guest's own address, or a whole IPv4 packet without
/// options from the guest's address, of TCP, UDP or ICMP echo, whose destination is allowed.
pub fn filter(frame: &[u8], policy: &Policy) -> FilterVerdict {
    decide(frame, policy).unwrap_or_else(FilterVerdict::Drop)
}

/// The flow that a frame from the user-mode stack opens for answers: a client → published UDP port.
pub(super) fn solicited_by(frame: &[u8], policy: &Policy) -> Option<Flow> {
    let (header, packet) = frame.split_at_checked(ETHERNET_HEADER)?;
    if be16(header, 12)? != 0x0800 || *packet.first()? >> 4 != 4 || be16(packet, 6)? & 0x1fff != 0 {
        return None;
    }
    let peer = address(packet, 12)?;
    let is_client = peer == GATEWAY || !SUBNET.contains(peer);
    if *packet.get(9)? != 17 || !is_client || address(packet, 16)? != GUEST {
        return None;
    }
    let udp = packet.get(usize::from(packet[0] & 15) * 4..)?;
    let flow = Flow { peer, peer_port: be16(udp, 0)?, guest_port: be16(udp, 2)? };
    policy.publishes(Protocol::Udp, flow.guest_port).then_some(flow)
}

fn decide(frame: &[u8], policy: &Policy) -> Result<FilterVerdict, Reason> {
    if frame.len() > MAX_FRAME {
        return Err(Reason::Malformed);
    }
    let (header, payload) = frame.split_at_checked(ETHERNET_HEADER).ok_or(Reason::Malformed)?;
    match u16::from_be_bytes([header[12], header[13]]) {
        0x0806 => arp(payload),
        0x0800 => ipv4(payload, policy),
        _ => Err(Reason::EtherType),
    }
}

/// RFC 826, for Ethernet and IPv4 only.
fn arp(message: &[u8]) -> Result<FilterVerdict, Reason> {
    let message = message.get(..28).ok_or(Reason::Malformed)?;
    let about_ethernet_and_ipv4 = message[..6] == [0, 1, 8, 0, 6, 4];
    let request_or_reply = message[6] == 0 && (message[7] == 1 || message[7] == 2);
    if about_ethernet_and_ipv4 && request_or_reply && message[14..18] == GUEST.octets() {
        Ok(FilterVerdict::Pass)
    } else {
        Err(Reason::Arp)
    }
}

/// RFC 791.
fn ipv4(packet: &[u8], policy: &Policy) -> Result<FilterVerdict, Reason> {
    let header = packet.get(..IPV4_HEADER).ok_or(Reason::Malformed)?;
    match header[0] {
        0x45 => {}
        0x46..=0x4f => return Err(Reason::Options),
        _ => return Err(Reason::Malformed),
    }
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // Bytes after the packet are Ethernet padding; slirp trims them.
    let segment = packet.get(IPV4_HEADER..total).ok_or(Reason::Malformed)?;
    // The reserved bit above "don't fragment" counts as a fragment in slirp's test, so it does here.
    if u16::from_be_bytes([header[6], header[7]]) & !0x4000 != 0 {
        return Err(Reason::Fragment);
    }
    if header[12..16] != GUEST.octets() {
        return Err(Reason::Source);
    }
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    if policy.blocks(destination) {
        return Err(Reason::Destination);
    }
    match header[9] {
        1 => icmp(segment, destination),
        6 => tcp(segment, destination, policy),
        17 => udp(segment, destination, policy),
        _ => Err(Reason::Protocol),
    }
}

/// Echo requests only; slirp answers those to the gateway and to the resolver itself.
fn icmp(message: &[u8], destination: Ipv4Addr) -> Result<FilterVerdict, Reason> {
    let header = message.get(..8).ok_or(Reason::Malformed)?;
    if header[0] != 8 {
        return Err(Reason::Protocol);
    }
    if SUBNET.contains(destination) && destination != GATEWAY && destination != RESOLVER {
        return Err(Reason::VirtualNetwork);
    }
    Ok(FilterVerdict::Pass)
}

fn tcp(segment: &[u8], destination: Ipv4Addr, policy: &Policy) -> Result<FilterVerdict, Reason> {
    let header = segment.get(..20).ok_or(Reason::Malformed)?;
    let data_offset = usize::from(header[12] >> 4) * 4;
    if data_offset < 20 || data_offset > segment.len() {
        return Err(Reason::Malformed);
    }
    if !SUBNET.contains(destination) || is_dns(header, destination) {
        return Ok(FilterVerdict::Pass);
    }
    if be16(header, 2).is_some_and(|port| policy.reaches_host(destination, port)) {
        return Ok(FilterVerdict::Pass);
    }
    if destination != GATEWAY || !policy.publishes(Protocol::Tcp, u16::from_be_bytes([header[0], header[1]]))
    {
        return Err(Reason::VirtualNetwork);
    }
    // slirp opens a connection only for SYN without ACK and RST: with either, the segment belongs to a connection that
    // the host opened through a published port, or it is answered with a reset.
    let (rst, ack) = (header[13] & 0x04 != 0, header[13] & 0x10 != 0);
    if ack || rst { Ok(FilterVerdict::Pass) } else { Err(Reason::Unsolicited) }
}

fn udp(datagram: &[u8], destination: Ipv4Addr, policy: &Policy) -> Result<FilterVerdict, Reason> {
    let header = datagram.get(..8).ok_or(Reason::Malformed)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if length < 8 || length > datagram.len() {
        return Err(Reason::Malformed);
    }
    if !SUBNET.contains(destination) || is_dns(header, destination) {
        return Ok(FilterVerdict::Pass);
    }
    let flow = Flow {
        peer: destination,
        guest_port: u16::from_be_bytes([header[0], header[1]]),
        peer_port: u16::from_be_bytes([header[2], header[3]]),
    };
    let a_service = STACK_SERVICES.contains(&flow.peer_port);
    if destination == GATEWAY && !a_service && policy.publishes(Protocol::Udp, flow.guest_port) {
        return Ok(FilterVerdict::PassIfSolicited(flow));
    }
    Err(Reason::VirtualNetwork)
}

fn is_dns(transport: &[u8], destination: Ipv4Addr) -> bool {
    destination == RESOLVER && be16(transport, 2) == Some(DNS_PORT)
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
