//! The user-mode stack in a process of boxlite's own: the host's libslirp between a wire and the host's sockets.
//!
//! A QEMU without a machine can be the same, and is where there is no library ([`super::stack`]). It takes 8.6 MiB, and until it
//! answers 18 ms of processor time, for what is here some 1.5 MiB and 2.5 ms (in a debug build), because a QEMU sets up all devices
//! that it might have.
//!
//! # Flow
//! One thread waits for the wire and for the sockets that libslirp names. What libslirp has for the guest is put on the wire at
//! once. While more than [`MAX_WAITING`] bytes of it wait, nothing is read of the wire and no socket is served: the senders
//! wait then, at the other ends of those.

mod library;

use std::ffi::{OsString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use boxlite_types::{Error, ErrorKind, PortForward, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::record::{BUFFER, LENGTH_PREFIX, MAX_RECORD, sift};
use library::{Callbacks, Library, Stack, event};

/// The first argument of a program that is to be a stack.
const STACK: &str = "boxlite-stack";

/// Bytes that may wait for the wire before nothing else is served.
const MAX_WAITING: usize = 256 * 1024;

/// Bytes that may wait for the wire at all: beyond this frames are dropped, which is for TCP to notice.
const MOST_WAITING: usize = 4 * 1024 * 1024;

/// The file of libslirp among a program's libraries.
pub(crate) fn library_of(code: &[PathBuf]) -> Option<&Path> {
    let is_slirp = |path: &&PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"libslirp.so.0"))
    };
    code.iter().find(is_slirp).map(PathBuf::as_path)
}

/// The arguments of a stack of the library at `library` on the descriptor `wire`, with these `ports` published.
pub(super) fn arguments(library: &Path, ports: &[PortForward], wire: RawFd) -> Vec<OsString> {
    let ports = serde_json::to_string(ports).unwrap_or_default();
    vec![STACK.into(), library.into(), wire.to_string().into(), ports.into()]
}

/// Is a stack, if that is what the program was started for: a program calls this with its arguments, without its name.
///
/// `None` means that the program was started for something else; `Some` is returned once the wire has ended.
///
/// # Errors
/// `InvalidInput` for arguments that no starter gives, `Unsupported` without the library, `Io` when the wire breaks.
pub fn serve_stack(mut arguments: impl Iterator<Item = OsString>) -> Option<Result<()>> {
    if arguments.next()? != STACK {
        return None;
    }
    let mut arguments = arguments.collect::<Vec<_>>().into_iter();
    if arguments.as_slice().get(1).is_some_and(|argument| argument == "--version") {
        let library = PathBuf::from(arguments.next()?);
        return Some(load(&library).map(drop));
    }
    Some(match given(arguments) {
        Some((library, wire, ports)) => serve(&library, wire, &ports),
        None => Err(Error::invalid(format!("{STACK} is started by boxlite, not by hand"))),
    })
}

fn load(library: &Path) -> Result<Library> {
    Library::load(library).map_err(|why| Error::unsupported(why).at(library))
}

/// Returns the library, the wire and the ports that the arguments name.
fn given(
    mut arguments: impl Iterator<Item = OsString>,
) -> Option<(PathBuf, BorrowedFd<'static>, Vec<PortForward>)> {
    let library = PathBuf::from(arguments.next()?);
    let wire: RawFd = arguments.next()?.to_str()?.parse().ok()?;
    let ports = serde_json::from_str(arguments.next()?.to_str()?).ok()?;
    if wire < 3 {
        return None;
    }
    // SAFETY: the descriptor was inherited for this, and stays open for as long as the process lives.
    #[allow(unsafe_code)]
    let wire = unsafe { BorrowedFd::borrow_raw(wire) };
    rustix::io::fcntl_getfd(wire).ok()?;
    Some((library, wire, ports))
}

/// Serves until the wire ends.
fn serve(library: &Path, wire: BorrowedFd<'static>, ports: &[PortForward]) -> Result<()> {
    let library = load(library)?;
    let broke = |message| Error::new(ErrorKind::Io, message);
    let outgoing: &'static mut FramesForGuest =
        Box::leak(Box::new(FramesForGuest { bytes: Vec::new(), sent: 0 }));
    let outgoing = std::ptr::from_mut(outgoing);
    // SAFETY: the callbacks are constant, and what they are called with is leaked and of the type that they take.
    #[allow(unsafe_code)]
    let stack = unsafe { library.stack(&CALLBACKS, outgoing.cast()).map_err(broke)? };
    for port in ports {
        stack.publish(port).map_err(|error| broke(format!("publishing {port} failed: {error}")))?;
    }
    carry(&stack, wire, outgoing).map_err(|error| broke(format!("the network's wire broke: {error}")))
}

/// Frames that libslirp has for the guest, as they go over the wire.
struct FramesForGuest {
    bytes: Vec<u8>,
    /// How many of them were sent.
    sent: usize,
}

impl FramesForGuest {
    fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn add(&mut self, frame: &[u8]) {
        if frame.len() <= MAX_RECORD && self.waiting() + LENGTH_PREFIX + frame.len() <= MOST_WAITING {
            self.bytes.extend((frame.len() as u32).to_be_bytes());
            self.bytes.extend(frame);
        }
    }

    /// Sends what the wire takes now.
    fn send(&mut self, wire: BorrowedFd<'_>) -> io::Result<()> {
        while self.waiting() > 0 {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(wire, &self.bytes[self.sent..], flags) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.waiting() == 0 {
            self.bytes.clear();
            self.bytes.shrink_to(MAX_WAITING);
            self.sent = 0;
        } else if self.sent > MAX_WAITING {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }
}

/// The sockets that libslirp waits for, and what became of them.
struct Sockets {
    /// As the system call takes them; the first is the wire.
    polled: Vec<libc::pollfd>,
}

/// Carries frames between the wire and the stack until the wire ends. `outgoing` is what the stack's callbacks fill: it is
/// borrowed only while none of them can run.
fn carry(stack: &Stack, wire: BorrowedFd<'static>, outgoing: *mut FramesForGuest) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let mut incoming = vec![0; BUFFER];
    let mut filled = 0;
    let mut sockets = Sockets { polled: Vec::new() };
    loop {
        // SAFETY: no callback runs between here and the next call of the stack, and nothing else has the frames.
        #[allow(unsafe_code)]
        let waiting = unsafe {
            let outgoing = &mut *outgoing;
            outgoing.send(wire)?;
            outgoing.waiting()
        };
        if waiting > MAX_WAITING {
            let _ = rustix::event::poll(&mut [PollFd::new(&wire, PollFlags::OUT)], None);
            continue;
        }
        let mut timeout = u32::MAX;
        sockets.polled.clear();
        let events = libc::POLLIN | if waiting > 0 { libc::POLLOUT } else { 0 };
        sockets.polled.push(libc::pollfd { fd: wire.as_raw_fd(), events, revents: 0 });
        stack.fill(&mut timeout, add_socket, std::ptr::from_mut(&mut sockets).cast());
        let failed = wait(&mut sockets.polled, timeout).is_err();
        let from_wire = sockets.polled[0].revents;
        stack.poll(failed, socket_events, std::ptr::from_mut(&mut sockets).cast());
        if !failed && from_wire & !libc::POLLOUT != 0 {
            match rustix::net::recv(wire, &mut incoming[filled..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Ok(()),
                Ok((read, _)) => filled += read,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let sifted = sift(&mut incoming[..filled], &mut |frame| {
                stack.input(frame);
                false
            })?;
            incoming.copy_within(sifted.used..filled, 0);
            filled -= sifted.used;
        }
    }
}

/// Waits for one of the sockets, for at most `timeout` milliseconds; the greatest number is for ever.
fn wait(polled: &mut [libc::pollfd], timeout: u32) -> io::Result<()> {
    let timeout = c_int::try_from(timeout).unwrap_or(-1);
    // SAFETY: the array is exclusively borrowed, and has as many entries as the call is told.
    #[allow(unsafe_code)]
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
    if ready < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The events of libslirp's beside those of the system.
const EVENTS: [(c_int, libc::c_short); 5] = [
    (event::IN, libc::POLLIN),
    (event::OUT, libc::POLLOUT),
    (event::PRI, libc::POLLPRI),
    (event::ERR, libc::POLLERR),
    (event::HUP, libc::POLLHUP),
];

extern "C" fn add_socket(socket: c_int, wanted: c_int, sockets: *mut c_void) -> c_int {
    // SAFETY: `carry` passes its sockets, which nothing else uses during the call.
    #[allow(unsafe_code)]
    let sockets = unsafe { &mut *sockets.cast::<Sockets>() };
    let events =
        EVENTS.iter().filter(|(slirp, _)| wanted & slirp != 0).fold(0, |all, (_, system)| all | system);
    sockets.polled.push(libc::pollfd { fd: socket, events, revents: 0 });
    (sockets.polled.len() - 1) as c_int
}

extern "C" fn socket_events(index: c_int, sockets: *mut c_void) -> c_int {
    // SAFETY: as in `add_socket`.
    #[allow(unsafe_code)]
    let sockets = unsafe { &*sockets.cast::<Sockets>() };
    let happened = sockets.polled.get(index as usize).map_or(0, |polled| polled.revents);
    EVENTS.iter().filter(|(_, system)| happened & system != 0).fold(0, |all, (slirp, _)| all | slirp)
}

static CALLBACKS: Callbacks = Callbacks {
    send_packet,
    guest_error,
    clock_get_ns,
    timer_new,
    timer_free: drop_timer,
    timer_mod,
    register_poll_fd: ignore_socket,
    unregister_poll_fd: ignore_socket,
    notify,
    newer: [const { None }; 2],
};

extern "C" fn send_packet(frame: *const c_void, length: usize, outgoing: *mut c_void) -> isize {
    // SAFETY: libslirp passes a frame of its own and what the stack was made with, which nothing borrows while libslirp runs.
    #[allow(unsafe_code)]
    unsafe {
        (*outgoing.cast::<FramesForGuest>()).add(std::slice::from_raw_parts(frame.cast(), length));
    }
    length as isize
}

/// Ignores a guest's mistakes.
extern "C" fn guest_error(_message: *const c_char, _: *mut c_void) {}

extern "C" fn clock_get_ns(_: *mut c_void) -> i64 {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed().as_nanos() as i64
}

/// Timers are for IPv6 alone, which the network does not have: this one never fires.
extern "C" fn timer_new(_: *const c_void, _: *mut c_void, _: *mut c_void) -> *mut c_void {
    std::ptr::dangling_mut::<u8>().cast()
}

extern "C" fn drop_timer(_: *mut c_void, _: *mut c_void) {}

extern "C" fn timer_mod(_: *mut c_void, _: i64, _: *mut c_void) {}

/// Sockets are named anew at each wait.
extern "C" fn ignore_socket(_: c_int, _: *mut c_void) {}

/// The one thread is in libslirp when it is called, and looks at everything afterwards.
extern "C" fn notify(_: *mut c_void) {}

#[cfg(test)]
mod tests;
