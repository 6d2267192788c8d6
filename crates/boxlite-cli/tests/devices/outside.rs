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
        Self::at(number, Ipv4Addr::new(10, 213, (pid % 250) as u8, number * 4))
    }

    /// One whose addresses look as if they were in the public network.
    pub(crate) fn public() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let of_process = std::process::id() as u8;
        Self::at(128 + number, Ipv4Addr::new(203, 0, 113, of_process.wrapping_add(number).wrapping_mul(4)))
    }

    /// The one of this number in the process, in the 4 addresses from `first`.
    fn at(number: u8, first: Ipv4Addr) -> Self {
        let name = format!("bl{}x{number}", std::process::id());
        let at = |last| Ipv4Addr::from_bits(first.to_bits() + last);
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

    /// A command that will run in the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
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
