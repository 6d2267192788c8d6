use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LOOP: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn port(bind: Ipv4Addr, host: u16, guest: u16, protocol: Protocol) -> PortForward {
    PortForward { bind, host, guest, protocol }
}

#[test]
fn every_form_that_docker_takes() {
    use Protocol::{Tcp, Udp};
    for (text, expected) in [
        ("80", vec![port(LOOP, 0, 80, Tcp)]),
        ("80/udp", vec![port(LOOP, 0, 80, Udp)]),
        (":80", vec![port(LOOP, 0, 80, Tcp)]),
        ("0:80", vec![port(LOOP, 0, 80, Tcp)]),
        ("8080:80", vec![port(LOOP, 8080, 80, Tcp)]),
        ("8080:80/tcp", vec![port(LOOP, 8080, 80, Tcp)]),
        ("0.0.0.0:8080:80", vec![port(ANY, 8080, 80, Tcp)]),
        ("0.0.0.0::80/udp", vec![port(ANY, 0, 80, Udp)]),
        ("192.168.1.7:53:53/udp", vec![port(Ipv4Addr::new(192, 168, 1, 7), 53, 53, Udp)]),
        ("1-2:3-4", vec![port(LOOP, 1, 3, Tcp), port(LOOP, 2, 4, Tcp)]),
        ("7000-7001", vec![port(LOOP, 0, 7000, Tcp), port(LOOP, 0, 7001, Tcp)]),
        ("65535:65535", vec![port(LOOP, 65535, 65535, Tcp)]),
    ] {
        assert_eq!(parse_ports(text).unwrap(), expected, "{text}");
    }
    assert_eq!(parse_ports("1-65535:1-65535").unwrap().len(), 65535);
}

#[test]
fn what_is_malformed_says_what_and_names_the_text() {
    for (text, says) in [
        ("", "not a number"),
        ("x", "not a number"),
        ("+80", "not a number"),
        (" 80", "not a number"),
        ("80:", "not a number"),
        ("65536", "above 65535"),
        ("99999999999999999999", "above 65535"),
        ("8080:0", "port 0 of the box"),
        ("2-1:2-1", "backwards"),
        ("1-3:1-2", "3 ports of the host for 2"),
        ("8000-8010:80", "11 ports of the host for 1"),
        ("0-1:5-6", "begin at port 0"),
        ("80/icmp", "not a protocol"),
        ("80/", "not a protocol"),
        ("80/tcp/udp", "not a protocol"),
        ("a:1:2", "not an IPv4 address"),
        ("localhost:1:2", "not an IPv4 address"),
        ("::80", "not an IPv4 address"),
        ("1:2:3:4", "expected"),
    ] {
        let error = parse_ports(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}: {error}");
        let message = error.to_string();
        assert!(message.contains(says) && message.contains(&format!("{text:?}")), "{text}: {message}");
    }
    for text in ["[::1]:80:80", "80/sctp"] {
        assert_eq!(parse_ports(text).unwrap_err().kind(), ErrorKind::Unsupported, "{text}");
    }
}

#[test]
fn two_ports_that_want_one_port_of_the_host_are_refused() {
    let all = |texts: &[&str]| texts.iter().flat_map(|t| parse_ports(t).unwrap()).collect::<Vec<_>>();
    for clash in [
        &["8080:80", "8080:81"][..],
        &["8080:80", "8080:80"],
        &["0.0.0.0:8080:80", "8080:81"],
        &["8080:81", "1-2:1-2", "0.0.0.0:8080:80"],
        &["5-9:5-9/udp", "7:1/udp"],
    ] {
        assert_eq!(refuse_overlaps(&all(clash)).unwrap_err().kind(), ErrorKind::InvalidInput, "{clash:?}");
    }
    for fine in [
        &["8080:80", "8080:80/udp"][..],
        &["127.0.0.1:8080:80", "127.0.0.2:8080:80"],
        &["80", "80", "81"],
        &["8080:80", "8081:80"],
    ] {
        refuse_overlaps(&all(fine)).unwrap();
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "[0-9a-z:./\\[\\]-]{0,24}|\\PC{0,16}") {
        let _ = parse_ports(&text);
    }

    #[test]
    fn a_written_range_comes_back(first in 1u16..60000, length in 0u16..50, shift in 0u16..5000) {
        let text = format!("{}-{}:{}-{}/udp", first + shift, first + shift + length, first, first + length);
        let ports = parse_ports(&text).unwrap();
        prop_assert_eq!(ports.len(), usize::from(length) + 1);
        for (index, port) in (0u16..).zip(ports) {
            prop_assert_eq!((port.host, port.guest), (first + shift + index, first + index));
        }
    }
}
