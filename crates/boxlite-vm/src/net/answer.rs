//! Frames that the wire makes itself: refusals, to either side in the name of the other.

use super::frame::{ACK, ETHERNET_HEADER, IPV4_HEADER, RST, SYN, TRANSPORT_AT, address, be16};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A TCP segment in a whole IPv4 packet without options.
#[derive(Debug, Clone, Copy)]
pub(super) struct TcpSegment<'a> {
    frame: &'a [u8],
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) flags: u8,
    pub(super) data: &'a [u8],
}

impl<'a> TcpSegment<'a> {
    /// The segment of `frame`; `None` when there is no such.
    pub(super) fn read(frame: &'a [u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET_HEADER..)?;
        let segment = packet.get(IPV4_HEADER..usize::from(be16(packet, 2)?))?;
        if packet[0] != 0x45 || packet[9] != TCP {
            return None;
        }
        let data = segment.get(usize::from(*segment.get(12)? >> 4) * 4..)?;
        let be32 = |at: usize| Some(u32::from_be_bytes(*segment.get(at..)?.first_chunk()?));
        Some(Self { frame, sequence: be32(4)?, acknowledged: be32(8)?, flags: *segment.get(13)?, data })
    }

    /// The refusal of the connection that it asks for; `None` when it asks for none.
    pub(super) fn refusal(&self) -> Option<Vec<u8>> {
        let asks = self.flags & (SYN | ACK | RST) == SYN;
        asks.then(|| self.answer(true, 0, self.sequence.wrapping_add(1), RST | ACK)).flatten()
    }

    /// The end of the connection, for its sender, who has acknowledged something before.
    pub(super) fn reset_back(&self) -> Option<Vec<u8>> {
        (self.flags & (ACK | RST) == ACK).then(|| self.answer(true, self.acknowledged, 0, RST)).flatten()
    }

    /// The end of the connection, for its receiver, who expects the byte `sequence`.
    pub(super) fn reset_on(&self, sequence: u32) -> Option<Vec<u8>> {
        self.answer(false, sequence, 0, RST)
    }

    fn answer(&self, is_back: bool, sequence: u32, acknowledged: u32, flags: u8) -> Option<Vec<u8>> {
        let ports = self.frame.get(TRANSPORT_AT..TRANSPORT_AT + 4)?;
        let mut tcp = if is_back { [&ports[2..], &ports[..2]].concat() } else { ports.to_vec() };
        tcp.extend(sequence.to_be_bytes());
        tcp.extend(acknowledged.to_be_bytes());
        tcp.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
        packet(self.frame, is_back, TCP, &summed(self.frame, TCP, tcp, 16)?)
    }
}

/// A datagram with `data` that answers the one in `frame`.
pub(super) fn datagram_back(frame: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let ports = frame.get(TRANSPORT_AT..TRANSPORT_AT + 4)?;
    let length = u16::try_from(8 + data.len()).ok()?;
    let mut udp = [&ports[2..], &ports[..2]].concat();
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(data);
    packet(frame, true, UDP, &summed(frame, UDP, udp, 6)?)
}

/// The word that `frame` is forbidden to go where it was sent to (RFC 1812, section 5.2.7.1), from there.
pub(super) fn prohibition(frame: &[u8]) -> Option<Vec<u8>> {
    let quoted = frame.get(ETHERNET_HEADER..TRANSPORT_AT + 8)?;
    let mut message = [&[3, 13, 0, 0, 0, 0, 0, 0], quoted].concat();
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum);
    packet(frame, true, ICMP, &message)
}

/// Fills in the checksum at `sum_at` of what `packet` will carry.
fn summed(frame: &[u8], protocol: u8, mut transport: Vec<u8>, sum_at: usize) -> Option<Vec<u8>> {
    // Which of the two addresses comes first makes no difference to the sum.
    let pseudo_header =
        pseudo_header(frame.get(ETHERNET_HEADER + 12..ETHERNET_HEADER + 20)?, protocol, transport.len());
    let sum = checksum(&[&pseudo_header, &transport]);
    transport[sum_at..sum_at + 2].copy_from_slice(&sum);
    Some(transport)
}

/// A packet between the two machines of `frame` that carries `transport`.
fn packet(frame: &[u8], is_back: bool, protocol: u8, transport: &[u8]) -> Option<Vec<u8>> {
    let (to, from) = (frame.get(..6)?, frame.get(6..12)?);
    let (source, destination) =
        (address(frame, ETHERNET_HEADER + 12)?.octets(), address(frame, ETHERNET_HEADER + 16)?.octets());
    let (ethernet, addresses) = if is_back {
        ([from, to].concat(), [destination, source].concat())
    } else {
        ([to, from].concat(), [source, destination].concat())
    };
    let total = u16::try_from(IPV4_HEADER + transport.len()).ok()?.to_be_bytes();
    let mut header =
        [&[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0], &addresses[..]].concat();
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    Some([&ethernet[..], &[8, 0], &header, transport].concat())
}

fn pseudo_header(addresses: &[u8], protocol: u8, length: usize) -> Vec<u8> {
    [addresses, &[0, protocol], &(length as u16).to_be_bytes()].concat()
}

/// RFC 1071; each part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let word = |word: &[u8]| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low));
    let mut sum: u32 = words.map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
