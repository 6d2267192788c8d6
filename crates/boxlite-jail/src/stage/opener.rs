//! Files that a program opens by name and that are descriptors in truth.
//!
//! QEMU opens its kernel, its guest's memory and `/dev/kvm` by name. In the jail such a call is held by the kernel
//! (seccomp's user notification) while the stage looks whether the name is one of the spec's openings: if so, the answer is
//! that file, opened anew with the access mode that the descriptor has, whatever mode the program asked for; if not, the call
//! runs as it would have.
//!
//! Each held call is two changes of process, which on a busy host wait for a processor each. So a file that the program only
//! reads is in its root under its name, where its user may read it, and only calls that ask for more are held: a handful, and
//! none of the fifty for QEMU's libraries.
//!
//! Holes that the program punches into one of these files are feigned ([`Opening::feigns_holes`]): the file has a number that
//! nothing else gets by itself, and under that number the call is answered without being made.
//!
//! The name is read from memory that the program may change afterwards. That gains it nothing: a name that is not an
//! opening is left to the kernel, in the program's own root and with its own rights, and an opening may be had by
//! whoever asks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags};

use crate::spec::Opening;

/// The longest name that is read, with its zero.
const MAX_NAME: usize = 4096;

/// Memory is read up to the end of a page of this size, behind which there may be nothing.
const PAGE: usize = 4096;

const NOTIF_RECV: libc::Ioctl = iowr::<libc::seccomp_notif>(0);
const NOTIF_SEND: libc::Ioctl = iowr::<libc::seccomp_notif_resp>(1);
const NOTIF_ADDFD: libc::Ioctl = 1 << 30 | ioctl_of::<libc::seccomp_notif_addfd>(3);
const NOTIF_SET_FLAGS: libc::Ioctl = 1 << 30 | ioctl_of::<u64>(4);
/// Has the kernel run who waits for a held call, and who waits for its answer, on the processor of the other (Linux 6.6).
const SYNC_WAKE_UP: libc::c_ulong = 1;
/// Gives the descriptor the number that is asked for.
const ADDFD_FLAG_SETFD: u32 = 1;
/// Answers the call with the number of the descriptor that was added.
const ADDFD_FLAG_SEND: u32 = 2;
/// Of `fallocate`: punches a hole.
const PUNCH: u32 = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;

const fn iowr<T>(number: libc::Ioctl) -> libc::Ioctl {
    3 << 30 | ioctl_of::<T>(number)
}

const fn ioctl_of<T>(number: libc::Ioctl) -> libc::Ioctl {
    (size_of::<T>() as libc::Ioctl) << 16 | (b'!' as libc::Ioctl) << 8 | number
}

/// Which of a program's calls that open something are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeldOpens {
    /// Those that ask to write: every file that the program only reads is in its root.
    Writing,
    /// Every one.
    All,
}

/// Has the kernel hold this process's calls that open something, and feign holes in the file with the number `feigned`.
///
/// Returns the descriptor through which held calls are answered.
pub(super) fn listen(held: HeldOpens, feigned: Option<RawFd>) -> io::Result<OwnedFd> {
    let instructions = hold_opening(held, feigned);
    let program = libc::sock_fprog {
        len: instructions.len() as u16,
        filter: std::ptr::from_ref(&instructions).cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which outlives the call, and returns a new descriptor.
    #[allow(unsafe_code)]
    unsafe {
        let listener = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            std::ptr::from_ref(&program),
        );
        if listener < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(listener as RawFd))
    }
}

/// Lets every call pass, of any architecture, but `openat` as far as it is held, which waits for its answer, and the
/// `fallocate` that punches a hole into `feigned`, which succeeds at once.
fn hold_opening(held: HeldOpens, feigned: Option<RawFd>) -> [libc::sock_filter; 15] {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
    let architecture = if cfg!(target_arch = "x86_64") { AUDIT_ARCH_X86_64 } else { AUDIT_ARCH_AARCH64 };
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    // No descriptor has this number.
    let feigned = feigned.unwrap_or(-1).cast_unsigned();
    // The bits that say what a call asks for, of which reading is none; those of no call where all are held.
    let (asks, reading) = match held {
        HeldOpens::Writing => (libc::O_ACCMODE as u32, libc::O_RDONLY as u32),
        HeldOpens::All => (0, 1),
    };
    // The offsets are those of `struct seccomp_data`: the number, the architecture, and from 16 on the arguments, whose lower
    // halves come first.
    [
        step(LOAD, 4, 0, 0),
        step(EQUAL, architecture, 0, 12),
        step(LOAD, 0, 0, 0),
        step(EQUAL, libc::SYS_openat as u32, 6, 0),
        step(EQUAL, libc::SYS_fallocate as u32, 0, 9),
        step(LOAD, 16, 0, 0),
        step(EQUAL, feigned, 0, 7),
        step(LOAD, 24, 0, 0),
        step(EQUAL, PUNCH, 0, 5),
        step(RETURN, libc::SECCOMP_RET_ERRNO, 0, 0),
        step(LOAD, 32, 0, 0),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, asks, 0, 0),
        step(EQUAL, reading, 1, 0),
        step(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ]
}

/// Answers held calls.
pub(super) struct Opener {
    listener: OwnedFd,
    openings: Vec<Opening>,
    /// The number of the one that feigns holes.
    feigned: RawFd,
    own: OwnDescriptors,
}

/// The directory of this process's descriptors, by which they are opened anew; there is no `/proc` in the jail.
pub(super) struct OwnDescriptors(OwnedFd);

impl OwnDescriptors {
    /// While there is a `/proc`.
    pub(super) fn find() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open("/proc/self/fd", flags, Mode::empty())?))
    }

    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The file of `descriptor` with the same access mode and a position of its own.
    fn open_anew(&self, descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let mode = rustix::fs::fcntl_getfl(descriptor)? & OFlags::RWMODE;
        let name = descriptor.as_raw_fd().to_string();
        Ok(rustix::fs::openat(&self.0, name, mode | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?)
    }
}

impl Opener {
    pub(super) fn new(
        listener: OwnedFd,
        openings: Vec<Opening>,
        feigned: RawFd,
        own: OwnDescriptors,
    ) -> Self {
        // SAFETY: the request takes a number. A kernel that does not know it answers held calls all the same, later.
        #[allow(unsafe_code)]
        unsafe {
            libc::ioctl(listener.as_raw_fd(), NOTIF_SET_FLAGS, SYNC_WAKE_UP);
        }
        Self { listener, openings, feigned, own }
    }

    /// Readable when a call is held.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers the call that is held; it may have ended meanwhile, which is no error.
    pub(super) fn answer(&self) {
        // SAFETY: all zeros is a value of this structure of numbers.
        #[allow(unsafe_code)]
        let mut held: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        if !self.control(NOTIF_RECV, &mut held) {
            return;
        }
        let name = name_at(held.pid, held.data.args[1]);
        let opening = name.and_then(|name| {
            self.openings.iter().find(|opening| opening.path.as_os_str().as_bytes() == name)
        });
        match opening {
            Some(opening) => {
                let opened = super::seal::borrow(opening.descriptor)
                    .ok()
                    .and_then(|file| self.own.open_anew(file).ok());
                let Some(opened) = opened else { return self.respond(held.id, -libc::EACCES, 0) };
                let (number, place) =
                    if opening.feigns_holes { (self.feigned, ADDFD_FLAG_SETFD) } else { (0, 0) };
                let mut answer = libc::seccomp_notif_addfd {
                    id: held.id,
                    flags: ADDFD_FLAG_SEND | place,
                    srcfd: opened.as_raw_fd() as u32,
                    newfd: number as u32,
                    newfd_flags: libc::O_CLOEXEC as u32,
                };
                if !self.control(NOTIF_ADDFD, &mut answer) {
                    self.respond(held.id, -libc::EMFILE, 0);
                }
            }
            None => self.respond(held.id, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        }
    }

    fn respond(&self, id: u64, error: i32, flags: u32) {
        let mut response = libc::seccomp_notif_resp { id, val: 0, error, flags };
        self.control(NOTIF_SEND, &mut response);
    }

    /// Whether the request was carried out.
    fn control<T>(&self, request: libc::Ioctl, argument: &mut T) -> bool {
        // SAFETY: each of the three requests comes with the structure whose size is part of its number.
        #[allow(unsafe_code)]
        let done = unsafe { libc::ioctl(self.listener.as_raw_fd(), request, std::ptr::from_mut(argument)) };
        done >= 0
    }
}

/// The string at `address` in the memory of the thread `thread`.
fn name_at(thread: u32, address: u64) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut buffer = [0_u8; PAGE];
    while name.len() < MAX_NAME {
        let at = address as usize + name.len();
        let length = PAGE - at % PAGE;
        let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: length };
        let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: length };
        // SAFETY: at most `length` bytes are written to the buffer, which has as many; the other address is not used here.
        #[allow(unsafe_code)]
        let read = unsafe {
            libc::process_vm_readv(thread as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0)
        };
        let read = usize::try_from(read).ok().filter(|&read| read > 0)?;
        match buffer[..read].iter().position(|&byte| byte == 0) {
            Some(end) => {
                name.extend_from_slice(&buffer[..end]);
                return Some(name);
            }
            None => name.extend_from_slice(&buffer[..read]),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!((NOTIF_RECV, NOTIF_SEND, NOTIF_ADDFD), (0xc050_2100, 0xc018_2101, 0x4018_2103));
        assert_eq!(NOTIF_SET_FLAGS, 0x4008_2104);
    }

    #[test]
    fn a_name_is_read_up_to_its_end_and_nothing_is_read_where_nothing_is() {
        let name = c"/dev/memory";
        assert_eq!(name_at(std::process::id(), name.as_ptr() as u64).as_deref(), Some(&b"/dev/memory"[..]));
        assert_eq!(name_at(std::process::id(), 8), None);
    }
}
