use boxlite_types::parse_ports;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::oracle::{
    ACK, Effect, RST, SYN, arp, effect, ipv4, ping, tcp, udp, udp_from, udp_from_gateway,
};
use super::*;

const GW: [u8; 4] = [10, 0, 2, 2];
const DNS: [u8; 4] = [10, 0, 2, 3];
const LAN: [u8; 4] = [192, 168, 7, 9];
const FIN: u8 = 1;

fn policy() -> Policy {
    let mut ports = parse_ports("8080:80").unwrap();
    ports.extend(parse_ports("5353:53/udp").unwrap());
    Policy::new(&ports, [Ipv4Net::host(Ipv4Addr::new(10, 200, 0, 1))])
}

fn dropped(frame: &[u8], reason: Reason) {
    assert_eq!(filter(frame, &policy()), FilterVerdict::Drop(reason), "{frame:02x?}");
}

fn passes(frame: &[u8]) {
    assert_eq!(filter(frame, &policy()), FilterVerdict::Pass, "{frame:02x?}");
}

#[test]
fn outbound_traffic_passes() {
    for to in [LAN, [1, 1, 1, 1], [10, 0, 3, 2], [10, 0, 1, 2], [223, 255, 255, 255], [168, 63, 129, 17]] {
        passes(&tcp(to, 40000, 443, SYN));
        passes(&udp(to, 40000, 443, b"x"));
        passes(&ping(to));
    }
}

#[test]
fn dns_passes_and_only_dns() {
    passes(&udp(DNS, 40000, 53, b"query"));
    passes(&tcp(DNS, 40000, 53, SYN));
    passes(&tcp(DNS, 40000, 53, ACK));
    for port in [0, 52, 54, 80, 853, 5353, 65535] {
        dropped(&udp(DNS, 40000, port, b"x"), Reason::VirtualNetwork);
        dropped(&tcp(DNS, 40000, port, SYN), Reason::VirtualNetwork);
        dropped(&tcp(DNS, 40000, port, ACK), Reason::VirtualNetwork);
    }
    dropped(&udp(GW, 40000, 53, b"query"), Reason::VirtualNetwork);
}

// Mutation tried: answering `false` from `SUBNET.contains` for the gateway in tcp() and udp() fails here.
#[test]
fn no_address_of_the_virtual_network_leads_to_the_host() {
    for last in 0..=255 {
        let to = [10, 0, 2, last];
        for port in [22, 67, 69, 80, 8080] {
            dropped(&tcp(to, 40000, port, SYN), Reason::VirtualNetwork);
            dropped(&udp(to, 40000, port, b"x"), Reason::VirtualNetwork);
        }
        if last != 2 && last != 3 {
            dropped(&ping(to), Reason::VirtualNetwork);
        }
    }
    passes(&ping(GW));
    passes(&ping(DNS));
}

// Mutation tried: dropping 127/8 from NEVER fails here and in the property below.
#[test]
fn no_local_address_of_the_host_is_a_destination() {
    for to in [
        [127, 0, 0, 1],
        [127, 0, 0, 53],
        [127, 255, 255, 255],
        [0, 0, 0, 0],
        [0, 0, 0, 1],
        [169, 254, 169, 254],
        [224, 0, 0, 251],
        [239, 255, 255, 250],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
        [10, 200, 0, 1],
        [100, 100, 100, 200],
        [168, 63, 129, 16],
        [192, 0, 0, 192],
    ] {
        for frame in [tcp(to, 80, 80, SYN), tcp(to, 80, 80, ACK), udp(to, 53, 67, b"x"), ping(to)] {
            dropped(&frame, Reason::Destination);
        }
    }
}

#[test]
fn a_published_tcp_port_may_answer_the_gateway_but_not_open() {
    for flags in [SYN | ACK, ACK, ACK | FIN, RST, RST | ACK, RST | SYN, ACK | SYN | FIN] {
        passes(&tcp(GW, 80, 50000, flags));
    }
    for flags in [SYN, SYN | FIN, 0, FIN, SYN | 8 | 0x40, SYN | 0x20, 0x80 | SYN] {
        dropped(&tcp(GW, 80, 50000, flags), Reason::Unsolicited);
    }
    dropped(&tcp(GW, 81, 50000, ACK), Reason::VirtualNetwork);
    dropped(&tcp(GW, 53, 50000, ACK), Reason::VirtualNetwork);
    dropped(&tcp([10, 0, 2, 4], 80, 50000, ACK), Reason::VirtualNetwork);
}

#[test]
fn a_published_udp_port_answers_only_on_a_flow_that_the_gateway_began() {
    let flow = Flow { peer: GATEWAY, peer_port: 50000, guest_port: 53 };
    assert_eq!(filter(&udp(GW, 53, 50000, b"answer"), &policy()), FilterVerdict::PassIfSolicited(flow));
    dropped(&udp(GW, 80, 50000, b"answer"), Reason::VirtualNetwork);
    dropped(&udp([10, 0, 2, 4], 53, 50000, b"answer"), Reason::VirtualNetwork);
    for service in [67, 69] {
        dropped(&udp(GW, 53, service, b"answer"), Reason::VirtualNetwork);
    }
    assert_eq!(solicited_by(&udp_from_gateway(50000, 53, b"question"), &policy()), Some(flow));
    assert_eq!(solicited_by(&udp_from_gateway(50000, 80, b"question"), &policy()), None);
    let dns_answer = ipv4(DNS, [10, 0, 2, 15], 17, &[0, 53, 0, 53, 0, 8, 0, 0]);
    assert_eq!(solicited_by(&dns_answer, &policy()), None);
    let outside = udp_from(LAN, 50000, 53, b"question");
    assert_eq!(solicited_by(&outside, &policy()), Some(Flow { peer: LAN.into(), ..flow }));
    let mut later_fragment = udp_from_gateway(50000, 53, b"question");
    later_fragment[21] = 1;
    assert_eq!(solicited_by(&later_fragment, &policy()), None);
    let mut first_fragment = udp_from_gateway(50000, 53, b"question");
    first_fragment[20] |= 0x20;
    assert_eq!(solicited_by(&first_fragment, &policy()), Some(flow));
}

#[test]
fn without_published_ports_nothing_goes_to_the_gateway() {
    let policy = Policy::new(&[], []);
    for frame in [tcp(GW, 80, 1, ACK), tcp(GW, 80, 1, SYN | ACK), udp(GW, 53, 1, b"x")] {
        assert_eq!(filter(&frame, &policy), FilterVerdict::Drop(Reason::VirtualNetwork));
    }
}

#[test]
fn fragments_options_and_foreign_sources_are_dropped() {
    for (at, bits) in [(20, 0x20), (20, 0x80), (20, 0x01), (21, 0x01), (21, 0xff)] {
        let mut frame = tcp(LAN, 1, 2, SYN);
        frame[at] |= bits;
        dropped(&frame, Reason::Fragment);
    }
    let mut options = tcp(LAN, 1, 2, SYN);
    options[14] = 0x46;
    dropped(&options, Reason::Options);
    for source in [[10, 0, 2, 16], [127, 0, 0, 1], [0, 0, 0, 0], [192, 168, 7, 9]] {
        dropped(&ipv4(source, LAN, 17, &[0, 1, 0, 2, 0, 8, 0, 0]), Reason::Source);
    }
}

#[test]
fn other_protocols_are_dropped() {
    for protocol in (0..=255).filter(|protocol| ![1, 6, 17].contains(protocol)) {
        dropped(&ipv4([10, 0, 2, 15], LAN, protocol, &[0; 40]), Reason::Protocol);
    }
    for kind in (0..=255).filter(|kind| *kind != 8) {
        dropped(&ipv4([10, 0, 2, 15], LAN, 1, &[kind, 0, 0, 0, 0, 0, 0, 0]), Reason::Protocol);
    }
    for kind in [[0x86, 0xdd], [0x88, 0xf8], [0x81, 0], [0, 46], [0x80, 0x35]] {
        let mut frame = tcp(LAN, 1, 2, SYN);
        frame[12..14].copy_from_slice(&kind);
        dropped(&frame, Reason::EtherType);
    }
}

#[test]
fn arp_speaks_for_the_guest_only() {
    passes(&arp(1, [10, 0, 2, 15]));
    passes(&arp(2, [10, 0, 2, 15]));
    dropped(&arp(3, [10, 0, 2, 15]), Reason::Arp);
    dropped(&arp(1, GW), Reason::Arp);
    dropped(&arp(1, [0, 0, 0, 0]), Reason::Arp);
    for at in 14..20 {
        let mut frame = arp(1, [10, 0, 2, 15]);
        frame[at] ^= 1;
        dropped(&frame, Reason::Arp);
    }
}

#[test]
fn every_truncation_is_malformed_and_padding_is_not() {
    for whole in [tcp(LAN, 1, 2, SYN), udp(LAN, 1, 2, b"data"), ping(LAN), arp(1, [10, 0, 2, 15])] {
        for length in 0..whole.len() {
            dropped(&whole[..length], Reason::Malformed);
        }
        let mut padded = whole;
        padded.resize(60, 0);
        passes(&padded);
    }
    let longest = udp(LAN, 1, 2, &[0; 1472]);
    assert_eq!(longest.len(), MAX_FRAME);
    passes(&longest);
    dropped(&udp(LAN, 1, 2, &[0; 1473]), Reason::Malformed);
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    let with = |frame: Vec<u8>, at: usize, byte: u8| {
        let mut frame = frame;
        frame[at] = byte;
        frame
    };
    dropped(&with(tcp(LAN, 1, 2, SYN), 14, 0x44), Reason::Malformed);
    dropped(&with(tcp(LAN, 1, 2, SYN), 14, 0x65), Reason::Malformed);
    dropped(&with(tcp(LAN, 1, 2, SYN), 17, 19), Reason::Malformed);
    dropped(&with(tcp(LAN, 1, 2, SYN), 46, 0x40), Reason::Malformed);
    dropped(&with(tcp(LAN, 1, 2, SYN), 46, 0x60), Reason::Malformed);
    dropped(&with(udp(LAN, 1, 2, b"x"), 39, 7), Reason::Malformed);
    dropped(&with(udp(LAN, 1, 2, b"x"), 39, 10), Reason::Malformed);
}

fn interesting_address() -> impl Strategy<Value = [u8; 4]> {
    let chosen = select(vec![
        GW,
        DNS,
        LAN,
        [10, 0, 2, 15],
        [10, 0, 2, 255],
        [10, 0, 2, 0],
        [127, 0, 0, 1],
        [0, 0, 0, 0],
        [169, 254, 169, 254],
        [255, 255, 255, 255],
        [224, 0, 0, 1],
        [8, 8, 8, 8],
    ]);
    prop_oneof![4 => chosen, 1 => any::<[u8; 4]>()]
}

fn interesting_port() -> impl Strategy<Value = u16> {
    prop_oneof![3 => select(vec![0u16, 53, 67, 69, 80, 7, 50000]), 1 => any::<u16>()]
}

fn public_address() -> impl Strategy<Value = [u8; 4]> {
    any::<[u8; 4]>().prop_filter("an address outside", |to| {
        matches!(effect(&ping(*to)), Effect::Outside(_)) && !policy().blocks((*to).into())
    })
}

/// Frames that are nearly right, then spoilt in a few bytes.
fn hostile_frame() -> impl Strategy<Value = Vec<u8>> {
    let source = prop_oneof![8 => Just([10u8, 0, 2, 15]), 1 => interesting_address()];
    let ports = (interesting_port(), interesting_port());
    let transport = (select(vec![1u8, 6, 17, 17, 6, 2]), ports, any::<u8>(), vec(any::<u8>(), 0..24));
    let packet =
        (source, interesting_address(), transport).prop_map(|(from, to, (protocol, ports, flags, data))| {
            let frame = match protocol {
                6 => tcp(to, ports.0, ports.1, flags),
                17 => udp(to, ports.0, ports.1, &data),
                1 => ping(to),
                other => ipv4(from, to, other, &data),
            };
            let mut frame = frame;
            frame[26..30].copy_from_slice(&from);
            frame
        });
    let frame = prop_oneof![8 => packet, 1 => interesting_address().prop_map(|sender| arp(1, sender))];
    let spoils = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (frame, spoils, 0usize..8, vec(any::<u8>(), 0..8)).prop_map(|(mut frame, spoils, cut, tail)| {
        for (at, byte) in spoils {
            let at = 12 + at.index(frame.len() - 12);
            frame[at] = byte;
        }
        frame.truncate(frame.len() - cut.saturating_sub(4));
        frame.extend(tail);
        frame
    })
}

fn check(frame: &[u8]) -> Result<(), TestCaseError> {
    let effect = effect(frame);
    let fine = match filter(frame, &policy()) {
        FilterVerdict::Drop(_) => return Ok(()),
        FilterVerdict::PassIfSolicited(flow) => effect == Effect::AnswersUdp(flow.guest_port, flow.peer_port),
        FilterVerdict::Pass => match effect {
            Effect::Nothing | Effect::Resolver | Effect::Pong => true,
            Effect::Teaches(address) => address == GUEST,
            Effect::AnswersTcp(guest_port) => guest_port == 80,
            Effect::Outside(address) => {
                address != Ipv4Addr::new(10, 200, 0, 1)
                    && !METADATA_HOSTS.iter().any(|net| net.contains(address))
            }
            Effect::Exposes(_) | Effect::Loopback | Effect::AnswersUdp(..) => false,
        },
    };
    prop_assert!(fine, "{effect:?} passed: {frame:02x?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    // Mutations tried, each rejected: no fragment check; SYN alone allowed to the gateway; 255.255.255.255 let through;
    // DNS on any port; UDP length below 8.
    #[test]
    fn nothing_that_passes_reaches_the_host(frame in hostile_frame()) {
        check(&frame)?;
    }

    #[test]
    fn no_bytes_panic(frame in vec(any::<u8>(), 0..1600)) {
        check(&frame)?;
        let _ = solicited_by(&frame, &policy());
    }

    #[test]
    fn no_frame_of_the_stack_panics(frame in hostile_frame()) {
        let _ = solicited_by(&frame, &policy());
    }

    #[test]
    fn every_whole_packet_to_a_public_address_passes(
        to in public_address(), ports: (u16, u16), flags: u8, data in vec(any::<u8>(), 0..1460)
    ) {
        prop_assert_eq!(filter(&tcp(to, ports.0, ports.1, flags), &policy()), FilterVerdict::Pass);
        prop_assert_eq!(filter(&udp(to, ports.0, ports.1, &data), &policy()), FilterVerdict::Pass);
    }
}

// Mutations tried: any port where one is allowed; every address of the virtual network.
#[test]
fn only_the_named_ports_of_the_host_are_reached() {
    let policy = policy().with_host_ports(&[5432, 6379]);
    for flags in [SYN, ACK, RST, FIN | ACK] {
        assert_eq!(filter(&tcp(GW, 40000, 5432, flags), &policy), FilterVerdict::Pass);
        assert_eq!(filter(&tcp(GW, 80, 6379, flags), &policy), FilterVerdict::Pass);
        for (to, port) in [(GW, 5431), (GW, 80), (DNS, 5432), ([10, 0, 2, 4], 5432), ([10, 0, 2, 255], 6379)]
        {
            let verdict = filter(&tcp(to, 40000, port, flags), &policy);
            assert_eq!(verdict, FilterVerdict::Drop(Reason::VirtualNetwork), "{to:?}:{port}");
        }
        let loopback = filter(&tcp([127, 0, 0, 1], 40000, 5432, flags), &policy);
        assert_eq!(loopback, FilterVerdict::Drop(Reason::Destination));
    }
    let datagram = filter(&udp(GW, 40000, 5432, b"x"), &policy);
    assert_eq!(datagram, FilterVerdict::Drop(Reason::VirtualNetwork));
}
