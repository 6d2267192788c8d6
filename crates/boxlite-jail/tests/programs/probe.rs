//! Stands in for a QEMU that a guest has taken over: tries what an attacker would, and says how each attempt went.
//!
//! Each argument is `NAME=VALUE`, a target. Each line of the output is `NAME: ok` or `NAME: ERRNO`, and facts about the
//! process follow as `=NAME: VALUE`.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::CString;
use std::io;

type Targets = HashMap<String, String>;

fn main() {
    let targets: Targets = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.split_once('=').map(|(name, value)| (name.into(), value.into())))
        .collect();
    if targets.contains_key("sleep") {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
    }
    if let Some(address) = targets.get("bind") {
        let bound = std::net::TcpListener::bind(address);
        println!("bind: {}", bound.map_or_else(|error| error.to_string(), |_| "ok".into()));
        return facts();
    }
    if let Some(signal) = targets.get("die") {
        unsafe { libc::raise(signal.parse().unwrap()) };
    }
    if let Some(status) = targets.get("exit") {
        std::process::exit(status.parse().unwrap());
    }
    if targets.contains_key("facts") {
        return facts();
    }
    // First, while no other descriptor has its number.
    if !targets.contains_key("harmless") {
        tell("touch the guard", unsafe { libc::fcntl(number(&targets, "guard"), libc::F_GETFD) }.into());
    }
    controls(&targets);
    harmless(&targets);
    if !targets.contains_key("harmless") {
        files(&targets);
        sockets(&targets);
        processes(&targets);
        descriptors(&targets);
        privileges(&targets);
    }
    facts();
}

/// Whether a call succeeded.
fn tell(name: &str, result: libc::c_long) {
    if result >= 0 {
        println!("{name}: ok");
    } else {
        println!("{name}: {}", io::Error::last_os_error());
    }
}

fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn open(path: &str, flags: libc::c_int) -> libc::c_long {
    let path = text(path);
    unsafe { libc::open(path.as_ptr(), flags, 0o600) }.into()
}

fn number(targets: &Targets, name: &str) -> i32 {
    targets.get(name).map_or(-1, |value| value.parse().unwrap())
}

fn system_call(number: libc::c_long, arguments: [libc::c_long; 6]) -> libc::c_long {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) }
}

/// What a program needs and must be able to do: else all the rest fails for another reason.
fn controls(targets: &Targets) {
    let overlay = number(targets, "overlay");
    if overlay >= 0 {
        tell("can-write-overlay", unsafe { libc::pwrite(overlay, c"x".as_ptr().cast(), 1, 0) }
            as libc::c_long);
        let base = number(targets, "base");
        let mut byte = 0_u8;
        tell("can-read-base", unsafe { libc::pread(base, (&raw mut byte).cast(), 1, 0) } as libc::c_long);
    }
    tell("can-make-threads", std::thread::spawn(|| 1).join().unwrap());
    tell("can-read-random", open("/dev/urandom", libc::O_RDONLY));
    tell("can-open-null", open("/dev/null", libc::O_RDWR));
}

/// Attempts that harm nobody where they succeed, and do succeed for root outside of a jail.
fn harmless(targets: &Targets) {
    for name in ["other-overlay", "database", "shadow", "environ", "mem"] {
        if let Some(path) = targets.get(name) {
            tell(&format!("read-{name}"), open(path, libc::O_RDONLY));
            tell(&format!("write-{name}"), open(path, libc::O_RDWR));
        }
    }
    for name in ["loopback", "lan"] {
        if let Some(port) = targets.get(name) {
            let result = std::net::TcpStream::connect(port);
            println!("connect-{name}: {}", result.map_or_else(|error| error.to_string(), |_| "ok".into()));
        }
    }
    if let Some(path) = targets.get("socket") {
        let result = std::os::unix::net::UnixStream::connect(path);
        println!("connect-socket: {}", result.map_or_else(|error| error.to_string(), |_| "ok".into()));
    }
    let shim = number(targets, "shim").into();
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: number_at(targets, "address") as *mut libc::c_void, iov_len: 1 };
    let (local, remote) = (&raw const local as libc::c_long, &raw const remote as libc::c_long);
    tell("read-memory-of-shim", system_call(libc::SYS_process_vm_readv, [shim, local, 1, remote, 1, 0]));
    tell("signal-shim", system_call(libc::SYS_kill, [shim, 0, 0, 0, 0, 0]));
    tell("handle-of-shim", system_call(libc::SYS_pidfd_open, [shim, 0, 0, 0, 0, 0]));
    tell("list-host-root", std::fs::read_dir("/home").map_or(-1, |_| 0));
}

fn number_at(targets: &Targets, name: &str) -> usize {
    targets.get(name).map_or(0, |value| value.parse().unwrap())
}

fn files(_targets: &Targets) {
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/self/mem",
        "/proc/1/mem",
        "/sys/kernel/uevent_helper",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/kvm",
        "/dev/net/tun",
        "/root/.ssh/authorized_keys",
        "/etc/ld.so.cache",
        "/etc/ld.so.preload",
    ] {
        tell(&format!("write {path}"), open(path, libc::O_WRONLY));
    }
    for path in ["/made", "/tmp/made", "/dev/made", "/lib/made"] {
        tell(&format!("make {path}"), open(path, libc::O_CREAT | libc::O_RDWR));
    }
    tell("make directory", unsafe { libc::mkdir(c"/made".as_ptr(), 0o700) }.into());
    tell("make link", unsafe { libc::symlink(c"/etc".as_ptr(), c"/made".as_ptr()) }.into());
    tell("make node", unsafe { libc::mknod(c"/made".as_ptr(), libc::S_IFBLK | 0o600, 0x0800) }.into());
    tell("make named pipe", unsafe { libc::mkfifo(c"/made".as_ptr(), 0o600) }.into());
    tell("remove", unsafe { libc::unlink(c"/dev/null".as_ptr()) }.into());
    tell("change mode", unsafe { libc::chmod(c"/dev/null".as_ptr(), 0o777) }.into());
    tell("change owner", unsafe { libc::chown(c"/dev/null".as_ptr(), 0, 0) }.into());
    tell("open by handle", system_call(libc::SYS_open_by_handle_at, [-100, 0, 0, 0, 0, 0]));
    tell("walk up", open("/../../../../etc/shadow", libc::O_RDONLY));
}

fn sockets(_targets: &Targets) {
    for (name, family, kind) in [
        ("inet stream", libc::AF_INET, libc::SOCK_STREAM),
        ("inet datagram", libc::AF_INET, libc::SOCK_DGRAM),
        ("inet6 stream", libc::AF_INET6, libc::SOCK_STREAM),
        ("inet raw", libc::AF_INET, libc::SOCK_RAW),
        ("packet", libc::AF_PACKET, libc::SOCK_RAW),
        ("netlink", libc::AF_NETLINK, libc::SOCK_RAW),
        ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM),
        ("alg", libc::AF_ALG, libc::SOCK_SEQPACKET),
        ("unix stream", libc::AF_UNIX, libc::SOCK_STREAM),
    ] {
        tell(&format!("socket {name}"), unsafe { libc::socket(family, kind, 0) }.into());
    }
    tell("io_uring", system_call(libc::SYS_io_uring_setup, [8, 0, 0, 0, 0, 0]));
}

fn processes(targets: &Targets) {
    let shim = libc::c_long::from(number(targets, "shim"));
    for (name, pid) in [("shim", shim), ("init", 1), ("everybody", -1)] {
        tell(&format!("kill {name}"), system_call(libc::SYS_kill, [pid, libc::SIGKILL.into(), 0, 0, 0, 0]));
        let attach = libc::PTRACE_ATTACH.into();
        tell(&format!("ptrace {name}"), system_call(libc::SYS_ptrace, [attach, pid, 0, 0, 0, 0]));
        let seize = libc::PTRACE_SEIZE.into();
        tell(&format!("seize {name}"), system_call(libc::SYS_ptrace, [seize, pid, 0, 0, 0, 0]));
        tell(&format!("tgkill {name}"), system_call(libc::SYS_tgkill, [pid, pid, 9, 0, 0, 0]));
        tell(&format!("tkill {name}"), system_call(libc::SYS_tkill, [pid, 9, 0, 0, 0, 0]));
        tell(
            &format!("queue signal to {name}"),
            system_call(libc::SYS_rt_sigqueueinfo, [pid, 9, 0, 0, 0, 0]),
        );
        tell(&format!("limit {name}"), system_call(libc::SYS_prlimit64, [pid, 0, 8, 0, 0, 0]));
        tell(&format!("handle of {name}"), system_call(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0, 0]));
        tell(&format!("priority of {name}"), system_call(libc::SYS_setpriority, [0, pid, -5, 0, 0, 0]));
    }
    tell("fork", system_call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]));
    tell("vfork", system_call(libc::SYS_clone3, [0; 6]));
    let user = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    tell("fork into a namespace", system_call(libc::SYS_clone, [user, 0, 0, 0, 0, 0]));
    let program = std::env::args().next().unwrap();
    for path in ["/bin/sh", &program] {
        let path = text(path);
        let arguments = [path.as_ptr(), std::ptr::null()];
        tell("execute", unsafe { libc::execv(path.as_ptr(), arguments.as_ptr()) }.into());
        let opened = unsafe { libc::open(path.as_ptr(), libc::O_PATH) };
        let arguments = arguments.as_ptr() as libc::c_long;
        let empty = c"".as_ptr() as libc::c_long;
        let flag = libc::c_long::from(libc::AT_EMPTY_PATH);
        let descriptor = opened.into();
        tell(
            "execute descriptor",
            system_call(libc::SYS_execveat, [descriptor, empty, arguments, 0, flag, 0]),
        );
        let gate = number(targets, "gate");
        tell("reach the gate", unsafe { libc::dup2(opened, gate) }.into());
        tell(
            "go through the gate",
            system_call(libc::SYS_execveat, [gate.into(), empty, arguments, 0, flag, 0]),
        );
    }
}

fn descriptors(targets: &Targets) {
    let guard = number(targets, "guard");
    tell("unlock the guard", unsafe { libc::flock(guard, libc::LOCK_UN) }.into());
    let (overlay, base) = (number(targets, "overlay"), number(targets, "base"));
    tell("flock", unsafe { libc::flock(overlay, libc::LOCK_EX) }.into());
    tell("lease", unsafe { libc::fcntl(base, libc::F_SETLEASE, libc::F_RDLCK) }.into());
    tell("signal by descriptor", unsafe { libc::fcntl(overlay, libc::F_SETOWN, 1) }.into());
    tell("write base", unsafe { libc::pwrite(base, c"x".as_ptr().cast(), 1, 0) } as libc::c_long);
    tell("truncate base", unsafe { libc::ftruncate(base, 0) }.into());
    tell("own overlay", unsafe { libc::fchown(overlay, 0, 0) }.into());
    tell("make overlay setuid", unsafe { libc::fchmod(overlay, 0o4777) }.into());
    tell("grow overlay", unsafe { libc::ftruncate(overlay, 1 << 40) }.into());
    let again = format!("/proc/self/fd/{base}");
    tell("open base again", open(&again, libc::O_RDWR));
    if let Some(path) = targets.get("kernel") {
        tell("can-read-kernel", read_once(open(path, libc::O_RDONLY)));
        tell("can-read-kernel-as-libraries", read_once(open(path, libc::O_RDONLY | libc::O_CLOEXEC)));
        let kernel = open(path, libc::O_RDWR) as i32;
        tell("write kernel", unsafe { libc::pwrite(kernel, c"x".as_ptr().cast(), 1, 0) } as libc::c_long);
        tell("truncate kernel", unsafe { libc::ftruncate(kernel, 0) }.into());
    }
    if let Some(path) = targets.get("template") {
        let template = open(path, libc::O_RDWR);
        tell("can-open-template", template);
        let template = template as i32;
        tell("write template", unsafe { libc::pwrite(template, c"x".as_ptr().cast(), 1, 0) } as libc::c_long);
        tell("truncate template", unsafe { libc::ftruncate(template, 0) }.into());
        tell("can-feign-a-hole-in-template", unsafe { libc::fallocate(template, 3, 0, 4096) }.into());
        tell("zero template", unsafe { libc::fallocate(template, 0x10, 0, 4096) }.into());
        tell("punch copied template", unsafe { libc::fallocate(libc::dup(template), 3, 0, 4096) }.into());
        let map = |how| unsafe {
            let read_write = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), 4096, read_write, how, template, 0)
        };
        tell("share template", map(libc::MAP_SHARED) as libc::c_long);
        let own = map(libc::MAP_PRIVATE);
        tell("can-map-template", own as libc::c_long);
        unsafe { own.cast::<u8>().write(b'!') };
        let unknown = format!("{path}2");
        tell("open what is not given", open(&unknown, libc::O_RDWR));
    }
}

/// Reads a byte of what was opened.
fn read_once(descriptor: libc::c_long) -> libc::c_long {
    let mut byte = 0_u8;
    unsafe { libc::read(descriptor as i32, (&raw mut byte).cast(), 1) as libc::c_long }
}

fn privileges(targets: &Targets) {
    tell("setuid", unsafe { libc::setuid(0) }.into());
    tell("setgid", unsafe { libc::setgid(0) }.into());
    tell("setresuid", system_call(libc::SYS_setresuid, [0; 6]));
    tell("setfsuid", system_call(libc::SYS_setfsuid, [0; 6]));
    tell("setgroups", unsafe { libc::setgroups(1, &raw const ZERO) }.into());
    let ambient = libc::c_long::from(libc::PR_CAP_AMBIENT);
    let raise = libc::c_long::from(libc::PR_CAP_AMBIENT_RAISE);
    tell("raise a capability", system_call(libc::SYS_prctl, [ambient, raise, 21, 0, 0, 0]));
    tell("set capabilities", system_call(libc::SYS_capset, [0; 6]));
    tell("keep capabilities", system_call(libc::SYS_prctl, [libc::PR_SET_KEEPCAPS.into(), 1, 0, 0, 0, 0]));
    tell("outlive init", system_call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), 0, 0, 0, 0, 0]));
    let root = c"/".as_ptr() as libc::c_long;
    let tmpfs = c"tmpfs".as_ptr() as libc::c_long;
    tell("mount", system_call(libc::SYS_mount, [tmpfs, root, tmpfs, 0, 0, 0]));
    tell("remount", system_call(libc::SYS_mount, [0, root, 0, libc::MS_REMOUNT as libc::c_long, 0, 0]));
    tell("unmount", system_call(libc::SYS_umount2, [root, libc::MNT_DETACH.into(), 0, 0, 0, 0]));
    tell("fsopen", system_call(libc::SYS_fsopen, [tmpfs, 0, 0, 0, 0, 0]));
    tell("open_tree", system_call(libc::SYS_open_tree, [-100, root, 1, 0, 0, 0]));
    tell("mount_setattr", system_call(libc::SYS_mount_setattr, [-100, root, 0, 0, 0, 0]));
    tell("pivot_root", system_call(libc::SYS_pivot_root, [root, root, 0, 0, 0, 0]));
    tell("chroot", system_call(libc::SYS_chroot, [root, 0, 0, 0, 0, 0]));
    for (name, flag) in [
        ("user", libc::CLONE_NEWUSER),
        ("mount", libc::CLONE_NEWNS),
        ("net", libc::CLONE_NEWNET),
        ("pid", libc::CLONE_NEWPID),
    ] {
        tell(&format!("unshare {name}"), system_call(libc::SYS_unshare, [flag.into(), 0, 0, 0, 0, 0]));
    }
    tell("setns", system_call(libc::SYS_setns, [0; 6]));
    tell("bpf", system_call(libc::SYS_bpf, [0; 6]));
    tell("keyctl", system_call(libc::SYS_keyctl, [0; 6]));
    tell("add_key", system_call(libc::SYS_add_key, [tmpfs, tmpfs, root, 1, -3, 0]));
    tell("perf", system_call(libc::SYS_perf_event_open, [0; 6]));
    tell("init_module", system_call(libc::SYS_init_module, [0; 6]));
    tell("finit_module", system_call(libc::SYS_finit_module, [0; 6]));
    tell("kexec", system_call(libc::SYS_kexec_load, [0; 6]));
    // With wrong magic, so that it would do nothing.
    tell("reboot", system_call(libc::SYS_reboot, [1, 1, 0, 0, 0, 0]));
    tell("sethostname", system_call(libc::SYS_sethostname, [root, 1, 0, 0, 0, 0]));
    tell("settime", system_call(libc::SYS_settimeofday, [0; 6]));
    tell("adjtimex", system_call(libc::SYS_adjtimex, [0; 6]));
    tell("iopl", system_call(libc::SYS_iopl, [3, 0, 0, 0, 0, 0]));
    tell("ioperm", system_call(libc::SYS_ioperm, [0x80, 1, 1, 0, 0, 0]));
    tell("userfaultfd", system_call(libc::SYS_userfaultfd, [0; 6]));
    tell("fanotify", system_call(libc::SYS_fanotify_init, [0; 6]));
    tell("inotify", system_call(libc::SYS_inotify_init1, [0; 6]));
    tell("syslog", system_call(libc::SYS_syslog, [2, root, 0, 0, 0, 0]));
    tell("swapon", system_call(libc::SYS_swapon, [root, 0, 0, 0, 0, 0]));
    tell("acct", system_call(libc::SYS_acct, [0; 6]));
    tell("personality", system_call(libc::SYS_personality, [0; 6]));
    tell("modify_ldt", system_call(libc::SYS_modify_ldt, [0; 6]));
    tell("shared memory", system_call(libc::SYS_shmget, [0, 4096, 0o1600, 0, 0, 0]));
    tell("message queue", system_call(libc::SYS_msgget, [0, 0o1600, 0, 0, 0, 0]));
    tell("posix queue", system_call(libc::SYS_mq_open, [tmpfs, 0o102, 0o600, 0, 0, 0]));
    tell("lock memory", system_call(libc::SYS_mlockall, [1, 0, 0, 0, 0, 0]));
    tell("move memory", system_call(libc::SYS_move_pages, [0; 6]));
    tell("realtime", system_call(libc::SYS_sched_setscheduler, [0, 1, root, 0, 0, 0]));
    // A call of the x32 interface, by which filters of the 64-bit one were passed: getpid.
    tell("x32", system_call(0x4000_0000 | libc::SYS_getpid, [0; 6]));
    tell("hold calls", system_call(libc::SYS_seccomp, [1, 1 << 3, 0, 0, 0, 0]));
    tell("push a key", unsafe { libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()) }.into());
    let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
    tell("raise a limit", unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }.into());
    let copies: Vec<_> =
        std::iter::repeat_with(|| unsafe { libc::dup(1) }).take_while(|&copy| copy >= 0).collect();
    let most = number(targets, "open-files");
    println!("open more files: {}", if copies.iter().all(|&copy| copy < most) { "limited" } else { "ok" });
    for copy in copies {
        unsafe { libc::close(copy) };
    }
}

static ZERO: libc::gid_t = 0;

/// What the kernel says about this process.
fn facts() {
    unsafe {
        println!("=pid: {}", libc::getpid());
        println!("=uid: {}", libc::getuid());
        println!("=gid: {}", libc::getgid());
        println!("=no_new_privs: {}", libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
        let mut header = [0x2008_0522_u32, 0];
        let mut sets = [0_u32; 6];
        libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr());
        println!("=capabilities: {sets:?}");
        println!("=seccomp: {}", libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0));
    }
    for (name, limit) in [("core", libc::RLIMIT_CORE), ("fsize", libc::RLIMIT_FSIZE)] {
        let mut found = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        unsafe { libc::getrlimit(limit, &raw mut found) };
        println!("={name}: {}", found.rlim_max);
    }
    let variables: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    println!("=environment: {}", variables.join(" "));
    let mut root: Vec<String> = std::fs::read_dir("/")
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    root.sort();
    println!("=root: {}", root.join(" "));
    let open: Vec<String> = (0..1024)
        .filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0)
        .map(|fd| fd.to_string())
        .collect();
    println!("=descriptors: {}", open.join(" "));
}
