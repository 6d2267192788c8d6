//! Test oracle: what the user-mode stack would do with a frame, modelled apart from the filter.
//!
//! It reads leniently, as libslirp does, and assumes the worst of all its versions: any address of the virtual network
//! other than DNS, and the limited broadcast, means the host's loopback. Also builds frames for the tests.

use std::net::Ipv4Addr;

/// The effect of handing a frame to the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The stack ignores it.
    Nothing,
    /// It teaches the stack the Ethernet address of this IP address.
    Teaches(Ipv4Addr),
    /// It enters a parser that boxes have no use for.
    Exposes(&'static str),
    /// It opens a connection, or sends a datagram, to the host's loopback.
    Loopback,
    /// It belongs to the TCP connection between this guest port and a client of the gateway, if there is one.
    AnswersTcp(u16),
    /// The stack sends it from the published UDP socket of the first port to the second port of the host's loopback.
    AnswersUdp(u16, u16),
    /// It reaches port 53 of the host's resolver.
    Resolver,
    /// The stack itself answers a ping.
    Pong,
    /// It reaches this address outside.
    Outside(Ipv4Addr),
}

pub(super) fn effect(frame: &[u8]) -> Effect {
    if frame.len() < 14 {
        return Effect::Nothing;
    }
    let kind = u32::from(frame[12]) * 256 + u32::from(frame[13]);
    let body = &frame[14..];
    match kind {
        0x0806 if body.len() >= 28 => Effect::Teaches(ip(&body[14..18])),
        0x0800 => ip_effect(body),
        0x86dd => Effect::Exposes("ipv6"),
        0x88f8 => Effect::Exposes("ncsi"),
        _ => Effect::Nothing,
    }
}

fn ip_effect(packet: &[u8]) -> Effect {
    if packet.len() < 20 || packet[0] / 16 != 4 {
        return Effect::Nothing;
    }
    let header = (packet[0] % 16) as usize * 4;
    let total = packet[2] as usize * 256 + packet[3] as usize;
    if header < 20 || header > packet.len() || total < header || total > packet.len() {
        return Effect::Nothing;
    }
    if header > 20 {
        return Effect::Exposes("options");
    }
    if packet[6] & 0b1011_1111 != 0 || packet[7] != 0 {
        return Effect::Exposes("reassembly");
    }
    if ip(&packet[12..16]) != Ipv4Addr::new(10, 0, 2, 15) {
        return Effect::Exposes("foreign source");
    }
    let (to, rest) = (ip(&packet[16..20]), &packet[20..total]);
    let port = |at: usize| u16::from(rest[at]) * 256 + u16::from(rest[at + 1]);
    let [a, b, c, d] = to.octets();
    let virtual_net = (a, b, c) == (10, 0, 2);
    let host = a == 0 || a == 127 || a >= 224 || (a, b) == (169, 254);
    match packet[9] {
        1 if rest.len() < 8 => Effect::Nothing,
        1 if rest[0] != 8 => Effect::Exposes("icmp"),
        1 if virtual_net && (d == 2 || d == 3) => Effect::Pong,
        1 if virtual_net || host => Effect::Loopback,
        6 if rest.len() < 20 => Effect::Exposes("short tcp"),
        6 => {
            let (syn, rst, ack) = (rest[13] & 2 != 0, rest[13] & 4 != 0, rest[13] & 16 != 0);
            let opens = !ack && !rst;
            match () {
                () if host => Effect::Loopback,
                () if virtual_net && d == 3 && port(2) == 53 => Effect::Resolver,
                () if virtual_net && (opens || (syn && !ack && !rst)) => Effect::Loopback,
                () if virtual_net && d == 2 => Effect::AnswersTcp(port(0)),
                () if virtual_net => Effect::Loopback,
                () => Effect::Outside(to),
            }
        }
        17 if rest.len() < 8 || port(4) < 8 => Effect::Exposes("short udp"),
        17 if port(4) as usize > rest.len() => Effect::Nothing,
        17 if host && a != 255 => Effect::Loopback,
        17 if (a == 255 || virtual_net) && port(2) == 67 => Effect::Exposes("bootp"),
        17 if a == 255 => Effect::Loopback,
        17 if virtual_net && d == 2 && port(2) == 69 => Effect::Exposes("tftp"),
        17 if virtual_net && d == 3 && port(2) == 53 => Effect::Resolver,
        17 if virtual_net && d == 2 => Effect::AnswersUdp(port(0), port(2)),
        17 if virtual_net => Effect::Loopback,
        1 | 17 => Effect::Outside(to),
        _ => Effect::Nothing,
    }
}

fn ip(octets: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])
}

pub(super) const SYN: u8 = 2;
pub(super) const ACK: u8 = 16;
pub(super) const RST: u8 = 4;

/// An Ethernet frame with an IPv4 packet of `protocol` from `from` to `to`.
pub(super) fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, segment: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x52, 0x55, 10, 0, 2, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let total = (20 + segment.len()) as u16;
    frame.extend([0x45, 0, (total >> 8) as u8, total as u8, 0, 1, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend(from);
    frame.extend(to);
    frame.extend(segment);
    frame
}

pub(super) fn tcp(to: [u8; 4], guest_port: u16, port: u16, flags: u8) -> Vec<u8> {
    ipv4([10, 0, 2, 15], to, 6, &tcp_segment(guest_port, port, flags))
}

/// A segment from a peer's `port` to the guest's `guest_port`, as the stack sends it.
pub(super) fn tcp_from(peer: [u8; 4], port: u16, guest_port: u16, flags: u8) -> Vec<u8> {
    ipv4(peer, [10, 0, 2, 15], 6, &tcp_segment(port, guest_port, flags))
}

fn tcp_segment(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

pub(super) fn udp(to: [u8; 4], guest_port: u16, port: u16, data: &[u8]) -> Vec<u8> {
    ipv4([10, 0, 2, 15], to, 17, &datagram(guest_port, port, data))
}

/// A datagram from the gateway's `port` to the guest's `guest_port`, as the stack sends it.
pub(super) fn udp_from_gateway(port: u16, guest_port: u16, data: &[u8]) -> Vec<u8> {
    udp_from([10, 0, 2, 2], port, guest_port, data)
}

/// A datagram from a peer's `port` to the guest's `guest_port`, as the stack sends it.
pub(super) fn udp_from(peer: [u8; 4], port: u16, guest_port: u16, data: &[u8]) -> Vec<u8> {
    ipv4(peer, [10, 0, 2, 15], 17, &datagram(port, guest_port, data))
}

/// A segment with `data` of the guest's, whose first byte has this number, with its checksums.
pub(super) fn data(to: [u8; 4], guest_port: u16, port: u16, sequence: u32, data: &[u8]) -> Vec<u8> {
    let mut segment = tcp_segment(guest_port, port, ACK);
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment.extend(data);
    let mut summed = [&[10, 0, 2, 15], &to[..], &[0, 6], &(segment.len() as u16).to_be_bytes()[..]].concat();
    summed.extend(&segment);
    segment[16..18].copy_from_slice(&ones_complement(&summed));
    let mut frame = ipv4([10, 0, 2, 15], to, 6, &segment);
    let sum = ones_complement(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum);
    frame
}

fn ones_complement(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0u64;
    for (index, byte) in bytes.iter().enumerate() {
        sum += u64::from(*byte) << if index % 2 == 0 { 8 } else { 0 };
    }
    while sum > 0xffff {
        sum = sum % 0x10000 + sum / 0x10000;
    }
    (!(sum as u16)).to_be_bytes()
}

fn datagram(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    let mut datagram = [from, to, length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(data);
    datagram
}

pub(super) fn ping(to: [u8; 4]) -> Vec<u8> {
    ipv4([10, 0, 2, 15], to, 1, &[8, 0, 0, 0, 0, 1, 0, 1])
}

pub(super) fn arp(operation: u8, sender: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6];
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1]);
    frame.extend(sender);
    frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    frame
}

/// A query of the domain name system for the address of `name`.
pub(super) fn name_query(name: &str) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}
