//! Processes that live no longer than their shim and inherit nothing but what they are given.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use boxlite_jail::LastStep;
use rustix::process::{Pid, PidfdFlags, Signal};

/// Starts the shim's children: each dies with the shim, and holds the box's lock unless it serves a guest directly.
///
/// The death signal follows the thread that spawned a child and not its process, so this is used on the shim's
/// main thread only, which lives as long as the shim.
#[derive(Debug)]
pub(crate) struct ChildSpawner {
    lock: OwnedFd,
    spawned: RefCell<Vec<u32>>,
}

impl ChildSpawner {
    /// Children will keep the lock that `lock` holds until they are gone.
    pub(crate) fn new(lock: OwnedFd) -> Self {
        Self { lock, spawned: RefCell::default() }
    }

    /// The descriptor that holds the box's lock.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// The process ids of all children so far.
    pub(crate) fn spawned(&self) -> Vec<u32> {
        self.spawned.borrow().clone()
    }

    /// A handle of each child that has not been waited for, whatever has become of it.
    pub(crate) fn handles(&self) -> io::Result<Vec<(u32, OwnedFd)>> {
        let open = |&child: &u32| {
            let process = Pid::from_raw(child as i32).ok_or(io::ErrorKind::InvalidInput)?;
            match rustix::process::pidfd_open(process, PidfdFlags::empty()) {
                // One of a machine that did not come up.
                Err(rustix::io::Errno::SRCH) => Ok(None),
                handle => Ok(Some((child, handle?))),
            }
        };
        self.spawned.borrow().iter().filter_map(|child| open(child).transpose()).collect()
    }

    /// Spawns `command` with the lock, the descriptors `keep` (under their numbers) and no others besides its stdio.
    pub(crate) fn spawn(&self, command: Command, keep: &[BorrowedFd<'_>]) -> io::Result<Child> {
        self.spawn_without_lock(command, &[keep, &[self.lock()][..]].concat())
    }

    /// The same for a child that takes the step `last` instead of executing a program: to be called while the shim has one
    /// thread.
    pub(crate) fn spawn_copy(
        &self,
        command: Command,
        keep: &[BorrowedFd<'_>],
        last: LastStep,
    ) -> io::Result<Child> {
        self.start(command, &[keep, &[self.lock()][..]].concat(), Some(last))
    }

    /// The same without the lock: who has its descriptor can release the lock, and a program that a guest takes over
    /// would make a running box look as if it had ended.
    pub(crate) fn spawn_without_lock(&self, command: Command, keep: &[BorrowedFd<'_>]) -> io::Result<Child> {
        self.start(command, keep, None)
    }

    fn start(
        &self,
        mut command: Command,
        keep: &[BorrowedFd<'_>],
        last: Option<LastStep>,
    ) -> io::Result<Child> {
        let inherited: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
        let parent = rustix::process::getpid();
        in_child(&mut command, move || {
            // A signal to all processes of a job is for its command: these end with their shim.
            boxlite_jail::block_requests()?;
            die_with(parent)?;
            only_these_survive_exec(&inherited)
        });
        if let Some(last) = last {
            in_child(&mut command, last);
        }
        let child = command.spawn()?;
        self.spawned.borrow_mut().push(child.id());
        Ok(child)
    }
}

/// Lets `command` inherit `keep` under their numbers, and no other descriptor besides its stdio.
pub(crate) fn inherit_only(command: &mut Command, keep: &[BorrowedFd<'_>]) {
    let inherited: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    in_child(command, move || only_these_survive_exec(&inherited));
}

fn in_child(command: &mut Command, step: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: the steps passed here make system calls only, neither allocating nor locking between fork and exec, but for the
    // last one of a copy, before whose fork there was one thread: nobody else's lock can be held in it.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(step);
    }
}

/// Has the kernel send SIGKILL to this process when its parent's spawning thread ends.
fn die_with(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have gone before the request was in force.
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
}

fn only_these_survive_exec(keep: &[RawFd]) -> io::Result<()> {
    // SAFETY: marks descriptors close-on-exec; it closes none, so nothing that std still uses here is affected.
    #[allow(unsafe_code)]
    let marked =
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked != 0 {
        return Err(io::Error::last_os_error());
    }
    for &descriptor in keep {
        // SAFETY: the caller's descriptors are open in the parent while it spawns, and so in this copy of it.
        #[allow(unsafe_code)]
        let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
    }
    Ok(())
}
