//! The few system calls that no safe wrapper offers; all unsafe code of the agent is here, apart from `main`'s name.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::process::Pid;
use rustix::system::RebootCommand;

/// The side of a fork that the caller is on.
pub(crate) enum ForkSide {
    /// The new process.
    Child,
    /// The old process, with the id of the new one.
    Parent(Pid),
}

/// Forks this process.
pub(crate) fn fork() -> io::Result<ForkSide> {
    // SAFETY: the agent never starts a thread, so the child's copy of the heap and of every lock is consistent.
    #[allow(unsafe_code)]
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid).map_or(ForkSide::Child, ForkSide::Parent)),
    }
}

/// Bytes of a page of memory.
pub(crate) fn page_size() -> u64 {
    // SAFETY: the call reads a constant of the system.
    #[allow(unsafe_code)]
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

/// Puts this process into new namespaces of these kinds (`CLONE_NEW*`); of process ids, only its later children.
pub(crate) fn unshare(kinds: i32) -> io::Result<()> {
    // SAFETY: unshare takes any value; without CLONE_FILES, CLONE_FS and CLONE_VM it changes nothing that memory safety needs.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::unshare(kinds) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts this process into a namespace of that kind (`CLONE_NEW*`); of process ids, only its later children.
pub(crate) fn enter_namespace(namespace: BorrowedFd<'_>, kind: i32) -> io::Result<()> {
    // SAFETY: setns takes plain integers.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::setns(namespace.as_raw_fd(), kind) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the right to restart the machine from whatever this process becomes.
pub(crate) fn give_up_reboot() -> io::Result<()> {
    /// `CAP_SYS_BOOT`.
    const REBOOT: libc::c_ulong = 22;
    // SAFETY: the request takes plain integers.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, REBOOT, 0, 0, 0) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes this process the parent of every descendant that loses its own.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    // SAFETY: the request takes plain integers.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns the processor time of the children that this process has reaped, and of theirs.
pub(crate) fn cpu_of_children() -> Duration {
    // SAFETY: rusage is plain data, all of it valid as zeros, and the call writes to nothing else.
    #[allow(unsafe_code)]
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let time = |part: libc::timeval| Duration::new(part.tv_sec as u64, part.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Has the kernel end this process after so many seconds.
pub(crate) fn end_after(seconds: u32) {
    // SAFETY: the call takes a number, and the signal's default action touches nothing of this process.
    #[allow(unsafe_code)]
    unsafe {
        libc::alarm(seconds);
    }
}

/// Ends a forked child without running any of the parent's exit handlers.
pub(crate) fn exit_child(code: i32) -> ! {
    // SAFETY: _exit takes any value and touches no memory.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(code)
    }
}

/// Replaces this process by a program. Returns only when that failed.
pub(crate) fn execute(program: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with a null pointer and their strings outlive the call.
    #[allow(unsafe_code)]
    unsafe {
        libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr());
    }
    io::Error::last_os_error()
}

/// Sends a signal, by number so that real-time signals work.
///
/// # Errors
/// When the number is invalid or the process is gone.
pub(crate) fn signal(pid: Pid, signo: i32) -> io::Result<()> {
    kill(pid.as_raw_nonzero().get(), signo)
}

/// Sends a signal to every process but this one.
pub(crate) fn signal_all(signo: i32) -> io::Result<()> {
    kill(-1, signo)
}

fn kill(pid: i32, signo: i32) -> io::Result<()> {
    // SAFETY: kill takes any values and touches no memory.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::kill(pid, signo) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Signals that are read from a descriptor instead of interrupting the process.
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// Takes the agent's signals: SIGCHLD, and SIGIO when the host opens or closes the port. Also ignores SIGPIPE, so
    /// that writing to a closed pipe is an error.
    pub(crate) fn take() -> io::Result<Self> {
        // SAFETY: SIG_IGN needs no handler.
        #[allow(unsafe_code)]
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        }
        Self::block(&[libc::SIGCHLD, libc::SIGIO])
    }

    /// Blocks the signals and opens a descriptor to read them from.
    pub(crate) fn block(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before it is used, and the descriptor is fresh.
        #[allow(unsafe_code)]
        unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            for signo in signals {
                libc::sigaddset(&raw mut set, *signo);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Discards the signals that have arrived.
    pub(crate) fn drain(&self) {
        let mut buffer = [0; 1024];
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|n| n > 0) {}
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives a forked child the signal state that programs expect: no signal blocked or ignored.
pub(crate) fn reset_signals() {
    // SAFETY: the set is initialised, and SIG_DFL needs no handler.
    #[allow(unsafe_code)]
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Closes all descriptors that a forked child inherited, except the standard ones and `kept`.
pub(crate) fn close_all_but_standard_and(kept: BorrowedFd<'_>) {
    let kept = kept.as_raw_fd() as u32;
    // SAFETY: the child never uses or drops the values that own these descriptors; it ends by `exit_child`.
    #[allow(unsafe_code)]
    unsafe {
        if kept > 3 {
            libc::syscall(libc::SYS_close_range, 3_u32, kept - 1, 0_u32);
        }
        libc::syscall(libc::SYS_close_range, kept + 1, u32::MAX, 0_u32);
    }
}

/// Asks for SIGIO when the state of `fd` changes.
pub(crate) fn notify_by_signal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both calls take plain integers.
    #[allow(unsafe_code)]
    unsafe {
        if libc::fcntl(fd.as_raw_fd(), libc::F_SETOWN, libc::getpid()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        if flags < 0 || libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_ASYNC) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Grows the mounted ext4 filesystem that `root` lies on to `blocks` of its blocks.
pub(crate) fn resize_ext4(root: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    /// `EXT4_IOC_RESIZE_FS`: `_IOW('f', 16, __u64)`.
    const RESIZE: libc::c_ulong = 0x4008_6610;
    // SAFETY: the request reads one u64 at the pointer.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::ioctl(root.as_raw_fd(), RESIZE, &raw const blocks) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Freezes the filesystem that `root` lies on: it is written out, and whoever writes to it waits.
pub(crate) fn freeze(root: BorrowedFd<'_>) -> io::Result<()> {
    /// `FIFREEZE`: `_IOWR('X', 119, int)`.
    const FREEZE: libc::c_ulong = 0xc004_5877;
    freezer_request(root, FREEZE)
}

/// Thaws the filesystem that `root` lies on.
pub(crate) fn thaw(root: BorrowedFd<'_>) -> io::Result<()> {
    /// `FITHAW`: `_IOWR('X', 120, int)`.
    const THAW: libc::c_ulong = 0xc004_5878;
    freezer_request(root, THAW)
}

fn freezer_request(root: BorrowedFd<'_>, request: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the kernel does not use the argument of these requests.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::ioctl(root.as_raw_fd(), request, 0) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reseeds the kernel's random number generator with `entropy`, counting each of its bits.
pub(crate) fn reseed(entropy: &[u8]) -> io::Result<()> {
    /// `RNDADDENTROPY`: `_IOW('R', 0x03, int[2])`, the head of a `struct rand_pool_info`.
    const ADD: libc::c_ulong = 0x4008_5203;
    /// `RNDRESEEDCRNG`: `_IO('R', 0x07)`.
    const RESEED: libc::c_ulong = 0x5207;
    let length = entropy.len() as u32;
    let mut pool = [(length * 8).to_ne_bytes(), length.to_ne_bytes()].concat();
    pool.extend(entropy);
    let device = std::fs::File::open("/dev/urandom")?;
    // SAFETY: the first request reads two integers at the pointer and as many bytes behind them as the second of them
    // says; the other request takes no pointer.
    #[allow(unsafe_code)]
    unsafe {
        if libc::ioctl(device.as_raw_fd(), ADD, pool.as_ptr()) < 0
            || libc::ioctl(device.as_raw_fd(), RESEED, 0) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes an interface request: the interface's name and one value.
pub(crate) fn interface_request(
    socket: BorrowedFd<'_>,
    name: &str,
    request: libc::c_ulong,
    fill: impl FnOnce(&mut libc::ifreq),
) -> io::Result<()> {
    // SAFETY: ifreq is plain data, all of it valid as zeros; the name keeps its terminating zero; the requests made
    // here read and write one ifreq.
    #[allow(unsafe_code)]
    unsafe {
        let mut ifreq = std::mem::zeroed::<libc::ifreq>();
        for (to, from) in ifreq.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        fill(&mut ifreq);
        if libc::ioctl(socket.as_raw_fd(), request, &raw mut ifreq) == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// Adds a default route by way of `gateway`.
pub(crate) fn add_default_route(
    socket: BorrowedFd<'_>,
    gateway: libc::sockaddr,
    anywhere: libc::sockaddr,
) -> io::Result<()> {
    // SAFETY: rtentry is plain data, all of it valid as zeros; the request reads one at the pointer.
    #[allow(unsafe_code)]
    let outcome = unsafe {
        let mut route = std::mem::zeroed::<libc::rtentry>();
        route.rt_dst = anywhere;
        route.rt_genmask = anywhere;
        route.rt_gateway = gateway;
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const route)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns the time since the kernel started.
pub(crate) fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Writes one line to the kernel's log, which a console shows.
pub(crate) fn kernel_log(line: &str) {
    if let Ok(mut log) = std::fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("<2>boxlite-guest: {}\n", line.replace('\n', "; ")).as_bytes());
    }
}

/// Flushes every filesystem and powers the machine off.
pub(crate) fn power_off() -> ! {
    rustix::fs::sync();
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
    let _ = rustix::system::reboot(RebootCommand::Restart);
    exit_child(1)
}
