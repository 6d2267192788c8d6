//! Which system calls a process may make: allow-lists for QEMU, and a list of what is denied to the shim.
//!
//! Found by tracing real runs (boot, restore, disk traffic, discard, shares, networks, pause, stop), and widened by the siblings
//! of what was seen (`readv` where `read` was) and by what other versions of glibc and glib use for the same.
//!
//! # What happens to the rest
//!
//! It fails with `ENOSYS`, as on a kernel that does not have it. That contains an attacker as well as a kill would, and
//! it does not end the box of somebody whose distribution's QEMU or glibc tries a newer call first: all of them fall
//! back on `ENOSYS`, and on nothing else (glibc makes threads by `clone3` first, whose arguments no filter can read).
//!
//! # Profiles
//!
//! A QEMU with a machine has disks and may write to them; with KVM it has that device's ioctls too. The user-mode network is
//! a QEMU without a machine: it has no call that changes a file, and makes sockets of the internet and no others.
//!
//! # What is allowed in part
//!
//! - `clone` makes threads, never processes or namespaces.
//! - `execveat` runs the one descriptor that no process can have again; see [`gate`].
//! - `tgkill` reaches the threads of this process.
//! - `prlimit64` reads, `prctl` and `seccomp` do what QEMU's own sandbox does.
//! - `ioctl` is what a terminal check, a socket and a regular file need, and KVM's for KVM.
//! - `fcntl` knows nothing of leases, signals or owners; `flock` does not exist.

use seccompiler::BpfProgram;

use crate::error::JailResult as Result;
use crate::spec::{NetworkScope, Profile};
use crate::syscall_rules::{SyscallRules, differs, equals, masked, masked_long};

/// Calls that are allowed whatever their arguments are.
const ALLOWED: &[libc::c_long] = &[
    // Descriptors, and what the jail's root has, which is read-only.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_openat,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_pipe,
    libc::SYS_pipe2,
    // Waiting.
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_gettime,
    libc::SYS_timer_delete,
    libc::SYS_timer_getoverrun,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_time,
    libc::SYS_times,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // The process and its threads.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_arch_prctl,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_capget,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Sockets that it was given.
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
];

/// Calls of a program that has disks.
const ALLOWED_WITH_DISKS: &[libc::c_long] = &[
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_copy_file_range,
    libc::SYS_memfd_create,
    libc::SYS_umask,
];

/// Calls of a program that has the host's network.
const ALLOWED_WITH_NETWORK: &[libc::c_long] = &[
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
];

/// Permitted operations of `prctl`: those that glibc, QEMU and its own sandbox use.
const PRCTL: &[libc::c_int] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_SECCOMP,
    libc::PR_SET_SECCOMP,
    libc::PR_GET_DUMPABLE,
    libc::PR_SET_TIMERSLACK,
    libc::PR_GET_TIMERSLACK,
    libc::PR_SET_VMA,
];

/// Permitted operations of `fcntl`: flags and copies.
const FCNTL: &[libc::c_int] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETPIPE_SZ,
];

/// And with disks: the record locks by which QEMU claims them, and seals.
const FCNTL_WITH_DISKS: &[libc::c_int] = &[
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_GET_SEALS,
    libc::F_ADD_SEALS,
];

/// Permitted requests of `ioctl` without KVM: each concerns the descriptor alone.
const IOCTL: &[u64] = &[0x5401, 0x5421, 0x541b, 0x5450, 0x5451];

/// And with disks: the sizes of a device's blocks, which the kernel refuses for a file.
const IOCTL_WITH_DISKS: &[u64] = &[0x1268, 0x127b, 0x127c, 0x127e];

/// The letter of KVM's ioctls, in the place where the number of an ioctl has its letter.
const KVM_IOCTL: u64 = 0xae << 8;

/// Namespaces and file tables that a new thread might have for itself.
const CLONE_NEW: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_PTRACE) as u64;

/// The number of the descriptor by which the program is executed: higher than any that a process with `open_files`
/// descriptors can make. It closes as the program starts, and nothing can ever be executed by that number again.
pub(crate) fn gate(open_files: u64) -> i32 {
    i32::try_from(open_files).unwrap_or(i32::MAX - 16) + 8
}

/// The number under which a program with `open_files` descriptors gets the file into which it punches feigned holes: the last.
pub(crate) fn feigned(open_files: u64) -> i32 {
    i32::try_from(open_files).unwrap_or(i32::MAX) - 1
}

/// The filter of a program whose process has the number `process` and that is executed through the descriptor `gate`.
pub(crate) fn program_filter(
    profile: Profile,
    network: NetworkScope,
    process: u32,
    gate: i32,
) -> Result<BpfProgram> {
    let mut rules = SyscallRules::default();
    rules.list(ALLOWED);
    for &option in PRCTL {
        rules.list_if(libc::SYS_prctl, &[equals(0, option as u64)])?;
    }
    for &command in FCNTL {
        rules.list_if(libc::SYS_fcntl, &[equals(1, command as u64)])?;
    }
    for &request in IOCTL {
        rules.list_if(libc::SYS_ioctl, &[equals(1, request)])?;
    }
    if profile != Profile::Stack {
        rules.list(ALLOWED_WITH_DISKS);
        for &command in FCNTL_WITH_DISKS {
            rules.list_if(libc::SYS_fcntl, &[equals(1, command as u64)])?;
        }
        for &request in IOCTL_WITH_DISKS {
            rules.list_if(libc::SYS_ioctl, &[equals(1, request)])?;
        }
    }
    if profile == Profile::Kvm {
        rules.list_if(libc::SYS_ioctl, &[masked(1, 0xff00, KVM_IOCTL)])?;
    }
    let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_FILES) as u64;
    rules.list_if(libc::SYS_clone, &[masked(0, thread | CLONE_NEW, thread)])?;
    rules.list_if(libc::SYS_tgkill, &[equals(0, process.into())])?;
    rules.list_if(libc::SYS_prlimit64, &[masked_long(2, u64::MAX, 0)])?;
    // libseccomp asks by an invalid strict mode whether there is such a call.
    let operations =
        [libc::SECCOMP_SET_MODE_STRICT, libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_GET_ACTION_AVAIL];
    for operation in operations {
        let no_listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        rules.list_if(libc::SYS_seccomp, &[equals(0, operation.into()), masked(1, no_listener, 0)])?;
    }
    rules.list_if(libc::SYS_execveat, &[equals(0, gate as u64), equals(4, libc::AT_EMPTY_PATH as u64)])?;
    // A pair of sockets is a pipe with two ends: no name, and nobody else's.
    rules.list_if(libc::SYS_socketpair, &[equals(0, libc::AF_UNIX as u64)])?;
    if network == NetworkScope::Host {
        rules.list(ALLOWED_WITH_NETWORK);
        // The box's network has no IPv6.
        let families: &[_] =
            if profile == Profile::Stack { &[libc::AF_INET] } else { &[libc::AF_INET, libc::AF_INET6] };
        for &family in families {
            for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
                let is_kind = masked(1, 0xff, kind as u64);
                rules.list_if(libc::SYS_socket, &[equals(0, family as u64), is_kind])?;
            }
        }
    }
    rules.allowing()
}

/// The filter of the jail's own first process: it waits, and ends the others.
pub(crate) fn init_filter() -> Result<BpfProgram> {
    let mut rules = SyscallRules::default();
    rules.list(&[
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_restart_syscall,
        libc::SYS_kill,
        libc::SYS_pidfd_open,
        libc::SYS_close,
        libc::SYS_exit_group,
        libc::SYS_exit,
        libc::SYS_rt_sigreturn,
    ]);
    rules.allowing()
}

/// Calls that a confined process of the host has no business with: those of new programs, of sockets, and of root.
const DENIED_IN_CONFINEMENT: &[libc::c_long] = &[
    // Programs and processes. (Threads are made by `clone`; `clone3` hides its arguments from a filter.)
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_clone3,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    // Networks: it has its sockets, and accepts what comes to them.
    libc::SYS_bind,
    // Filesystems and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mknodat,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    // The kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
];

/// Calls that name a file, or open another's: what a secluded process has is open.
const DENIED_IN_SECLUSION: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    libc::SYS_linkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_inotify_add_watch,
    // Locks: those of the box are held by others too, who rely on them.
    libc::SYS_flock,
];

/// The operations of `fcntl` on locks.
const LOCKING: &[libc::c_int] =
    &[libc::F_SETLK, libc::F_SETLKW, libc::F_OFD_SETLK, libc::F_OFD_SETLKW, libc::F_SETLEASE, libc::F_NOTIFY];

/// The filters of the process `own` that has its files open and ends its `children`: those of a confined one, and none of the
/// calls by which it would come to other files, sockets or locks.
pub(crate) fn secluded_filters(own: u32, children: &[u32]) -> Result<[BpfProgram; 3]> {
    let [denied, connecting] = confined_filters(own, children)?;
    let mut rules = SyscallRules::default();
    rules.list(DENIED_IN_SECLUSION);
    rules.list(&[libc::SYS_socket]);
    for &command in LOCKING {
        rules.list_if(libc::SYS_fcntl, &[equals(1, command as u64)])?;
    }
    Ok([denied, connecting, rules.denying(libc::EACCES)?])
}

/// The filters of the process `own` of the host that goes on with its files, its threads and its `children`.
///
/// They are lists of what is denied: such a process uses a database and a runtime, whose calls are those of their next version.
/// Its connections are refused: it finds out that a shim has ended by connecting to its socket.
pub(crate) fn confined_filters(own: u32, children: &[u32]) -> Result<[BpfProgram; 2]> {
    let mut connecting = SyscallRules::default();
    connecting.list(&[libc::SYS_connect]);
    Ok([denied_filter(own, children)?, connecting.denying(libc::ECONNREFUSED)?])
}

fn denied_filter(own: u32, children: &[u32]) -> Result<BpfProgram> {
    let mut rules = SyscallRules::default();
    rules.list(DENIED_IN_CONFINEMENT);
    // A socket of this kind sends nothing to anybody that it is not connected to.
    rules.list_if(libc::SYS_socket, &[differs(0, libc::AF_UNIX as u64)])?;
    for kind in (0..16).filter(|&kind| kind != libc::SOCK_STREAM as u64) {
        rules.list_if(libc::SYS_socket, &[masked(1, 0xf, kind)])?;
    }
    rules.list_if(libc::SYS_clone, &[masked(0, libc::CLONE_THREAD as u64, 0)])?;
    rules.list_if(libc::SYS_tgkill, &[differs(0, own.into())])?;
    let other: Vec<_> = children.iter().map(|&child| differs(0, child.into())).collect();
    // A child's process group has its number, negated.
    let other_group: Vec<_> =
        children.iter().map(|&child| differs(0, u64::from(child.wrapping_neg()))).collect();
    let neither: Vec<_> = other.iter().chain(&other_group).cloned().collect();
    rules.list_if(libc::SYS_kill, &neither)?;
    rules.list_if(libc::SYS_pidfd_open, &other)?;
    rules.denying(libc::ENOSYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_compiles_and_kvm_is_longer() {
        let length = |profile, network| program_filter(profile, network, 2, 300).unwrap().len();
        let tcg = length(Profile::Tcg, NetworkScope::None);
        assert!(length(Profile::Kvm, NetworkScope::None) > tcg);
        assert!(length(Profile::Tcg, NetworkScope::Host) > tcg);
        assert!(length(Profile::Stack, NetworkScope::Host) < length(Profile::Tcg, NetworkScope::Host));
        assert!(init_filter().unwrap().len() < tcg / 4);
    }

    #[test]
    fn no_call_that_a_jail_is_about_is_allowed_outright() {
        let never = [
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_kill,
            libc::SYS_flock,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_fork,
            libc::SYS_clone3,
            libc::SYS_ioctl,
            libc::SYS_io_uring_setup,
            libc::SYS_pidfd_getfd,
        ];
        let allowed = [ALLOWED, ALLOWED_WITH_DISKS].concat();
        assert!(never.iter().all(|call| !allowed.contains(call)));
    }
}
