//! Where the fields of a frame lie: Ethernet, IPv4 (RFC 791) and TCP (RFC 9293).

use std::net::Ipv4Addr;

/// Bytes before the packet.
pub(super) const ETHERNET_HEADER: usize = 14;
/// Bytes of a packet's header without options.
pub(super) const IPV4_HEADER: usize = 20;
/// Where the transport's header begins in the frame of a packet without options.
pub(super) const TRANSPORT_AT: usize = ETHERNET_HEADER + IPV4_HEADER;

pub(super) const DNS_PORT: u16 = 53;

/// Flags of a TCP segment.
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;
pub(super) const URGENT: u8 = 0x20;

/// The big-endian number at `at`; `None` beyond the end.
pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The address at `at`; `None` beyond the end.
pub(super) fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}
