use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::*;

fn outgoing(frames: &[usize]) -> FramesForGuest {
    let mut outgoing = FramesForGuest { bytes: Vec::new(), sent: 0 };
    for &length in frames {
        outgoing.add(&vec![length as u8; length]);
    }
    outgoing
}

/// Mutations tried: what was sent not counted; the bound left out.
#[test]
fn frames_wait_for_the_wire_whole_and_bounded() {
    let (own, mut other) = UnixStream::pair().unwrap();
    let mut frames = outgoing(&[60, 1514]);
    frames.send(own.as_fd()).unwrap();
    assert_eq!(frames.waiting(), 0);
    let mut bytes = [0; 4 + 60 + 4 + 1514];
    other.read_exact(&mut bytes).unwrap();
    assert_eq!((&bytes[..5], &bytes[64..69]), (&[0, 0, 0, 60, 60][..], &[0, 0, 5, 234, 234][..]));

    let mut many = outgoing(&[60_000; 100]);
    assert!(many.waiting() <= MOST_WAITING && many.waiting() > MOST_WAITING - 60_004, "{}", many.waiting());
    many.send(own.as_fd()).unwrap();
    let left = many.waiting();
    assert!(left > 0, "a socket takes it all");
    let mut taken = 0;
    other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = vec![0; 1 << 20];
    while many.waiting() > 0 {
        taken += other.read(&mut buffer).unwrap();
        many.send(own.as_fd()).unwrap();
    }
    let all = MOST_WAITING / 60_004 * 60_004;
    other.set_nonblocking(true).unwrap();
    while let Ok(read) = other.read(&mut buffer) {
        taken += read;
    }
    assert_eq!(taken, all);
    assert!(many.bytes.capacity() <= MAX_WAITING);
    assert_eq!(outgoing(&[MAX_RECORD + 1]).waiting(), 0, "no wire carries it");
}

/// Mutation tried: two of the events exchanged.
#[test]
fn events_are_told_as_they_were_asked_for() {
    let mut sockets = Sockets { polled: Vec::new() };
    let opaque: *mut c_void = std::ptr::from_mut(&mut sockets).cast();
    assert_eq!(add_socket(7, event::IN | event::HUP, opaque), 0);
    assert_eq!(add_socket(8, event::OUT | event::PRI, opaque), 1);
    assert_eq!(sockets.polled[0].events, libc::POLLIN | libc::POLLHUP);
    assert_eq!(sockets.polled[1].events, libc::POLLOUT | libc::POLLPRI);
    sockets.polled[1].revents = libc::POLLOUT | libc::POLLERR;
    let opaque: *mut c_void = std::ptr::from_mut(&mut sockets).cast();
    assert_eq!((socket_events(0, opaque), socket_events(1, opaque)), (0, event::OUT | event::ERR));
    assert_eq!(socket_events(2, opaque), 0);
}

#[test]
fn only_libslirp_is_taken_for_it() {
    let code = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(library_of(&code(&["/l/libc.so.6", "/l/libslirp.so.0"])), Some(Path::new("/l/libslirp.so.0")));
    assert_eq!(library_of(&code(&["/libslirp.so.0/libc.so.6", "/l/libslirp.so.1"])), None);
}

/// A guest's frames by hand: the real library answers who the gateway is, and sends what the guest sends to a server.
///
/// Mutations tried: a network with another mask, the gateway's address in the wrong order of bytes, records without their length.
#[test]
fn the_hosts_libslirp_serves_the_network_of_a_box() {
    let Some(library) = ["/lib/x86_64-linux-gnu/libslirp.so.0", "/usr/lib64/libslirp.so.0"]
        .iter()
        .find(|path| Path::new(path).exists())
    else {
        return boxlite_testkit::oracle::skip("this host has no libslirp");
    };
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let published = held.local_addr().unwrap().port();
    drop(held);
    let ports = boxlite_types::parse_ports(&format!("{published}:80")).unwrap();
    let (mut guest, wire) = UnixStream::pair().unwrap();
    guest.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let serving = std::thread::spawn(move || {
        // SAFETY: the socket outlives the stack that serves it, which ends before this thread does.
        #[allow(unsafe_code)]
        let borrowed = unsafe { BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(&wire)) };
        serve(Path::new(library), borrowed, &ports)
    });
    let mut send = |frame: &[u8]| {
        guest.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
        guest.write_all(frame).unwrap();
    };
    let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    let arp = |operation: u8, target: [u8; 4]| {
        let head =
            [[0xff; 6].as_slice(), &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &mac, &[10, 0, 2, 15]];
        [head.concat().as_slice(), &[0; 6], &target].concat()
    };
    send(&arp(1, [10, 0, 2, 2]));
    // To a port of the host's loopback by way of the gateway, which only the frame filter closes.
    let port = server.local_addr().unwrap().port();
    let payload = b"from the guest";
    let udp =
        [&4000_u16.to_be_bytes()[..], &port.to_be_bytes(), &[0, 8 + payload.len() as u8, 0, 0], payload]
            .concat();
    let mut ip = vec![0x45, 0, 0, 20 + udp.len() as u8, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2];
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    send(&[&[0x52, 0x55, 10, 0, 2, 2], &mac[..], &[8, 0], &ip, &udp].concat());

    let mut received = [0; 64];
    let (length, from) = server.recv_from(&mut received).unwrap();
    assert_eq!(&received[..length], payload);
    server.send_to(b"answer", from).unwrap();
    // A client of the published port, whose connection the stack asks the guest to take.
    let _client = std::net::TcpStream::connect(("127.0.0.1", published)).unwrap();
    let (mut gateway, mut answer, mut connection) = (false, false, false);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !(gateway && answer && connection) {
        let mut length = [0; 4];
        guest.read_exact(&mut length).unwrap();
        let length = u32::from_be_bytes(length) as usize;
        assert!(length <= 1514 && Instant::now() < deadline, "{length} {gateway} {answer} {connection}");
        let mut frame = vec![0; length];
        guest.read_exact(&mut frame).unwrap();
        gateway |= frame[12..14] == [8, 6] && frame[20..22] == [0, 2] && frame[28..32] == [10, 0, 2, 2];
        answer |= frame.ends_with(b"answer");
        connection |=
            frame[12..14] == [8, 0] && frame[23] == 6 && frame[36..38] == [0, 80] && frame[47] & 2 != 0;
    }
    drop(guest);
    serving.join().unwrap().unwrap();
}
