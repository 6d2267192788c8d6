//! Names: a guest asks the host's resolver, also one that listens on the host's loopback only.

use std::io::ErrorKind::WouldBlock;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

use crate::guest::{TestBox, ground};

const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);
const ANSWER: [u8; 4] = [203, 0, 113, 7];

const ASK: &str = r#"
import socket, struct, sys
print(socket.gethostbyname("name.test"))
query = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\4name\4test\0" + struct.pack("!2H", 1, 1)
with socket.create_connection(("10.0.2.3", 53), timeout=20) as stream:
    stream.sendall(struct.pack("!H", len(query)) + query)
    print(socket.inet_ntoa(stream.recv(4096)[-4:]))
try:
    socket.create_connection(("10.0.2.3", int(sys.argv[1])), timeout=2)
    print("reached another port")
except OSError:
    pass
"#;

#[tokio::test]
async fn names_are_resolved_by_a_resolver_on_the_hosts_loopback() {
    let Some(ground) = ground() else { return };
    let udp = UdpSocket::bind(SocketAddrV4::new(RESOLVER, 53)).unwrap();
    let tcp = TcpListener::bind(SocketAddrV4::new(RESOLVER, 53)).unwrap();
    thread::spawn(move || serve_udp(&udp, |_| Some(ANSWER.into())));
    thread::spawn(move || serve_tcp(&tcp));
    let other = TcpListener::bind(SocketAddrV4::new(RESOLVER, 0)).unwrap();
    other.set_nonblocking(true).unwrap();

    let guest = ground.new_box(Some(&[]), &[]);
    let conf = guest.paths.root().join("resolv.conf");
    std::fs::write(&conf, format!("nameserver {RESOLVER}\n")).unwrap();
    let guest = up_with_resolv_conf(guest, conf).await;
    let port = other.local_addr().unwrap().port().to_string();
    let address = Ipv4Addr::from(ANSWER);
    assert_eq!(guest.python(ASK, &[&port]).await, format!("{address}\n{address}\n"));
    assert_eq!(other.accept().expect_err("no connection").kind(), WouldBlock);
    guest.stop().await;
}

/// Starts the box as on a host with this /etc/resolv.conf, and waits until its guest is up.
pub(crate) async fn up_with_resolv_conf(mut guest: TestBox, conf: PathBuf) -> TestBox {
    let (guest, started) = thread::spawn(move || {
        see_as_resolv_conf(&conf);
        let started = guest.start();
        (guest, started)
    })
    .join()
    .unwrap();
    started.unwrap();
    guest.wait_up().await;
    guest
}

/// Lets this thread, and the processes that it starts, see `file` as /etc/resolv.conf.
fn see_as_resolv_conf(file: &Path) {
    // SAFETY: the thread is this test's own, and gives up sharing its root and working directory with the others.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS).unwrap();
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount_bind(file, "/etc/resolv.conf").unwrap();
}

/// Answers questions for the names that have an address.
pub(crate) fn serve_udp(socket: &UdpSocket, address_of: impl Fn(&str) -> Option<Ipv4Addr>) {
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        socket.send_to(&answer(&query[..length], &address_of), from).unwrap();
    }
}

fn serve_tcp(listener: &TcpListener) {
    for stream in listener.incoming() {
        let (mut stream, mut length) = (stream.unwrap(), [0; 2]);
        stream.read_exact(&mut length).unwrap();
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query).unwrap();
        let answer = answer(&query, &|_: &str| Some(ANSWER.into()));
        stream.write_all(&[&(answer.len() as u16).to_be_bytes(), &answer[..]].concat()).unwrap();
    }
}

/// The address of the name for a question of type A, nothing for others (RFC 1035, section 4.1).
fn answer(query: &[u8], address_of: &impl Fn(&str) -> Option<Ipv4Addr>) -> Vec<u8> {
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
    let question = &query[12..12 + name + 5];
    let is_a = question[name + 1..name + 3] == [0, 1];
    let address = is_a.then(|| address_of(&dotted(&question[..name]))).flatten();
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    answer.extend(question);
    if let Some(address) = address {
        // It holds for no time at all, which must be long enough to connect.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}

/// A name of labels after their lengths, with dots between them.
fn dotted(mut labels: &[u8]) -> String {
    let mut parts = Vec::new();
    while let Some((length, rest)) = labels.split_first() {
        let (label, rest) = rest.split_at(usize::from(*length));
        parts.push(String::from_utf8_lossy(label));
        labels = rest;
    }
    parts.join(".")
}
