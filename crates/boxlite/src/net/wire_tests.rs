use std::time::Duration;

use tokio::time::timeout;

use super::super::oracle::{ACK, SYN, tcp, udp, udp_from_gateway};
use super::super::parse_ports;
use super::*;

const GW: [u8; 4] = [10, 0, 2, 2];
const LAN: [u8; 4] = [192, 168, 7, 9];
const SHORT: Duration = Duration::from_secs(20);

struct Ends {
    card: UnixDatagram,
    stack: UnixDatagram,
    counts: Arc<Counts>,
    running: tokio::task::JoinHandle<io::Result<()>>,
}

fn start() -> Ends {
    let ports = parse_ports("5353:53/udp").unwrap();
    let (wire, ends) = Wire::new(MacAddr::of_box("b"), &ports, Policy::new(&ports, [])).unwrap();
    let counts = wire.counts();
    let mut qemu = ends.descriptors.into_iter().map(|descriptor| {
        let socket = StdDatagram::from(descriptor);
        socket.set_nonblocking(true).unwrap();
        UnixDatagram::from_std(socket).unwrap()
    });
    let (card, stack) = (qemu.next().unwrap(), qemu.next().unwrap());
    Ends { card, stack, counts, running: tokio::spawn(wire.carry()) }
}

async fn receive(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let length = timeout(SHORT, socket.recv(&mut buffer)).await.expect("a frame arrives").unwrap();
    buffer.truncate(length);
    buffer
}

#[tokio::test]
async fn allowed_frames_pass_in_order_and_others_are_counted() {
    let ends = start();
    let (refused, allowed) = (tcp(GW, 1, 22, SYN), tcp(LAN, 1, 22, SYN));
    for frame in [&refused, &allowed, &vec![0; 4000], &tcp(LAN, 2, 22, ACK)] {
        ends.card.send(frame).await.unwrap();
    }
    assert_eq!(receive(&ends.stack).await, allowed);
    assert_eq!(receive(&ends.stack).await, tcp(LAN, 2, 22, ACK));
    assert_eq!(ends.counts.dropped(Reason::VirtualNetwork), 1);
    assert_eq!(ends.counts.dropped(Reason::Malformed), 1);
    ends.stack.send(&tcp(GW, 22, 1, ACK)).await.unwrap();
    assert_eq!(receive(&ends.card).await, tcp(GW, 22, 1, ACK));
    assert_eq!((ends.counts.from_guest(), ends.counts.to_guest()), (2, 1));
}

// Mutation tried: treating PassIfSolicited as Pass fails here.
#[tokio::test]
async fn a_published_udp_port_answers_its_clients_and_nobody_else() {
    let ends = start();
    ends.card.send(&udp(GW, 53, 50000, b"too early")).await.unwrap();
    ends.card.send(&udp(LAN, 1, 1, b"fence")).await.unwrap();
    assert_eq!(receive(&ends.stack).await, udp(LAN, 1, 1, b"fence"));
    assert_eq!(ends.counts.dropped(Reason::Unsolicited), 1);

    ends.stack.send(&udp_from_gateway(50000, 53, b"question")).await.unwrap();
    assert_eq!(receive(&ends.card).await, udp_from_gateway(50000, 53, b"question"));
    ends.card.send(&udp(GW, 53, 50001, b"to another port")).await.unwrap();
    ends.card.send(&udp(GW, 53, 50000, b"answer")).await.unwrap();
    assert_eq!(receive(&ends.stack).await, udp(GW, 53, 50000, b"answer"));
    assert_eq!(ends.counts.dropped(Reason::Unsolicited), 2);
}

#[tokio::test]
async fn a_receiver_that_stops_reading_stops_the_sender_without_loss() {
    let ends = start();
    let mut sent = 0u32;
    while timeout(Duration::from_millis(300), ends.card.send(&udp(LAN, 1, 1, &sent.to_be_bytes())))
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < 100_000, "the queue is not bounded");
    }
    assert!(sent > 0);
    for index in 0..sent {
        assert_eq!(receive(&ends.stack).await, udp(LAN, 1, 1, &index.to_be_bytes()));
    }
}

#[tokio::test]
async fn it_ends_when_qemu_is_gone() {
    let Ends { card, stack, running, .. } = start();
    drop(card);
    stack.send(&udp_from_gateway(1, 2, b"x")).await.unwrap();
    timeout(SHORT, running).await.expect("it ends").unwrap().unwrap();
}
