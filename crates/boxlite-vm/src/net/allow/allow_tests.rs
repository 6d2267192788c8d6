use proptest::prelude::*;

use super::super::oracle::{ACK, SYN, arp, data, name_query, ping, tcp, tcp_from, udp, udp_from};
use super::questions::UDP_DATA_AT;
use super::*;

const SITE: [u8; 4] = [93, 184, 216, 34];
const OTHER: [u8; 4] = [93, 184, 216, 35];
const LAN: [u8; 4] = [192, 168, 7, 9];
const DNS: [u8; 4] = [10, 0, 2, 3];
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
const EVIL: &[u8] = b"GET / HTTP/1.1\r\nHost: evil.org\r\n\r\n";

fn list(rules: &[&str]) -> AllowList {
    AllowList::new(
        rules.iter().map(|text| text.parse().unwrap()).collect(),
        vec![Ipv4Net::host([8, 8, 4, 4].into())],
    )
}

fn judge_with(list: &mut AllowList, frame: &[u8], connections: &OpenConnections) -> AllowVerdict {
    let solicited = Solicited::default();
    let around = Surroundings { connections, solicited: &solicited, now: Instant::now() };
    list.judge(&mut frame.to_vec(), around)
}

fn judge(list: &mut AllowList, frame: &[u8]) -> AllowVerdict {
    judge_with(list, frame, &OpenConnections::new(8))
}

/// Why the frame is refused; `None` when it is not.
fn refused(list: &mut AllowList, frame: &[u8]) -> Option<RefusalKind> {
    match judge(list, frame) {
        AllowVerdict::Refuse(refusal) => Some(refusal.kind),
        _ => None,
    }
}

/// Asks for `name`, and answers that it is at `address`.
fn resolve_to(list: &mut AllowList, name: &str, address: [u8; 4]) {
    let solicited = Solicited::default();
    let connections = OpenConnections::new(8);
    let around = Surroundings { connections: &connections, solicited: &solicited, now: Instant::now() };
    let mut asked = udp(DNS, 40000, 53, &name_query(name));
    assert_eq!(list.judge(&mut asked, around), AllowVerdict::Carry);
    let mut answer = asked[UDP_DATA_AT..].to_vec();
    answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    answer.extend(address);
    let mut frame = udp_from(DNS, 53, 40000, &answer);
    assert!(list.learn(&mut frame, Instant::now()));
    assert_eq!(frame[UDP_DATA_AT..UDP_DATA_AT + 2], [0xab, 0xcd], "the guest's own number");
}

fn resolve(list: &mut AllowList, name: &str) {
    resolve_to(list, name, SITE);
}

/// Opens a connection from the guest's port to SITE, which the stack accepts.
fn open(list: &mut AllowList, guest_port: u16, port: u16) {
    assert_eq!(judge(list, &tcp(SITE, guest_port, port, SYN)), AllowVerdict::Carry);
    accept(list, guest_port, port);
}

fn accept(list: &mut AllowList, guest_port: u16, port: u16) {
    let mut accept = tcp_from(SITE, port, guest_port, SYN | ACK);
    accept[14 + 20 + 8..][..4].copy_from_slice(&2u32.to_be_bytes());
    // The stack numbers each connection otherwise.
    let number = (list.acceptances as u32 + 1) * 64_000;
    accept[14 + 20 + 4..][..4].copy_from_slice(&number.to_be_bytes());
    assert!(list.learn(&mut accept, Instant::now()));
}

// Mutations tried: a block without its port; pings of every address.
#[test]
fn blocks_allow_what_goes_to_them_and_their_port() {
    let mut list = list(&["192.168.7.0/24", "1.1.1.1:53"]);
    for frame in [
        tcp(LAN, 1, 22, SYN),
        tcp(LAN, 1, 22, ACK),
        udp(LAN, 1, 9, b"x"),
        ping(LAN),
        udp([1; 4], 1, 53, b"x"),
        tcp([1; 4], 1, 53, SYN),
        arp(1, [10, 0, 2, 15]),
        ping([10, 0, 2, 2]),
        tcp([10, 0, 2, 2], 80, 50000, ACK),
    ] {
        assert_eq!(judge(&mut list, &frame), AllowVerdict::Carry, "{frame:02x?}");
    }
    for (frame, kind) in [
        (tcp([1; 4], 1, 443, SYN), RefusalKind::Address),
        (udp([1; 4], 1, 443, b"x"), RefusalKind::Datagram),
        (ping([1; 4]), RefusalKind::Ping),
        (tcp(SITE, 1, 443, SYN), RefusalKind::Address),
        (udp([8; 4], 1, 53, b"x"), RefusalKind::Resolver),
        (udp([8; 4], 1, 853, b"x"), RefusalKind::Resolver),
        (tcp([8; 4], 1, 853, SYN), RefusalKind::Resolver),
        (tcp(DNS, 1, 53, SYN), RefusalKind::Resolver),
    ] {
        assert_eq!(refused(&mut list, &frame), Some(kind), "{frame:02x?}");
    }
}

// Mutation tried: questions for every name.
#[test]
fn the_resolver_is_asked_for_allowed_names_alone() {
    let mut list = list(&["*.example.com", "one.org:443"]);
    for (name, allowed) in
        [("www.example.com", true), ("ONE.org", true), ("secret.evil.org", false), ("example.com", false)]
    {
        match judge(&mut list, &udp(DNS, 40000, 53, &name_query(name))) {
            AllowVerdict::Carry => assert!(allowed, "{name}"),
            AllowVerdict::Refuse(RefusedFrame {
                kind: RefusalKind::Name,
                to_guest: Some(answer),
                to_stack: None,
                ..
            }) => {
                assert!(!allowed, "{name}");
                assert_eq!(
                    answer[42..46],
                    [0xab, 0xcd, 0x81, 0x83],
                    "no such name, under the question's number"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(refused(&mut list, &udp(DNS, 1, 53, b"not a question")), Some(RefusalKind::Name));
    let mut service = name_query("www.example.com");
    let at = service.len() - 3;
    service[at] = 65;
    assert!(matches!(judge(&mut list, &udp(DNS, 1, 53, &service)), AllowVerdict::Answer(_)));
}

// Mutations tried: learning from answers to no question; learning by the question's number alone.
#[test]
fn only_the_answer_to_a_question_is_believed() {
    let mut list = list(&["www.example.com", "elsewhere.net"]);
    let mut answer = name_query("www.example.com");
    answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    answer.extend(SITE);
    for frame in [udp_from(DNS, 53, 40000, &answer), udp_from(DNS, 54, 40000, &answer)] {
        assert!(!list.learn(&mut frame.clone(), Instant::now()), "nobody asked");
    }
    for from in [LAN, [10, 0, 2, 2]] {
        assert!(list.learn(&mut udp_from(from, 53, 40000, &answer), Instant::now()), "no resolver's");
    }
    assert_eq!(refused(&mut list, &tcp(SITE, 1, 443, SYN)), Some(RefusalKind::Address));
}

// Mutation tried: without `is_private`, and without `own`.
#[test]
fn no_name_leads_into_a_private_network_or_to_the_host() {
    let mut list = list(&["www.example.com"]);
    for address in
        [LAN, [127, 0, 0, 1], [169, 254, 169, 254], [10, 0, 2, 7], [100, 100, 100, 200], [8, 8, 4, 4]]
    {
        resolve_to(&mut list, "www.example.com", address);
        assert_eq!(refused(&mut list, &tcp(address, 1, 80, SYN)), Some(RefusalKind::Address), "{address:?}");
    }
}

#[test]
fn a_name_allows_the_addresses_that_the_resolver_gave_for_it_on_its_port() {
    let mut list = list(&["www.example.com:443", "other.org", "elsewhere.net:8080"]);
    assert!(refused(&mut list, &tcp(SITE, 1, 443, SYN)).is_some(), "not asked for yet");
    resolve(&mut list, "elsewhere.net");
    assert!(refused(&mut list, &tcp(SITE, 1, 443, SYN)).is_some(), "another name's");
    resolve(&mut list, "www.example.com");
    assert_eq!(judge(&mut list, &tcp(SITE, 1, 443, SYN)), AllowVerdict::Carry);
    for frame in [tcp(SITE, 1, 80, SYN), udp(SITE, 1, 443, b"quic"), ping(SITE)] {
        assert!(refused(&mut list, &frame).is_some(), "{frame:02x?}");
    }
    resolve(&mut list, "other.org");
    assert_eq!(judge(&mut list, &tcp(SITE, 1, 80, SYN)), AllowVerdict::Carry, "a rule without a port");
    for port in NAME_SERVER_PORTS {
        assert_eq!(refused(&mut list, &tcp(SITE, 1, port, SYN)), Some(RefusalKind::Resolver));
    }
}

// Mutations tried: `Permits::name` without the pin, and without the port.
#[test]
fn what_is_asked_for_must_be_allowed_at_that_address_and_port() {
    let mut list = list(&["www.example.com:80", "two.org", "three.org:81"]);
    resolve(&mut list, "www.example.com");
    resolve(&mut list, "three.org");
    resolve_to(&mut list, "two.org", OTHER);
    open(&mut list, 1, 80);
    let request = data(SITE, 1, 80, 2, REQUEST);
    assert_eq!(judge(&mut list, &request), AllowVerdict::Carry);
    assert_eq!(judge(&mut list, &request), AllowVerdict::Carry, "sent again");
    assert_eq!(judge(&mut list, &data(SITE, 1, 80, 2, EVIL)), AllowVerdict::Wait, "sent in its place");

    for (port, name) in [(2, "evil.org"), (3, "two.org"), (4, "three.org")] {
        open(&mut list, port, 80);
        let asked =
            data(SITE, port, 80, 2, &String::from_utf8_lossy(EVIL).replace("evil.org", name).into_bytes());
        let AllowVerdict::Refuse(refusal) = judge(&mut list, &asked) else { panic!("{name} is reached") };
        assert_eq!(
            (refusal.kind, refusal.destination),
            (RefusalKind::Server, format!("{name} at 93.184.216.34:80"))
        );
        assert_eq!(segment::read(&refusal.to_guest.unwrap(), Sender::Stack).unwrap().1, ConnectionStep::End);
        assert_eq!(segment::read(&refusal.to_stack.unwrap(), Sender::Guest).unwrap().1, ConnectionStep::End);
        assert!(
            matches!(judge(&mut list, &data(SITE, port, 80, 2, REQUEST)), AllowVerdict::Answer(_)),
            "it is over"
        );
    }
}

// Mutation tried: a stream that a repeated question keeps although it was accepted.
#[test]
fn a_connection_that_is_asked_for_again_begins_anew() {
    let mut list = list(&["www.example.com:80"]);
    resolve(&mut list, "www.example.com");
    open(&mut list, 1, 80);
    assert_eq!(judge(&mut list, &data(SITE, 1, 80, 2, REQUEST)), AllowVerdict::Carry);
    assert_eq!(judge(&mut list, &tcp(SITE, 1, 80, SYN)), AllowVerdict::Carry);
    let next = 2 + REQUEST.len() as u32;
    assert_eq!(judge(&mut list, &data(SITE, 1, 80, next, EVIL)), AllowVerdict::Wait, "not accepted yet");
    accept(&mut list, 1, 80);
    assert_eq!(judge(&mut list, &data(SITE, 1, 80, next, EVIL)), AllowVerdict::Wait, "nothing before it");
    assert_eq!(refused(&mut list, &data(SITE, 1, 80, 2, EVIL)), Some(RefusalKind::Server));
}

#[test]
fn another_protocol_passes_only_where_a_rule_gives_its_port() {
    for (rule, port, allowed) in [
        ("www.example.com:22", 22, true),
        ("www.example.com", 22, false),
        ("www.example.com:80", 80, false),
        ("www.example.com:443", 443, false),
    ] {
        let mut list = list(&[rule]);
        resolve(&mut list, "www.example.com");
        open(&mut list, 1, port);
        let kind = refused(&mut list, &data(SITE, 1, port, 2, b"SSH-2.0-x\r\n"));
        assert_eq!(kind, (!allowed).then_some(RefusalKind::Nameless), "{rule}");
    }
}

// Mutation tried: questions of the guest's on such a connection carried too.
#[test]
fn a_published_port_answers_its_clients_and_asks_nobody() {
    let (mut list, mut connections) = (list(&["www.example.com"]), OpenConnections::new(8));
    let (connection, _) = segment::read(&tcp_from(LAN, 5000, 80, SYN), Sender::Stack).unwrap();
    connections.note(connection, ConnectionStep::Open, Sender::Stack, Instant::now());
    assert_eq!(judge_with(&mut list, &tcp(LAN, 80, 5000, SYN | ACK), &connections), AllowVerdict::Carry);
    assert_eq!(judge_with(&mut list, &data(LAN, 80, 5000, 2, b"x"), &connections), AllowVerdict::Carry);
    let asked = judge_with(&mut list, &tcp(LAN, 80, 5000, SYN), &connections);
    assert!(matches!(asked, AllowVerdict::Refuse(_)), "{asked:?}");
    assert_eq!(judge_with(&mut list, &tcp(LAN, 80, 5001, SYN | ACK), &connections), AllowVerdict::Wait);

    let mut solicited = Solicited::default();
    solicited.heard(Flow { peer: LAN.into(), peer_port: 5000, guest_port: 53 }, Instant::now());
    let around = Surroundings { connections: &connections, solicited: &solicited, now: Instant::now() };
    assert_eq!(list.judge(&mut udp(LAN, 53, 5000, b"answer"), around), AllowVerdict::Carry);
    assert!(matches!(list.judge(&mut udp(LAN, 53, 5001, b"answer"), around), AllowVerdict::Refuse(_)));
}

// Mutation tried: without `retain`, and dropping open ones too.
#[test]
fn greetings_of_closed_connections_are_forgotten() {
    let (mut list, mut connections) = (list(&["www.example.com"]), OpenConnections::new(8));
    resolve(&mut list, "www.example.com");
    let asked = tcp(SITE, 9, 80, SYN);
    let (first, _) = segment::read(&asked, Sender::Guest).unwrap();
    connections.note(first, ConnectionStep::Open, Sender::Guest, Instant::now());
    assert_eq!(judge_with(&mut list, &asked, &connections), AllowVerdict::Carry);
    for port in 1000..5000 {
        judge_with(&mut list, &tcp(SITE, port, 80, SYN), &connections);
        assert!(list.streams.len() <= MAX_STREAMS && list.streams.contains_key(&first));
    }
}

// Mutation tried: forgetting all that are closed.
#[test]
fn the_connections_accepted_last_are_remembered_whatever_the_guest_says_of_them() {
    let mut list = list(&["www.example.com"]);
    resolve(&mut list, "www.example.com");
    for port in 1..4000 {
        open(&mut list, port, 80);
        // None of these is counted as open, and none of those below is accepted.
        for other in 0..3 {
            judge(&mut list, &tcp(SITE, 10_000 + port * 3 + other, 80, SYN));
        }
        assert!(list.streams.len() <= MAX_STREAMS);
        for late in port.saturating_sub(100).max(1)..=port {
            let (connection, _) = segment::read(&tcp(SITE, late, 80, SYN), Sender::Guest).unwrap();
            assert!(list.streams.contains_key(&connection), "{late} of {port}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(frame in proptest::collection::vec(any::<u8>(), 0..120), kind in 0u8..3) {
        let mut list = list(&["www.example.com", "192.168.0.0/16:80"]);
        resolve(&mut list, "www.example.com");
        open(&mut list, 1, 80);
        let mut frame = frame;
        if frame.len() > 38 {
            frame[12..15].copy_from_slice(&[8, 0, 0x45]);
            frame[23] = [1, 6, 17][usize::from(kind)];
            frame[26..30].copy_from_slice(&[10, 0, 2, 15]);
            frame[30..34].copy_from_slice(if kind == 2 { &DNS } else { &SITE });
        }
        let _ = judge(&mut list, &frame);
        if frame.len() > 38 {
            let (source, destination) = frame[26..34].split_at_mut(4);
            source.swap_with_slice(destination);
        }
        list.learn(&mut frame, Instant::now());
    }
}
