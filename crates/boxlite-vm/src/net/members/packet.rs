//! Which frames of a guest concern its network, and which packets of another box its guest may see: pure decisions over bytes
//! that guests chose.

use std::net::Ipv4Addr;

use boxlite_types::Subnet;

use super::super::frame::{ETHERNET_HEADER, IPV4_HEADER, address, be16};
use super::super::{GUEST, MacAddr, RESOLVER};
use super::MAX_PACKET;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const ARP_MESSAGE: usize = 28;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// The meaning of a guest's frame for its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GuestFrame<'a> {
    /// Nothing: it goes elsewhere.
    Elsewhere,
    /// The guest asks for the Ethernet address of this address of the network, or of the resolver.
    Asks(Ipv4Addr),
    /// The guest tells its own address.
    Tells,
    /// A whole packet from the guest to this address of the network.
    Packet(Ipv4Addr, &'a [u8]),
    /// No guest has reason to send it: it is malformed, or speaks for another.
    Refused,
}

/// Decides about a frame of the guest with the address `own` in `subnet`.
pub(super) fn outgoing(frame: &[u8], subnet: Subnet, own: Ipv4Addr) -> GuestFrame<'_> {
    let Some((header, payload)) = frame.split_at_checked(ETHERNET_HEADER) else {
        return GuestFrame::Elsewhere;
    };
    match be16(header, 12) {
        Some(ARP) => arp(payload, subnet, own),
        Some(IPV4) => match address(payload, 16) {
            Some(to) if subnet.contains(to) => whole_packet(payload, own, to)
                .map_or(GuestFrame::Refused, |packet| GuestFrame::Packet(to, packet)),
            _ => GuestFrame::Elsewhere,
        },
        _ => GuestFrame::Elsewhere,
    }
}

/// RFC 826. Of the box's other addresses, only the resolver's is asked for here: where there is no stack, nobody else answers.
fn arp(message: &[u8], subnet: Subnet, own: Ipv4Addr) -> GuestFrame<'_> {
    let Some(message) = message.get(..ARP_MESSAGE) else { return GuestFrame::Elsewhere };
    let (Some(sender), Some(target)) = (address(message, 14), address(message, 24)) else {
        return GuestFrame::Elsewhere;
    };
    let is_ours = subnet.contains(target) || subnet.contains(sender);
    let seeks_resolver = sender == GUEST && target == RESOLVER;
    if !is_ours && !seeks_resolver {
        return GuestFrame::Elsewhere;
    }
    let about_ethernet_and_ipv4 = message[..6] == [0, 1, 8, 0, 6, 4] && message[6] == 0;
    let is_own = sender == own || seeks_resolver;
    match message[7] {
        _ if !about_ethernet_and_ipv4 || !is_own => GuestFrame::Refused,
        _ if target == own => GuestFrame::Tells,
        REQUEST => GuestFrame::Asks(target),
        _ => GuestFrame::Refused,
    }
}

/// The packet of another box from `from` that the guest at `own` may see; `None` refuses it.
pub(super) fn incoming(packet: &[u8], from: Ipv4Addr, own: Ipv4Addr) -> Option<&[u8]> {
    whole_packet(packet, from, own)
}

/// The packet, without what stands behind it, if it is a whole one without options from `from` to `to`. What it carries, a
/// fragment too, is for its receiver's kernel to judge.
fn whole_packet(bytes: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> Option<&[u8]> {
    let total = usize::from(be16(bytes, 2)?);
    let is_whole = (IPV4_HEADER..=MAX_PACKET).contains(&total) && *bytes.first()? == 0x45;
    let packet = bytes.get(..total).filter(|_| is_whole)?;
    (address(packet, 12)? == from && address(packet, 16)? == to).then_some(packet)
}

/// The frame that carries `packet` between two cards.
pub(super) fn frame(packet: &[u8], from: MacAddr, to: MacAddr) -> Vec<u8> {
    [&to.octets()[..], &from.octets(), &IPV4.to_be_bytes(), packet].concat()
}

/// The answer to the guest's question for `asked`, which has the Ethernet address `mac`.
pub(super) fn arp_reply(question: &[u8], asked: Ipv4Addr, mac: MacAddr) -> Option<Vec<u8>> {
    let asker = question.get(ETHERNET_HEADER..ETHERNET_HEADER + ARP_MESSAGE)?;
    let ethernet = [&asker[8..14], &mac.octets(), &ARP.to_be_bytes()].concat();
    let message = [&[0, 1, 8, 0, 6, 4, 0, REPLY], &mac.octets()[..], &asked.octets(), &asker[8..18]].concat();
    Some([ethernet, message].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::oracle::ipv4;
    use super::*;

    const OWN: [u8; 4] = [10, 89, 0, 2];
    const PEER: [u8; 4] = [10, 89, 0, 3];
    const OUTSIDE: [u8; 4] = [192, 168, 7, 9];

    fn subnet() -> Subnet {
        Subnet::new(OWN.into(), 24)
    }

    fn judge(frame: &[u8]) -> GuestFrame<'_> {
        outgoing(frame, subnet(), OWN.into())
    }

    fn arp_frame(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1]);
        frame.extend(sender);
        frame.extend([0; 6]);
        frame.extend(target);
        frame
    }

    #[test]
    fn a_guest_sends_whole_packets_of_its_own_to_its_network() {
        let sound = ipv4(OWN, PEER, 17, b"12345678");
        assert_eq!(judge(&sound), GuestFrame::Packet(PEER.into(), &sound[ETHERNET_HEADER..]));
        let padded = [&sound[..], &[0; 9]].concat();
        assert_eq!(judge(&padded), judge(&sound));
        let with = |at: usize, byte: u8| {
            let mut frame = sound.clone();
            frame[ETHERNET_HEADER + at] = byte;
            frame
        };
        for wrong in [
            ipv4([10, 0, 2, 15], PEER, 17, b"12345678"),
            ipv4(PEER, PEER, 17, b"12345678"),
            with(0, 0x46),
            with(0, 0x65),
            with(3, 19),
            with(2, 1),
        ] {
            assert_eq!(judge(&wrong), GuestFrame::Refused, "{wrong:?}");
        }
        // As long as a card carries, and one byte more. Mutation tried: no bound.
        let longest = ipv4(OWN, PEER, 17, &[7; MAX_PACKET - IPV4_HEADER]);
        assert!(matches!(judge(&longest), GuestFrame::Packet(..)));
        let longer = ipv4(OWN, PEER, 17, &[7; MAX_PACKET - IPV4_HEADER + 1]);
        assert_eq!(judge(&longer), GuestFrame::Refused);
        assert_eq!(incoming(&longer[ETHERNET_HEADER..], OWN.into(), PEER.into()), None);
        for elsewhere in
            [ipv4(OWN, OUTSIDE, 17, b"12345678"), ipv4([10, 0, 2, 15], OUTSIDE, 6, b""), vec![0; 3]]
        {
            assert_eq!(judge(&elsewhere), GuestFrame::Elsewhere);
        }
    }

    #[test]
    fn a_guest_asks_and_tells_only_for_itself() {
        for (frame, verdict) in [
            (arp_frame(REQUEST, OWN, PEER), GuestFrame::Asks(PEER.into())),
            (arp_frame(REQUEST, GUEST.octets(), RESOLVER.octets()), GuestFrame::Asks(RESOLVER)),
            (arp_frame(REQUEST, OWN, OWN), GuestFrame::Tells),
            (arp_frame(REQUEST, PEER, OWN), GuestFrame::Refused),
            (arp_frame(REPLY, PEER, OWN), GuestFrame::Refused),
            (arp_frame(REPLY, OWN, PEER), GuestFrame::Refused),
            (arp_frame(REQUEST, PEER, PEER), GuestFrame::Refused),
            (arp_frame(REQUEST, PEER, RESOLVER.octets()), GuestFrame::Refused),
            (arp_frame(REQUEST, GUEST.octets(), [10, 0, 2, 2]), GuestFrame::Elsewhere),
            (arp_frame(REQUEST, GUEST.octets(), PEER), GuestFrame::Refused),
            // For another of its networks to judge, or for the filter.
            (arp_frame(REQUEST, OUTSIDE, RESOLVER.octets()), GuestFrame::Elsewhere),
        ] {
            assert_eq!(judge(&frame), verdict, "{frame:?}");
        }
        let (asked, mac) = (arp_frame(REQUEST, OWN, PEER), MacAddr::of_box("peer"));
        let reply = arp_reply(&asked, PEER.into(), mac).unwrap();
        assert_eq!((&reply[..6], &reply[6..12]), (&[2, 0, 0, 0, 0, 1][..], &mac.octets()[..]));
        assert_eq!((&reply[28..32], &reply[38..42]), (&PEER[..], &OWN[..]));
        assert_eq!(reply.len(), ETHERNET_HEADER + ARP_MESSAGE);
    }

    fn header() -> impl Strategy<Value = Vec<u8>> {
        let addresses = || prop_oneof![Just(OWN), Just(PEER), Just(OUTSIDE), any::<[u8; 4]>()];
        let first = prop_oneof![Just(0x45_u8), any::<u8>()];
        let length = prop_oneof![0_u16..80, any::<u16>()];
        (first, length, addresses(), addresses(), proptest::collection::vec(any::<u8>(), 0..60)).prop_map(
            |(first, length, from, to, rest)| {
                let mut packet = vec![first, 0];
                packet.extend(length.to_be_bytes());
                packet.extend([0; 8]);
                packet.extend(from);
                packet.extend(to);
                packet.extend(rest);
                packet
            },
        )
    }

    proptest! {
        /// A guest sees packets of another box only from that box, for itself, and of the length that they state. An
        /// independent reading of the header says so.
        #[test]
        fn nothing_but_whole_packets_of_the_sender_comes_in(packet in header(), cut in 0_usize..90) {
            let packet = &packet[..cut.min(packet.len())];
            if let Some(accepted) = incoming(packet, PEER.into(), OWN.into()) {
                prop_assert!(accepted.len() >= 20 && accepted.len() <= 1500 && packet.starts_with(accepted));
                prop_assert_eq!(accepted[0], 0x45);
                prop_assert_eq!(usize::from(accepted[2]) * 256 + usize::from(accepted[3]), accepted.len());
                prop_assert_eq!((&accepted[12..16], &accepted[16..20]), (&PEER[..], &OWN[..]));
            } else {
                let is_sound = packet.len() >= 20 && packet[0] == 0x45 && packet[12..16] == PEER && packet[16..20] == OWN
                    && (20..=packet.len()).contains(&(usize::from(packet[2]) * 256 + usize::from(packet[3])));
                prop_assert!(!is_sound, "a sound packet is refused");
            }
        }

        #[test]
        fn no_bytes_make_it_panic(frame in proptest::collection::vec(any::<u8>(), 0..80), kind in 0_u8..3) {
            let mut frame = frame;
            if kind > 0 && frame.len() > 22 {
                frame[12..14].copy_from_slice(&[8, if kind == 1 { 0 } else { 6 }]);
                frame[14..20].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
            }
            if let GuestFrame::Packet(to, packet) = judge(&frame) {
                prop_assert!(subnet().contains(to) && packet[12..16] == OWN);
            }
            let _ = (super::super::names::question(&frame), arp_reply(&frame, PEER.into(), MacAddr::of_box("x")));
        }
    }
}
