//! Confines processes that touch guest-controlled bytes to what they need.
//!
//! A [`JailSpec`] is the policy, a plain value; [`launch()`] carries it out through a jailer, and the
//! [`JailReport`] says what is in force. A jail that cannot be built is an error: nothing runs in half of one.
//!
//! # The jail
//!
//! | measure | what it is |
//! | --- | --- |
//! | namespaces | mount, pid, ipc, uts, cgroup; net, unless the program needs the host's; user for an ordinary user |
//! | root | an empty tmpfs, read-only, with read-only mounts of just the files that [`View`] names; neither `/proc` nor `/sys` |
//! | user | as root an id of its own and no group; else the user alone in a user namespace |
//! | capabilities | none in any of the five sets; `no_new_privs` |
//! | Landlock | reading and executing what the root has, nothing else; no TCP, no abstract sockets, no signals outwards |
//! | system calls | an allow-list, on top of the program's own sandbox; the program is executed once and nothing after it |
//! | limits | descriptors, size of files, locked memory, no core dumps |
//! | descriptors | those that the spec names, and stdio |
//! | control group | memory, tasks, processor time (root) |
//! | `cgroup.kill` | one file by which all processes of the box end at once |
//! | lock | the lock that says that the box runs is held by the jail's own processes |
//!
//! # Which process does it
//!
//! The jailer has one thread, allocates, and stays as the parent of the jail. A starter with one thread, as a shim is while it
//! starts its children, makes a copy of itself for it ([`begin_by_copy()`]). A child of a process with more threads may not
//! allocate, so such a starter executes a program ([`begin()`]): 77,000 relocations and 400 pages of its own.
//!
//! A copy has its starter's memory, so a starter holds nothing of anybody but its box. The jail's first process has it too, as the
//! program's user: it cannot be dumped or traced, and the program has no call that reads another process's memory.

mod cgroup;
mod confine;
mod error;
mod filter;
mod launch;
mod libraries;
mod message;
mod privilege_bits;
pub mod qemu;
mod report;
mod seclude;
mod spec;
mod stage;
mod syscall_rules;

pub use cgroup::{adopt as adopt_into_group, bounds_processors, memory_used, remove as remove_group};
pub use confine::{Confinement, ForeignFiles, confine, confinement_measures};
pub use error::{JailError, JailResult};
pub use launch::{Jailed, JailedProgram, JailerAnswer, LastStep, Launching, begin, begin_by_copy, launch};
pub use libraries::{code_of, own_libraries};
pub use privilege_bits::PrivilegeBits;
pub use report::{JailReport, Measure, MeasureState};
pub use seclude::{Seclusion, seclude, seclusion_measures};
pub use spec::{
    Bound, CgroupSpec, Filling, JailIdentity, JailSpec, Limits, MEMORY_OVERHEAD, NetworkScope, Opening,
    Profile, TASKS_OVERHEAD, View, memory_overhead,
};
pub use stage::filling::fill;
pub use stage::jailer;
pub use stage::seal::close_all_but;
pub use stage::signals::{END_OF_JAIL, REQUESTS, block_requests};

/// Ignores `signal`, for good.
pub fn ignore_signal(signal: rustix::process::Signal) {
    stage::signals::ignore(signal.as_raw());
}
