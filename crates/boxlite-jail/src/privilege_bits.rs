//! A filter for file servers: nothing that they make gives a privilege to who runs or opens it.
//!
//! A program that serves a directory to a guest does there what the guest's root wants. A user of the host who runs a
//! set-user-id file of root becomes root, whatever the guest has mounted with `nosuid`. The filter refuses, with `EPERM`:
//!
//! - every call that would set a set-user-id or set-group-id bit, on a file that exists or on a new one;
//! - device nodes;
//! - extended attributes, file capabilities among them, but for those that are set by descriptor (`fsetxattr`): which they
//!   are no filter sees. The kernel wants a capability for all that mean something to it, such as file capabilities; the
//!   server must have given up `SETFCAP` and `SYS_ADMIN`, and is left `user.*` and access lists.
//!
//! `openat2` passes its mode in memory, where no filter sees it. It fails with `ENOSYS`, as on an older kernel, and the
//! server falls back on `openat`.
//!
//! It refuses and allows all else: the server needs an allow-list of its own besides, without other ways to make files
//! (`io_uring`) and without other tables of system calls. virtiofsd has one.

use std::io;

use seccompiler::BpfProgram;

use crate::error::JailResult as Result;
use crate::syscall_rules::{SyscallRules, masked};

/// `fchmodat2`, which libc does not name for every target.
const SYS_FCHMODAT2: libc::c_long = 452;
/// `setxattrat`.
const SYS_SETXATTRAT: libc::c_long = 463;

/// Calls that set a mode, and which of their arguments it is.
const MODES: &[(libc::c_long, u8)] = &[
    (libc::SYS_chmod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (SYS_FCHMODAT2, 2),
    (libc::SYS_open, 2),
    (libc::SYS_openat, 3),
    (libc::SYS_creat, 1),
    (libc::SYS_mkdir, 1),
    (libc::SYS_mkdirat, 2),
    (libc::SYS_mknod, 1),
    (libc::SYS_mknodat, 2),
];

/// The filters, made before the fork and applied between it and the program's execution.
#[derive(Debug)]
pub struct PrivilegeBits {
    refused: BpfProgram,
    unknown: BpfProgram,
}

impl PrivilegeBits {
    /// Compiles the filters.
    ///
    /// # Errors
    /// For processors that this filter is not made for.
    pub fn refuse() -> Result<Self> {
        let mut rules = SyscallRules::default();
        for &(call, argument) in MODES {
            for bit in [libc::S_ISUID, libc::S_ISGID] {
                rules.list_if(call, &[masked(argument, bit.into(), bit.into())])?;
            }
        }
        for (call, argument) in [(libc::SYS_mknod, 1), (libc::SYS_mknodat, 2)] {
            for device in [libc::S_IFCHR, libc::S_IFBLK] {
                rules.list_if(call, &[masked(argument, libc::S_IFMT.into(), device.into())])?;
            }
        }
        rules.list(&[libc::SYS_setxattr, libc::SYS_lsetxattr, SYS_SETXATTRAT]);
        let refused = rules.denying(libc::EPERM)?;
        let mut rules = SyscallRules::default();
        rules.list(&[libc::SYS_openat2]);
        let unknown = rules.denying(libc::ENOSYS)?;
        Ok(Self { refused, unknown })
    }

    /// Puts the calling process under the filters for good, and takes the way to new privileges from it.
    ///
    /// Makes system calls only, so it may be called between fork and exec.
    ///
    /// # Errors
    /// Where the kernel has no such filters.
    pub fn apply(&self) -> io::Result<()> {
        for filter in [&self.refused, &self.unknown] {
            seccompiler::apply_filter(filter).map_err(|error| match error {
                seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
                _ => io::ErrorKind::InvalidInput.into(),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs a shell script under the filters in a directory of its own, and returns its output.
    fn under_filters(directory: &std::path::Path, script: &str) -> String {
        let filters = PrivilegeBits::refuse().unwrap();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).current_dir(directory).stderr(Stdio::inherit());
        // SAFETY: system calls only.
        #[allow(unsafe_code)]
        unsafe {
            shell.pre_exec(move || filters.apply());
        }
        String::from_utf8(shell.output().unwrap().stdout).unwrap()
    }

    /// The oracle is the kernel, through coreutils. Mutation tried: without `fchmodat` in the list, the first two work.
    #[test]
    fn no_file_gets_a_bit_that_gives_privileges_and_no_device_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let script = "touch x; mkdir d; \
             for attempt in 'chmod 4755 x' 'chmod 2755 x' 'chmod 6755 x' 'chmod u+s x' 'mkdir -m 2755 e' \
                'mknod b b 8 0' 'mknod c c 1 3' 'install -m 4755 x y' 'setfattr -n user.x -v 1 x'; do \
                $attempt 2>/dev/null && echo \"$attempt worked\"; done; \
             chmod 751 x && chmod 1777 d && mkfifo -m 600 f && echo the rest works";
        assert_eq!(under_filters(directory.path(), script), "the rest works\n");
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let found = entry.unwrap().metadata().unwrap();
            assert_eq!((found.mode() & 0o6000, found.rdev()), (0, 0));
        }
        let mode = |name: &str| std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!((mode("x") & 0o7777, mode("d") & 0o7777), (0o751, 0o1777));
    }

    /// Every call by its number, since programs of today use few of them. Mutation tried: any line of [`MODES`] left out.
    #[test]
    fn every_call_that_sets_a_mode_is_refused_the_bits_alone() {
        if Command::new("python3").arg("-V").output().is_err() {
            eprintln!("skipped: python3 is missing");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let calls: Vec<String> =
            MODES.iter().map(|(call, argument)| format!("({call}, {argument})")).collect();
        let script = format!(
            "python3 - <<'END'\n\
             import ctypes, errno, os\n\
             libc = ctypes.CDLL(None, use_errno=True)\n\
             def call(number, argument, mode):\n\
             \x20   arguments = [ctypes.c_long(-1)] * 5\n\
             \x20   arguments[argument] = ctypes.c_long(mode)\n\
             \x20   libc.syscall(ctypes.c_long(number), *arguments)\n\
             \x20   return ctypes.get_errno()\n\
             for number, argument in [{}]:\n\
             \x20   for mode in (0o4755, 0o2755, 0o104644):\n\
             \x20       if call(number, argument, mode) != errno.EPERM: print(number, oct(mode), 'is let through')\n\
             \x20   if call(number, argument, 0o755) == errno.EPERM: print(number, 'is refused')\n\
             if call({}, 2, 0) != errno.ENOSYS: print('openat2 is there')\n\
             END",
            calls.join(", "),
            libc::SYS_openat2
        );
        assert_eq!(under_filters(directory.path(), &script), "");
    }
}
