//! The stage waits for signals as for anything else.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::error::{JailDoing, JailResult as Result};

/// Blocks every signal, and makes a descriptor that is readable when a child ends or somebody asks for the end.
pub(super) fn hold() -> Result<OwnedFd> {
    // SAFETY: the sets are written before they are read, and the descriptor is new.
    #[allow(unsafe_code)]
    let made = unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        let mut awaited = std::mem::zeroed();
        libc::sigemptyset(&raw mut awaited);
        libc::sigaddset(&raw mut awaited, libc::SIGCHLD);
        libc::sigaddset(&raw mut awaited, libc::SIGTERM);
        match libc::signalfd(-1, &raw const awaited, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    };
    made.doing("waiting for signals")
}

/// Takes what has arrived; whether the end was asked for.
pub(super) fn is_end_wanted(signals: &OwnedFd) -> bool {
    let mut wanted = false;
    let mut buffer = [0_u8; size_of::<libc::signalfd_siginfo>()];
    while rustix::io::read(signals, &mut buffer).is_ok_and(|length| length == buffer.len()) {
        // The number of the signal is the first field.
        let number = u32::from_ne_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
        wanted |= number == libc::SIGTERM as u32;
    }
    wanted
}

/// Gives every signal its default effect and lets it through.
pub(super) fn restore() -> Result<()> {
    // SAFETY: no handler is installed, only defaults; the set is written before it is read.
    #[allow(unsafe_code)]
    let restored = unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if restored == 0 { Ok(()) } else { Err(io::Error::last_os_error()).doing("restoring signals") }
}

/// Ignores `signal`, in the program that is executed too.
///
/// A write beyond the limit of a file's size is then an error that the program sees, and not its end.
pub(crate) fn ignore(signal: libc::c_int) {
    // SAFETY: no handler is installed.
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(signal, libc::SIG_IGN);
    }
}
