//! The stage waits for signals as for anything else, and keeps from its program what asks a program to end.
//!
//! An engine may send TERM, or any other such signal, to every process of a job or a service. It is meant for the command, and
//! a box ends with that: the programs that keep the box up go on until their shim ends them, by a signal that nothing else sends.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::Signal;

use crate::error::{JailDoing, JailResult as Result};

/// The signal that has a stage end everything in its jail; the kernel has no use of its own for it.
pub const END_OF_JAIL: Signal = Signal::STKFLT;

/// The signals by which others ask a program to do something, and that end one that does not listen.
pub const REQUESTS: [Signal; 6] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];

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
        libc::sigaddset(&raw mut awaited, END_OF_JAIL.as_raw());
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
        wanted |= number == END_OF_JAIL.as_raw() as u32;
    }
    wanted
}

/// Gives every signal its default effect and lets it through.
pub(super) fn restore() -> Result<()> {
    default_effects();
    block_only(&[]).doing("restoring signals")
}

/// The same for a program that the jail ends and nobody asks for anything: requests do not get through to it.
pub(super) fn restore_without_requests() -> Result<()> {
    default_effects();
    block_requests().doing("restoring signals")
}

/// Lets every signal through but [`REQUESTS`], in a program that is executed too. May be called between `fork` and `exec`.
///
/// # Errors
/// The kernel's.
pub fn block_requests() -> io::Result<()> {
    block_only(&REQUESTS)
}

fn default_effects() {
    // SAFETY: no handler is installed, only defaults.
    #[allow(unsafe_code)]
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// It neither allocates nor locks, so it may be called between `fork` and `exec`.
fn block_only(blocked: &[Signal]) -> io::Result<()> {
    // SAFETY: the set is written before it is read.
    #[allow(unsafe_code)]
    let done = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in blocked {
            libc::sigaddset(&raw mut set, signal.as_raw());
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives every signal that has a handler its default effect; what is ignored stays ignored.
pub(super) fn forget_handlers() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: no handler is installed, only defaults; all zeros is a value of the structure, which is written before it is
        // read.
        #[allow(unsafe_code)]
        unsafe {
            let mut present: libc::sigaction = std::mem::zeroed();
            let known = libc::sigaction(signal, std::ptr::null(), &raw mut present) == 0;
            if known && ![libc::SIG_DFL, libc::SIG_IGN].contains(&present.sa_sigaction) {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
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
