//! The box's network: everything outside within reach, nothing of the host's loopback.

use std::io::ErrorKind::WouldBlock;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use boxlite_testkit::deadline;

use crate::guest::{TestBox, ground};
use crate::outside::{Outside, tcp_echo, udp_echo, v4};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

// Mutations tried, each of which fails here: a filter that passes everything (QEMU ends); without 127/8; without 0/8;
// without the limited broadcast; SYN to the gateway from a published port; unsolicited UDP from a published port.
#[tokio::test]
async fn root_in_the_guest_cannot_reach_the_hosts_loopback_but_all_else() {
    let Some(ground) = ground() else { return };
    let outside = Outside::new();
    let any = SocketAddrV4::new(outside.address, 0);
    let tcp = tcp_echo(outside.inside(|| TcpListener::bind(any)).unwrap());
    let udp = udp_echo(outside.inside(|| UdpSocket::bind(any)).unwrap());
    let (host_tcp, host_udp) = (on_loopback(TcpListener::bind), on_loopback(UdpSocket::bind));
    let tcp_port = host_tcp[0].local_addr().unwrap().port();
    let udp_port = host_udp[0].local_addr().unwrap().port();

    let mut guest = ground.new_box(Some(&["80", "80/udp", "53/udp"]), &[]);
    choose_ports(&mut guest);
    guest.up().await;
    let arguments = [outside.address.to_string(), tcp.port().to_string(), udp.port().to_string()];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (tcp_text, udp_text) = (tcp_port.to_string(), udp_port.to_string());
    let said =
        guest.python(include_str!("reach.py"), &[&arguments[..], &[&tcp_text, &udp_text]].concat()).await;

    assert_eq!(said, "raw frames arrive outside\nstreams arrive outside\n");
    for listener in &host_tcp {
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().expect_err("no connection").kind(), WouldBlock, "{listener:?}");
    }
    for socket in &host_udp {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(socket.recv(&mut buffer).expect_err("no datagram").kind(), WouldBlock, "{buffer:?}");
    }
    guest.stop().await;
}

/// One server on each of two addresses of the loopback, on one port.
fn on_loopback<T: LocalPort>(bind: impl Fn(SocketAddrV4) -> std::io::Result<T>) -> [T; 2] {
    loop {
        let first = bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(second) = bind(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 53), first.port())) {
            return [first, second];
        }
    }
}

trait LocalPort {
    fn port(&self) -> u16;
}

impl LocalPort for TcpListener {
    fn port(&self) -> u16 {
        v4(self.local_addr().unwrap()).port()
    }
}

impl LocalPort for UdpSocket {
    fn port(&self) -> u16 {
        v4(self.local_addr().unwrap()).port()
    }
}

/// Fixes the host's ports, as a start does, and returns them in order.
fn choose_ports(guest: &mut TestBox) -> Vec<SocketAddrV4> {
    let network = guest.spec.network.as_mut().unwrap();
    network.ports = boxlite_vm::net::claim_ports(&network.ports).unwrap().release();
    network.ports.iter().map(|port| SocketAddrV4::new(port.bind, port.host)).collect()
}

#[tokio::test]
async fn published_ports_carry_both_ways_and_only_where_they_are_bound() {
    let Some(ground) = ground() else { return };
    let outside = Arc::new(Outside::new());
    let mut guest = ground.new_box(Some(&["80", "53/udp", "0.0.0.0::80"]), &[]);
    let chosen = choose_ports(&mut guest);
    let (tcp, udp, public) = (chosen[0], chosen[1], SocketAddrV4::new(outside.host, chosen[2].port()));
    guest.up().await;

    for (client, address) in [("10.0.2.2".to_owned(), tcp), (outside.address.to_string(), public)] {
        let there = Arc::clone(&outside);
        let talk = tokio::task::spawn_blocking(move || {
            let connect = || TcpStream::connect(address).unwrap();
            // slirp accepts before the guest does: only an echo tells that the guest listens.
            deadline::until(TIMEOUT, "the guest to listen", || {
                echoes(&if address == tcp { connect() } else { there.inside(connect) })
            });
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            socket.connect(udp).unwrap();
            socket.send(b"question").unwrap();
            let mut answer = [0; 100];
            let length = socket.recv(&mut answer).unwrap();
            assert_eq!(&answer[..length], b"question");
        });
        let (said, talked) = tokio::join!(guest.python(include_str!("published.py"), &[]), talk);
        talked.unwrap();
        assert_eq!(said, format!("ready\nstream from {client}\ndatagram from 10.0.2.2\n"));
    }

    let private = SocketAddrV4::new(outside.host, tcp.port());
    let refused = outside.inside(|| TcpStream::connect(private)).expect_err("bound to loopback only");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    guest.stop().await;
}

/// Sends a megabyte and reads it back; false when nobody in the guest took the connection.
fn echoes(stream: &TcpStream) -> bool {
    let sent: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    let mut received = Vec::new();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut writing = stream.try_clone().unwrap();
    let read = std::thread::scope(|scope| {
        scope.spawn(|| writing.write_all(&sent).and_then(|()| writing.shutdown(Shutdown::Write)));
        Read::read_to_end(&mut &*stream, &mut received)
    });
    let answered = read.is_ok() && !received.is_empty();
    assert!(!answered || received == sent, "what comes back is not what was sent");
    answered
}

#[tokio::test]
async fn a_busy_port_is_a_conflict_before_anything_boots() {
    let Some(ground) = ground() else { return };
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let mut guest = ground.new_box(Some(&[&format!("{port}:80")]), &[]);
    let error = guest.start().unwrap_err();
    assert_eq!(error.kind(), boxlite::ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    deadline::until(TIMEOUT, "the box to be gone", || guest.lock_is_free());
    drop(held);
    guest.start().unwrap();
}

#[tokio::test]
async fn without_a_network_there_is_no_network_card() {
    let Some(ground) = ground() else { return };
    let mut guest = ground.new_box(None, &[]);
    guest.up().await;
    let said = guest.python("import os; print(sorted(os.listdir('/sys/class/net')))", &[]).await;
    assert_eq!(said, "['lo']\n");
    guest.stop().await;
}
