use std::time::Duration;

use boxlite_types::parse_ports;
use tokio::time::timeout;

use super::super::oracle::{ACK, RST, SYN, data, name_query, tcp, tcp_from, udp, udp_from, udp_from_gateway};
use super::*;

const GW: [u8; 4] = [10, 0, 2, 2];
const DNS: [u8; 4] = [10, 0, 2, 3];
const LAN: [u8; 4] = [192, 168, 7, 9];
const MAX: u32 = 3;
const SHORT: Duration = Duration::from_secs(20);

struct Ends {
    card: UnixStream,
    stack: UnixStream,
    counts: Arc<Counts>,
    running: tokio::task::JoinHandle<io::Result<WireEnd>>,
}

fn start() -> Ends {
    start_with(None)
}

fn start_with(allowed: Option<AllowList>) -> Ends {
    let ports = parse_ports("5353:53/udp").unwrap();
    let (wire, ends) = Wire::new(Policy::new(&ports, []), allowed, MAX).unwrap();
    let counts = wire.counts();
    let [card, stack] = [ends.card, ends.stack].map(|descriptor| {
        let socket = StdStream::from(descriptor);
        socket.set_nonblocking(true).unwrap();
        UnixStream::from_std(socket).unwrap()
    });
    Ends { card, stack, counts, running: tokio::spawn(wire.carry()) }
}

async fn send(socket: &mut UnixStream, frame: &[u8]) {
    let record = [&(frame.len() as u32).to_be_bytes(), frame].concat();
    socket.write_all(&record).await.unwrap();
}

async fn receive(socket: &mut UnixStream) -> Vec<u8> {
    let length = timeout(SHORT, socket.read_u32()).await.expect("a frame arrives").unwrap();
    let mut frame = vec![0; length as usize];
    socket.read_exact(&mut frame).await.unwrap();
    frame
}

#[tokio::test]
async fn allowed_frames_pass_in_order_and_others_are_counted() {
    let mut ends = start();
    let (refused, allowed) = (tcp(GW, 1, 22, SYN), tcp(LAN, 1, 22, SYN));
    for frame in [&refused, &allowed, &vec![0; 4000], &tcp(LAN, 2, 22, ACK)] {
        send(&mut ends.card, frame).await;
    }
    assert_eq!(receive(&mut ends.stack).await, allowed);
    assert_eq!(receive(&mut ends.stack).await, tcp(LAN, 2, 22, ACK));
    assert_eq!(ends.counts.dropped(Reason::VirtualNetwork), 1);
    assert_eq!(ends.counts.dropped(Reason::Malformed), 1);
    send(&mut ends.stack, &tcp(GW, 22, 1, ACK)).await;
    assert_eq!(receive(&mut ends.card).await, tcp(GW, 22, 1, ACK));
    assert_eq!((ends.counts.from_guest(), ends.counts.to_guest()), (2, 1));
}

// Mutation tried: treating PassIfSolicited as Pass fails here.
#[tokio::test]
async fn a_published_udp_port_answers_its_clients_and_nobody_else() {
    let mut ends = start();
    send(&mut ends.card, &udp(GW, 53, 50000, b"too early")).await;
    send(&mut ends.card, &udp(LAN, 1, 1, b"fence")).await;
    assert_eq!(receive(&mut ends.stack).await, udp(LAN, 1, 1, b"fence"));
    assert_eq!(ends.counts.dropped(Reason::Unsolicited), 1);

    send(&mut ends.stack, &udp_from_gateway(50000, 53, b"question")).await;
    assert_eq!(receive(&mut ends.card).await, udp_from_gateway(50000, 53, b"question"));
    send(&mut ends.card, &udp(GW, 53, 50001, b"to another port")).await;
    send(&mut ends.card, &udp(GW, 53, 50000, b"answer")).await;
    assert_eq!(receive(&mut ends.stack).await, udp(GW, 53, 50000, b"answer"));
    assert_eq!(ends.counts.dropped(Reason::Unsolicited), 2);
}

#[tokio::test]
async fn a_receiver_that_stops_reading_stops_the_sender_without_loss() {
    let mut ends = start();
    let mut sent = 0u32;
    let frame = |index: u32| udp(LAN, 1, 1, &index.to_be_bytes());
    let (mut card_reads, mut card_writes) = ends.card.split();
    let flood = async {
        loop {
            let record = [&(frame(0).len() as u32).to_be_bytes(), &frame(sent)[..]].concat();
            card_writes.write_all(&record).await.unwrap();
            sent += 1;
        }
    };
    timeout(Duration::from_millis(500), flood).await.unwrap_err();
    assert!((100..20_000).contains(&sent), "{sent} frames were taken without a reader");
    for index in 0..sent {
        assert_eq!(receive(&mut ends.stack).await, frame(index));
    }
    let _ = &mut card_reads;
}

#[tokio::test]
async fn it_ends_when_qemu_is_gone() {
    let Ends { card, stack: _stack, running, .. } = start();
    drop(card);

    let ended = timeout(SHORT, running).await.expect("it ends").unwrap().unwrap();
    assert_eq!(ended, WireEnd::Card);
}

#[tokio::test]
async fn a_connection_too_many_is_reset_whichever_side_asks_for_it() {
    let mut ends = start();
    for port in 1..=3 {
        send(&mut ends.card, &tcp(LAN, port, 22, SYN)).await;
        assert_eq!(receive(&mut ends.stack).await, tcp(LAN, port, 22, SYN));
    }
    assert_eq!(ends.counts.usage().connections, 3);
    send(&mut ends.card, &tcp(LAN, 4, 22, SYN)).await;
    let reset = receive(&mut ends.card).await;
    assert_eq!(reset, TcpSegment::read(&tcp(LAN, 4, 22, SYN)).unwrap().refusal().unwrap());

    let from_client = tcp_from(LAN, 50000, 80, SYN);
    send(&mut ends.stack, &from_client).await;
    let reset = TcpSegment::read(&from_client).unwrap().refusal().unwrap();
    assert_eq!(receive(&mut ends.stack).await, reset);

    // One ends, and another takes its place.
    send(&mut ends.stack, &tcp_from(LAN, 22, 2, RST)).await;
    assert_eq!(receive(&mut ends.card).await, tcp_from(LAN, 22, 2, RST));
    send(&mut ends.card, &tcp(LAN, 4, 22, SYN)).await;
    assert_eq!(receive(&mut ends.stack).await, tcp(LAN, 4, 22, SYN));
    let usage = ends.counts.usage();
    assert_eq!((usage.connections, usage.max_connections, usage.refused_connections), (3, 3, 2));
}

/// The guest asks for `a.b`, which stands for `site`; returns the answer that reaches it.
async fn ask_for_a_b(ends: &mut Ends, site: [u8; 4]) -> Vec<u8> {
    send(&mut ends.card, &udp(DNS, 9, 53, &name_query("a.b"))).await;
    let mut answer = receive(&mut ends.stack).await[42..].to_vec();
    answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    answer.extend(site);
    send(&mut ends.stack, &udp_from(DNS, 53, 9, &answer)).await;
    receive(&mut ends.card).await
}

// Mutation tried: an answer under the number that went out.
#[tokio::test]
async fn a_list_lets_the_guest_ask_for_allowed_names_and_counts_what_else_it_wants() {
    let rules = vec!["a.b".parse().unwrap()];
    let mut ends = start_with(Some(AllowList::new(rules, Vec::new())));
    let site = [93, 184, 216, 34];
    send(&mut ends.card, &udp(DNS, 9, 53, &name_query("evil.org"))).await;
    assert_eq!(receive(&mut ends.card).await[42..46], [0xab, 0xcd, 0x81, 0x83]);
    send(&mut ends.card, &udp(LAN, 9, 443, b"QUIC")).await;
    assert_eq!(receive(&mut ends.card).await[34..36], [3, 13], "prohibited");
    let answered = ask_for_a_b(&mut ends, site).await;
    assert_eq!(answered[42..44], [0xab, 0xcd]);

    let asked = tcp(site, 1, 80, SYN);
    send(&mut ends.card, &asked).await;
    assert_eq!(receive(&mut ends.stack).await, asked);
    let mut accepted = tcp_from(site, 80, 1, SYN | ACK);
    accepted[42..46].copy_from_slice(&2u32.to_be_bytes());
    send(&mut ends.stack, &accepted).await;
    assert_eq!(receive(&mut ends.card).await, accepted);
    let pieces = [data(site, 1, 80, 2, b"GET / HTTP/1.1\r\n"), data(site, 1, 80, 18, b"Host: a.b\r\n\r\n")];
    for piece in &pieces {
        send(&mut ends.card, piece).await;
    }
    for piece in &pieces {
        assert_eq!(receive(&mut ends.stack).await, *piece);
    }
    assert_eq!(ends.counts.usage().connections, 2, "the question's socket too");
    send(&mut ends.card, &data(site, 1, 80, 31, b"GET / HTTP/1.1\r\nHost: evil.org\r\n\r\n")).await;
    assert_eq!(segment::read(&receive(&mut ends.card).await, Sender::Stack).unwrap().1, ConnectionStep::End);
    assert_eq!(segment::read(&receive(&mut ends.stack).await, Sender::Guest).unwrap().1, ConnectionStep::End);
    let usage = ends.counts.usage();
    assert_eq!(usage.connections, 1);
    let refusals = usage.refusals.unwrap();
    let latest: Vec<_> = refusals.latest.iter().map(|refused| refused.destination.as_str()).collect();
    assert_eq!(latest, ["evil.org at 93.184.216.34:80", "192.168.7.9:443", "evil.org"]);
    assert_eq!(refusals.total, 3);
}

// Mutation tried: without noting what is released, a connection that ends with its first words is counted for hours.
#[tokio::test]
async fn a_connection_that_ends_with_its_first_words_is_counted_as_ended() {
    let mut ends = start_with(Some(AllowList::new(vec!["a.b".parse().unwrap()], Vec::new())));
    let site = [93, 184, 216, 34];
    ask_for_a_b(&mut ends, site).await;
    send(&mut ends.card, &tcp(site, 1, 80, SYN)).await;
    receive(&mut ends.stack).await;
    let mut accepted = tcp_from(site, 80, 1, SYN | ACK);
    accepted[42..46].copy_from_slice(&2u32.to_be_bytes());
    send(&mut ends.stack, &accepted).await;
    receive(&mut ends.card).await;
    assert_eq!(ends.counts.usage().connections, 2);
    let mut last = data(site, 1, 80, 18, b"Host: a.b\r\n\r\n");
    last[14 + 20 + 13] |= 1;
    for piece in [data(site, 1, 80, 2, b"GET / HTTP/1.1\r\n"), last] {
        send(&mut ends.card, &piece).await;
    }
    for _ in 0..2 {
        receive(&mut ends.stack).await;
    }
    send(&mut ends.stack, &tcp_from(site, 80, 1, ACK | 1)).await;
    receive(&mut ends.card).await;
    assert_eq!(ends.counts.usage().connections, 1, "the question's socket");
}
