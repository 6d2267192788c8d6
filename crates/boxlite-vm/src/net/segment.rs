//! The meaning of a frame for the stack's sockets.

use std::net::Ipv4Addr;

use super::GUEST;
use super::frame::{ACK, DNS_PORT, ETHERNET_HEADER, FIN, RST, SYN, address, be16};

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// The traffic that the stack has one socket for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Connection {
    /// A connection between the guest's port and a peer.
    Tcp { guest_port: u16, peer: Ipv4Addr, peer_port: u16 },
    /// Everything that the guest sends from this port, to whomever.
    Udp { guest_port: u16 },
    /// A ping that is not answered yet.
    Ping { peer: Ipv4Addr, identifier: u16, sequence: u16 },
}

/// The effect of a frame on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionStep {
    /// It begins it, or tries again.
    Open,
    /// It accepts it.
    Accept,
    /// It goes on with it.
    Continue,
    /// Its sender has nothing more to send.
    Finish,
    /// It ends it.
    End,
    /// It answers the only question that such a conversation has.
    AnswerName,
}

/// The side of the wire that sends a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// The guest.
    Guest,
    /// The user-mode stack.
    Stack,
}

/// The connection that a frame is about, and what it does to it; `None` where the stack has no socket for it.
///
/// Frames of the guest have passed the filter, so that only what the stack sends needs a lenient look.
pub(super) fn read(frame: &[u8], sender: Sender) -> Option<(Connection, ConnectionStep)> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    if be16(frame, 12)? != 0x0800 || packet.first()? >> 4 != 4 || be16(packet, 6)? & 0x1fff != 0 {
        return None;
    }
    let (source, destination) = (address(packet, 12)?, address(packet, 16)?);
    let (guest, peer) = match sender {
        Sender::Guest => (source, destination),
        Sender::Stack => (destination, source),
    };
    if guest != GUEST {
        return None;
    }
    let transport = packet.get(usize::from(packet[0] & 15) * 4..)?;
    let ports = || {
        let (source, destination) = (be16(transport, 0)?, be16(transport, 2)?);
        Some(if sender == Sender::Guest { (source, destination) } else { (destination, source) })
    };
    match packet.get(9)? {
        1 => {
            let (identifier, sequence) = (be16(transport, 4)?, be16(transport, 6)?);
            let ping = Connection::Ping { peer, identifier, sequence };
            match (sender, *transport.first()?) {
                (Sender::Guest, ECHO_REQUEST) => Some((ping, ConnectionStep::Open)),
                (Sender::Stack, ECHO_REPLY) => Some((ping, ConnectionStep::End)),
                _ => None,
            }
        }
        6 => {
            let (guest_port, peer_port) = ports()?;
            let flags = *transport.get(13)?;
            let step = match flags {
                _ if flags & RST != 0 => ConnectionStep::End,
                _ if flags & FIN != 0 => ConnectionStep::Finish,
                _ if flags & (SYN | ACK) == SYN => ConnectionStep::Open,
                _ if flags & (SYN | ACK) == SYN | ACK => ConnectionStep::Accept,
                _ => ConnectionStep::Continue,
            };
            Some((Connection::Tcp { guest_port, peer, peer_port }, step))
        }
        17 => {
            let (guest_port, peer_port) = ports()?;
            let step = match sender {
                Sender::Guest => ConnectionStep::Open,
                Sender::Stack if peer_port == DNS_PORT => ConnectionStep::AnswerName,
                Sender::Stack => ConnectionStep::Continue,
            };
            Some((Connection::Udp { guest_port }, step))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::oracle::{ping, tcp, udp, udp_from_gateway};
    use super::*;
    use proptest::prelude::*;

    const LAN: [u8; 4] = [192, 168, 7, 9];

    fn tcp_to_lan() -> Connection {
        Connection::Tcp { guest_port: 40000, peer: LAN.into(), peer_port: 443 }
    }

    #[test]
    fn each_kind_of_frame_is_told_apart() {
        for (flags, step) in [
            (SYN, ConnectionStep::Open),
            (SYN | 0xc0, ConnectionStep::Open),
            (SYN | ACK, ConnectionStep::Accept),
            (ACK, ConnectionStep::Continue),
            (ACK | FIN, ConnectionStep::Finish),
            (RST, ConnectionStep::End),
            (RST | SYN, ConnectionStep::End),
        ] {
            let read = read(&tcp(LAN, 40000, 443, flags), Sender::Guest);
            assert_eq!(read, Some((tcp_to_lan(), step)), "{flags:02x}");
        }
        let conversation = Connection::Udp { guest_port: 40000 };
        assert_eq!(
            read(&udp(LAN, 40000, 53, b"q"), Sender::Guest),
            Some((conversation, ConnectionStep::Open))
        );
        let answer = udp_from_gateway(53, 40000, b"a");
        assert_eq!(read(&answer, Sender::Stack), Some((conversation, ConnectionStep::AnswerName)));
        let question = Connection::Ping { peer: LAN.into(), identifier: 1, sequence: 1 };
        assert_eq!(read(&ping(LAN), Sender::Guest), Some((question, ConnectionStep::Open)));
        assert_eq!(read(&ping(LAN), Sender::Stack), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(frame in proptest::collection::vec(any::<u8>(), 0..80), kind in 0u8..3) {
            let mut frame = frame;
            if kind > 0 && frame.len() > 23 {
                frame[12..15].copy_from_slice(&[8, 0, 0x45]);
                frame[23] = [1, 6, 17][usize::from(kind)];
            }
            let _ = (read(&frame, Sender::Guest), read(&frame, Sender::Stack));
        }
    }
}
