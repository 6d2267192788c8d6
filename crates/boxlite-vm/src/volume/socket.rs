//! The connection between QEMU and a virtiofsd, made before either runs.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// A listening socket whose one waiting connection is the other descriptor.
#[derive(Debug)]
pub(super) struct VhostConnection {
    /// For virtiofsd, which accepts one connection.
    pub(super) listener: OwnedFd,
    /// For QEMU.
    pub(super) connected: OwnedFd,
}

/// Makes a connection of which no trace is left in any filesystem.
///
/// The address is a random abstract one and the queue holds one connection, ours: a stranger who guessed the address
/// in between would take that place and make our own connect fail, never sit behind it.
pub(super) fn connection() -> io::Result<VhostConnection> {
    let name = format!("boxlite-{}", uuid::Uuid::new_v4().simple());
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    let make = || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let listener = make()?;
    bind(&listener, &address)?;
    listen(&listener, 0)?;
    let connected = make()?;
    rustix::io::ioctl_fionbio(&connected, true)?;
    connect(&connected, &address)?;
    rustix::io::ioctl_fionbio(&connected, false)?;
    Ok(VhostConnection { listener, connected })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn the_waiting_connection_is_ours_and_nobody_else_gets_in() {
        let VhostConnection { listener, connected } = connection().unwrap();
        let address = rustix::net::getsockname(&listener).unwrap();
        let stranger =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::io::ioctl_fionbio(&stranger, true).unwrap();
        assert_eq!(connect(&stranger, &address).unwrap_err(), rustix::io::Errno::AGAIN);

        let (mut accepted, _) = UnixListener::from(listener).accept().unwrap();
        accepted.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        UnixStream::from(connected).read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    }
}
