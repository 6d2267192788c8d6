use proptest::prelude::*;

use super::super::oracle::{data, ping, tcp, udp};
use super::super::segment::{ConnectionStep, Sender, read};
use super::*;

const LAN: [u8; 4] = [192, 168, 7, 9];

/// Asserts that both checksums of a frame are right.
fn assert_summed(frame: &[u8], protocol: u8) {
    assert_eq!(checksum(&[&frame[14..34]]), [0, 0]);
    let pseudo_header = pseudo_header(&frame[26..34], protocol, frame.len() - 34);
    assert_eq!(checksum(&[&pseudo_header, &frame[34..]]), [0, 0]);
}

// Mutations tried: leaving the Ethernet addresses where they were, and acknowledging the number itself.
#[test]
fn a_refusal_answers_what_asked_for_a_connection_and_nothing_else() {
    let asked = tcp(LAN, 40000, 443, SYN);
    let refusal = TcpSegment::read(&asked).unwrap().refusal().unwrap();
    assert_eq!((&refusal[..6], &refusal[6..12]), (&asked[6..12], &asked[..6]));
    let (connection, _) = read(&asked, Sender::Guest).unwrap();
    assert_eq!(read(&refusal, Sender::Stack), Some((connection, ConnectionStep::End)));
    assert_eq!(TcpSegment::read(&refusal).unwrap().acknowledged, 2, "acknowledges what follows the number 1");
    assert_summed(&refusal, TCP);
    for other in [tcp(LAN, 1, 2, SYN | ACK), tcp(LAN, 1, 2, RST)] {
        assert_eq!(TcpSegment::read(&other).unwrap().refusal(), None);
    }
    assert!(TcpSegment::read(&udp(LAN, 1, 2, b"x")).is_none() && TcpSegment::read(&ping(LAN)).is_none());
}

#[test]
fn a_reset_ends_a_connection_for_either_side() {
    let said = data(LAN, 40000, 443, 7, b"odd");
    let segment = TcpSegment::read(&said).unwrap();
    let (back, on) = (segment.reset_back().unwrap(), segment.reset_on(7).unwrap());
    assert_eq!(TcpSegment::read(&back).unwrap().sequence, segment.acknowledged);
    assert_eq!(TcpSegment::read(&on).unwrap().sequence, 7);
    assert_eq!((&on[..12], &back[..6]), (&said[..12], &said[6..12]));
    for frame in [back, on] {
        assert_summed(&frame, TCP);
    }
}

#[test]
fn a_datagram_goes_back_where_one_came_from() {
    let back = datagram_back(&udp(LAN, 40000, 53, b"question"), b"answer").unwrap();
    assert_eq!(back[34..40], [0, 53, 0x9c, 0x40, 0, 14]);
    assert_eq!(&back[42..], b"answer");
    assert_summed(&back, UDP);
}

// Mutation tried: leaving the message's own checksum at 0.
#[test]
fn a_prohibition_quotes_what_was_sent() {
    let sent = udp(LAN, 40000, 443, b"hello over QUIC");
    let said = prohibition(&sent).unwrap();
    assert_eq!((&said[..6], &said[6..12]), (&sent[6..12], &sent[..6]));
    assert_eq!((&said[26..30], &said[30..34]), (&sent[30..34], &sent[26..30]));
    assert_eq!((said[23], said[34], said[35], &said[42..]), (ICMP, 3, 13, &sent[14..42]));
    assert_eq!((checksum(&[&said[14..34]]), checksum(&[&said[34..]])), ([0, 0], [0, 0]));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(frame in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut frame = frame;
        if frame.len() > 23 {
            (frame[14], frame[23]) = (0x45, TCP);
        }
        if let Some(segment) = TcpSegment::read(&frame) {
            let _ = (segment.refusal(), segment.reset_back(), segment.reset_on(1));
        }
        let _ = (datagram_back(&frame, b"x"), prohibition(&frame));
    }
}
