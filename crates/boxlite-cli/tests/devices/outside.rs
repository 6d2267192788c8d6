//! A machine outside: a network namespace behind a veth pair, with servers in it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use boxlite_testkit::program::run;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace, reachable from the host under `address`; it is removed when this is dropped.
pub(crate) struct Outside {
    name: String,
    /// The host's address on the link.
    pub(crate) host: Ipv4Addr,
    /// The outside machine's address.
    pub(crate) address: Ipv4Addr,
}

impl Outside {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = format!("bl{pid}x{number}");
        let subnet = [10, 213, (pid % 250) as u8, number * 4];
        let at = |last| Ipv4Addr::new(subnet[0], subnet[1], subnet[2], subnet[3] + last);
        let outside = Self { name, host: at(1), address: at(2) };
        let Self { name, host, address } = &outside;
        for line in [
            format!("netns add {name}"),
            format!("link add {name}h type veth peer name {name}o netns {name}"),
            format!("addr add {host}/30 dev {name}h"),
            format!("link set {name}h up"),
            format!("-n {name} addr add {address}/30 dev {name}o"),
            format!("-n {name} link set {name}o up"),
        ] {
            run(Command::new("ip").args(line.split(' ')));
        }
        outside
    }

    /// Does `make`, say a `bind` or a `connect`, in the namespace.
    pub(crate) fn inside<T: Send>(&self, make: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        thread::scope(|scope| {
            let inside = move || {
                use std::os::fd::AsFd;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                make()
            };
            scope.spawn(inside).join().unwrap()
        })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A TCP server that echoes everything until its client has sent it all.
pub(crate) fn tcp_echo(listener: TcpListener) -> SocketAddrV4 {
    let address = v4(listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || echo(stream.unwrap()));
        }
    });
    address
}

fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        stream.write_all(&buffer[..length]).unwrap();
    }
}

/// A UDP server that echoes every datagram.
pub(crate) fn udp_echo(socket: UdpSocket) -> SocketAddrV4 {
    let address = v4(socket.local_addr().unwrap());
    thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    address
}

pub(crate) fn v4(address: std::net::SocketAddr) -> SocketAddrV4 {
    match address {
        std::net::SocketAddr::V4(address) => address,
        std::net::SocketAddr::V6(address) => panic!("{address} is not IPv4"),
    }
}
