//! A connection to a port of the guest itself, relayed to the standard streams.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use boxlite_proto::OpFailure;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::op_error::OpError;

/// Bytes that are relayed at a time.
const PIECE: usize = 64 * 1024;

/// A TCP connection to a service of this guest.
pub(super) struct ServiceConnection(TcpStream);

impl ServiceConnection {
    /// Connects to a service that listens on a loopback address, of either version of IP.
    pub(super) fn open(port: u16) -> Result<Self, OpError> {
        let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).or_else(|error| {
            // The first refusal is the one that says most.
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).map_err(|_| error)
        });
        match connected {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                Ok(Self(stream))
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                let message = format!("nothing in the box listens on port {port}");
                Err(OpError::new(OpFailure::NotFound, message))
            }
            Err(error) => Err(OpError::std_io(&format!("connecting to port {port} in the box"), &error)),
        }
    }

    /// Relays both ways until the service has ended its side, all of which is passed on; the end of the input ends only
    /// this side of the connection.
    pub(super) fn relay(self) {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let (stdin, stdout, socket) = (stdin.as_fd(), stdout.as_fd(), self.0.as_fd());
        for end in [stdin, stdout, socket] {
            if rustix::io::ioctl_fionbio(end, true).is_err() {
                return;
            }
        }
        let (mut up, mut down) = (Half::default(), Half::default());
        loop {
            up.advance(|piece| rustix::io::read(stdin, piece), |piece| send(socket, piece));
            if up.is_over() && !up.told {
                up.told = true;
                let _ = self.0.shutdown(Shutdown::Write);
            }
            down.advance(|piece| receive(socket, piece), |piece| rustix::io::write(stdout, piece));
            if down.is_over() {
                return;
            }
            let mut fds = Vec::with_capacity(2);
            let mut of_socket = PollFlags::empty();
            match up.wants() {
                Some(PollFlags::IN) => fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN)),
                Some(_) => of_socket |= PollFlags::OUT,
                None => {}
            }
            match down.wants() {
                Some(PollFlags::OUT) => fds.push(PollFd::from_borrowed_fd(stdout, PollFlags::OUT)),
                _ => of_socket |= PollFlags::IN,
            }
            // Without a wish the socket would still report its hang-up, again and again.
            if !of_socket.is_empty() {
                fds.push(PollFd::from_borrowed_fd(socket, of_socket));
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

fn receive(socket: BorrowedFd<'_>, piece: &mut [u8]) -> rustix::io::Result<usize> {
    rustix::net::recv(socket, piece, RecvFlags::empty()).map(|(length, _)| length)
}

fn send(socket: BorrowedFd<'_>, piece: &[u8]) -> rustix::io::Result<usize> {
    rustix::net::send(socket, piece, SendFlags::NOSIGNAL)
}

/// One direction.
#[derive(Default)]
struct Half {
    piece: Vec<u8>,
    /// Bytes of the piece that were passed on.
    passed: usize,
    /// Nothing more comes, or nothing more is taken.
    ended: bool,
    /// The other side knows of the end.
    told: bool,
}

impl Half {
    /// Passes on what is there, as far as neither side blocks.
    fn advance(
        &mut self,
        read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
        write: impl Fn(&[u8]) -> rustix::io::Result<usize>,
    ) {
        loop {
            while self.passed < self.piece.len() {
                match write(&self.piece[self.passed..]) {
                    Ok(count) => self.passed += count,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return,
                    Err(_) => {
                        self.piece.clear();
                        self.ended = true;
                    }
                }
            }
            self.passed = 0;
            if self.ended {
                self.piece.clear();
                return;
            }
            self.piece.resize(PIECE, 0);
            let got = read(&mut self.piece);
            self.piece.truncate(*got.as_ref().unwrap_or(&0));
            match got {
                Ok(0) => self.ended = true,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.ended = true,
            }
        }
    }

    /// Returns the condition that it waits for: bytes, or room for them.
    fn wants(&self) -> Option<PollFlags> {
        if !self.piece.is_empty() {
            return Some(PollFlags::OUT);
        }
        (!self.ended).then_some(PollFlags::IN)
    }

    fn is_over(&self) -> bool {
        self.ended && self.piece.is_empty()
    }
}
