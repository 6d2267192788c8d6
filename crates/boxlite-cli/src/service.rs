//! The messages between a service manager and the server, by systemd's protocol: a socket that is open already, and when the
//! server is ready and when it stops.
//!
//! # Protocol
//!
//! `LISTEN_FDS` descriptors from number 3 on are meant for the process `LISTEN_PID`; `LISTEN_FDNAMES` has their names. Of
//! several, the one called [`SOCKET_NAME`] is taken. States go as datagrams to the socket `NOTIFY_SOCKET`.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;

use rustix::io::{FdFlags, fcntl_setfd};

use crate::environment::Environment;
use crate::report::CommandFailure;

/// The descriptor that the protocol begins with.
const FIRST: RawFd = 3;
/// Descriptors that are looked at.
const MAX_DESCRIPTORS: RawFd = 64;
/// The name of the server's socket among several: `FileDescriptorName` in a unit.
const SOCKET_NAME: &str = "boxlite";

/// Returns the listening socket that the process was started with, if there is one, and keeps it from other programs.
///
/// # Errors
/// When there are several and none has the name, or it is no listening TCP socket.
pub(crate) fn inherited_socket(environment: &Environment) -> Result<Option<TcpListener>, CommandFailure> {
    let number = |name: &str| environment.text(name)?.parse::<RawFd>().ok();
    let meant = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
    let Some(count) = number("LISTEN_FDS").filter(|&count| meant && count > 0) else { return Ok(None) };
    if count > MAX_DESCRIPTORS {
        let message =
            format!("LISTEN_FDS announces {count} descriptors, and at most {MAX_DESCRIPTORS} are looked at");
        return Err(CommandFailure::local(message));
    }
    let names = environment.text("LISTEN_FDNAMES").unwrap_or_default();
    let which = chosen(count as usize, &names).map_err(CommandFailure::local)?;
    let mut descriptors = (FIRST..FIRST + count).map(own).collect::<Result<Vec<_>, _>>()?;
    listener(descriptors.swap_remove(which)).map(Some)
}

/// Returns which of the descriptors is the server's, from their names with colons in between.
fn chosen(count: usize, names: &str) -> Result<usize, String> {
    let mut named = names.split(':').take(count).enumerate().filter(|(_, name)| *name == SOCKET_NAME);
    match (named.next(), named.next(), count) {
        (Some((which, _)), None, _) => Ok(which),
        (None, _, 1) => Ok(0),
        _ => Err(format!(
            "{count} sockets were handed over, and the server serves one; call that one `{SOCKET_NAME}` \
             (FileDescriptorName= in its unit)"
        )),
    }
}

/// Takes a descriptor that the service manager announced.
fn own(descriptor: RawFd) -> Result<OwnedFd, CommandFailure> {
    // SAFETY: the number is checked to be an open descriptor; LISTEN_PID says that it was passed to this process to be owned.
    #[allow(unsafe_code)]
    let owned = unsafe {
        if libc::fcntl(descriptor, libc::F_GETFD) < 0 {
            let message = format!("LISTEN_FDS announces descriptor {descriptor}, which is not open");
            return Err(CommandFailure::local(message));
        }
        OwnedFd::from_raw_fd(descriptor)
    };
    fcntl_setfd(&owned, FdFlags::CLOEXEC).map_err(|error| {
        CommandFailure::local(format!("keeping a socket from other programs failed: {error}"))
    })?;
    Ok(owned)
}

fn listener(descriptor: OwnedFd) -> Result<TcpListener, CommandFailure> {
    let listens = rustix::net::sockopt::socket_acceptconn(descriptor.as_fd()).unwrap_or(false);
    let listener = TcpListener::from(descriptor);
    match listener.local_addr() {
        Ok(SocketAddr::V4(_) | SocketAddr::V6(_)) if listens => Ok(listener),
        _ => Err(CommandFailure::local(
            "the descriptor that was handed over is no listening TCP socket (ListenStream=ADDRESS:PORT in its unit)",
        )),
    }
}

/// The way to the service manager that waits for this process.
#[derive(Debug)]
pub(crate) struct Notifier(Option<String>);

impl Notifier {
    /// Tells whoever `NOTIFY_SOCKET` names, if anybody.
    pub(crate) fn new(environment: &Environment) -> Self {
        Self(environment.text("NOTIFY_SOCKET").filter(|path| !path.is_empty()))
    }

    /// Says that connections are answered from now on.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// Says that the server ends.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// A manager that cannot be told takes the server for one that does not speak to it; there is nothing better to do.
    fn tell(&self, state: &str) {
        let Some(path) = &self.0 else { return };
        let address = match path.strip_prefix('@') {
            Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name),
            None => std::os::unix::net::SocketAddr::from_pathname(path),
        };
        let told =
            address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
        if let Err(error) = told {
            tracing::warn!(%error, path, state, "the service manager could not be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_socket_is_taken_or_the_one_with_the_name() {
        assert_eq!(chosen(1, ""), Ok(0));
        assert_eq!(chosen(1, "connection"), Ok(0));
        assert_eq!(chosen(3, "http:boxlite:other"), Ok(1));
        assert!(chosen(2, "http:other").is_err());
        assert!(chosen(2, "boxlite:boxlite").is_err());
        assert!(chosen(2, "a:b:boxlite").is_err(), "a name without a socket");
    }

    #[test]
    fn what_is_no_listening_tcp_socket_is_refused() {
        assert!(listener(UnixDatagram::unbound().unwrap().into()).is_err());
        assert!(listener(std::fs::File::open("/dev/null").unwrap().into()).is_err());
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(listening.local_addr().unwrap()).unwrap();
        assert!(listener(connected.into()).is_err());
        assert!(listener(listening.into()).is_ok());
    }
}
