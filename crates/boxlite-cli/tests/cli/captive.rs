//! A thread of another process that makes the system calls that a test tells it to: what an attacker could do who has
//! taken that process over.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use boxlite_testkit::deadline;
use rustix::process::Pid;

/// The machine code of a system call.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Bytes between the thread's stack and what the test writes: more than the area that functions use below their stack.
const SCRATCH_BELOW: u64 = 16 << 10;

/// The main thread of a process, stopped where it waits in a system call; it goes on when this is dropped.
pub(crate) struct CaptiveThread {
    thread: libc::pid_t,
    memory: File,
    before: libc::user_regs_struct,
}

impl CaptiveThread {
    /// Stops the main thread of `process`.
    ///
    /// # Errors
    /// When this user may not.
    pub(crate) fn take(process: Pid) -> io::Result<Self> {
        let thread = process.as_raw_nonzero().get();
        let memory = File::options().read(true).write(true).open(format!("/proc/{thread}/mem"))?;
        deadline::within(
            Duration::from_secs(30),
            "a thread that waits in a system call",
            || match Self::stop(thread, &memory) {
                Ok(Some(before)) => Some(Ok(before)),
                Ok(None) => None,
                Err(error) => Some(Err(error)),
            },
        )
        .map(|before| Self { thread, memory, before })
    }

    /// Its registers, if it was in a system call; else it goes on.
    fn stop(thread: libc::pid_t, memory: &File) -> io::Result<Option<libc::user_regs_struct>> {
        request(libc::PTRACE_ATTACH, thread, 0, 0)?;
        wait_for_stop(thread);
        let mut registers = unsafe { std::mem::zeroed() };
        request(libc::PTRACE_GETREGS, thread, 0, &raw mut registers as usize)?;
        let libc::user_regs_struct { rip, .. } = registers;
        let mut code = [0; 2];
        memory.read_exact_at(&mut code, rip - 2)?;
        if code == SYSCALL {
            return Ok(Some(registers));
        }
        request(libc::PTRACE_DETACH, thread, 0, 0)?;
        Ok(None)
    }

    /// Has it make a system call with these arguments: the result, or a negated error number.
    pub(crate) fn call(&mut self, number: libc::c_long, arguments: &[u64]) -> i64 {
        let mut registers = self.before;
        let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
        registers.rip = self.before.rip - 2;
        registers.rax = number as u64;
        registers.orig_rax = u64::MAX;
        registers.rdi = argument(0);
        registers.rsi = argument(1);
        registers.rdx = argument(2);
        registers.r10 = argument(3);
        registers.r8 = argument(4);
        registers.r9 = argument(5);
        request(libc::PTRACE_SETREGS, self.thread, 0, &raw const registers as usize).unwrap();
        loop {
            request(libc::PTRACE_SINGLESTEP, self.thread, 0, 0).unwrap();
            if wait_for_stop(self.thread) == libc::SIGTRAP {
                break;
            }
        }
        request(libc::PTRACE_GETREGS, self.thread, 0, &raw mut registers as usize).unwrap();
        registers.rax as i64
    }

    /// Puts `bytes` into its memory, in the place of those that were put there before; returns their address.
    pub(crate) fn put(&self, bytes: &[u8]) -> u64 {
        let address = self.before.rsp - SCRATCH_BELOW;
        self.memory.write_all_at(bytes, address).unwrap();
        address
    }

    /// Puts a path, or another string, into its memory.
    pub(crate) fn put_text(&self, text: &str) -> u64 {
        self.put(&[text.as_bytes(), &[0]].concat())
    }
}

impl Drop for CaptiveThread {
    fn drop(&mut self) {
        let _ = request(libc::PTRACE_SETREGS, self.thread, 0, &raw const self.before as usize);
        let _ = request(libc::PTRACE_DETACH, self.thread, 0, 0);
    }
}

fn request(request: libc::c_uint, thread: libc::pid_t, address: usize, data: usize) -> io::Result<()> {
    let done = unsafe { libc::ptrace(request, thread, address, data) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The signal with which the thread stopped.
fn wait_for_stop(thread: libc::pid_t) -> libc::c_int {
    deadline::within(Duration::from_secs(60), "the captive to stop", || {
        let mut status = 0;
        let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL | libc::WNOHANG) };
        // A main thread that was ended is not waited for successfully while others of its process live.
        let state = std::fs::read_to_string(format!("/proc/{thread}/stat")).unwrap_or_default();
        assert!(!state.contains(") Z "), "the captive's last call ended it");
        (waited == thread).then(|| {
            assert!(libc::WIFSTOPPED(status), "the captive has ended: {status:#x}");
            libc::WSTOPSIG(status)
        })
    })
}
