//! The rights of a program in a jail, as a value: nothing here makes a system call.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One program and everything that it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailSpec {
    /// The program, absolute; it must be part of [`view`](Self::view).
    pub program: PathBuf,
    /// Everything after `argv[0]`.
    pub arguments: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<(String, OsString)>,
    /// Descriptors that the program inherits under their numbers, besides its stdio.
    pub descriptors: Vec<RawFd>,
    /// Files that the program opens by name and that are descriptors in truth.
    pub openings: Vec<Opening>,
    /// Files that are filled before the program starts.
    pub fillings: Vec<Filling>,
    /// The files of the host that the program sees, all of them read-only.
    pub view: View,
    /// Whose files and processes the program may touch, where there were any.
    pub identity: JailIdentity,
    /// Resource limits.
    pub limits: Limits,
    /// Which system calls the program may make.
    pub profile: Profile,
    /// Whether the program sits in a network.
    pub network: NetworkScope,
    /// Whether the program keeps the one capability that binds ports below 1024: for a user-mode stack of root's that
    /// publishes such a port.
    pub low_ports: bool,
    /// Bounds on the host's memory, processes and processors that the program uses; `None` asks for no control group.
    pub cgroup: Option<CgroupSpec>,
    /// A descriptor whose lock says that the program runs: the program never has it, and it is closed only once the
    /// program has ended.
    pub guard: Option<RawFd>,
}

impl JailSpec {
    /// Every descriptor that it names.
    pub(crate) fn named(&self) -> impl Iterator<Item = RawFd> {
        let openings = self.openings.iter().map(|opening| opening.descriptor);
        let fillings = self.fillings.iter().flat_map(|filling| [filling.from, filling.into]);
        self.descriptors.iter().copied().chain(openings).chain(fillings).chain(self.guard)
    }
}

/// A name that the program opens, and the descriptor whose file it gets.
///
/// The descriptor's own access mode decides what the program can do with it: a file that was opened read-only stays
/// read-only, although the program asked for more. This is how a QEMU that insists on opening guest memory for writing
/// maps a template that it cannot change, how it reads a kernel that only its owner may read, and how it gets `/dev/kvm`
/// without a right to the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The name, exactly as the program spells it.
    pub path: PathBuf,
    /// The descriptor of which it gets a copy.
    pub descriptor: RawFd,
    /// Whether a hole that the program punches into the file is feigned: the call succeeds, and the file keeps its bytes. At
    /// most one opening is such.
    ///
    /// QEMU drops its own copy of a page of a template, and so returns what its guest has freed, once it has punched the page out
    /// of the file below. That file is not its own, and the kernel refuses, since the descriptor cannot write.
    pub feigns_holes: bool,
    /// Whether the program asks for no more than reading. It then finds the file in its root, if its user may read it.
    pub reads_only: bool,
}

/// A file that gets the beginning of another before the program starts, by the process that becomes the program.
///
/// So the pages of a memory file are charged to the program's control group, and not to that of its starter. The program has
/// neither descriptor, unless it is given it in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filling {
    /// The file that is copied, open for reading. Its holes are left out.
    pub from: RawFd,
    /// The file that is filled, open for writing.
    pub into: RawFd,
    /// How many of its first bytes are copied.
    pub length: u64,
}

/// The files of the host that a program sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Files and directories whose contents may be executed: the program, its loader and libraries.
    pub code: Vec<PathBuf>,
    /// Files and directories that are data: firmware.
    pub data: Vec<Bound>,
    /// Device nodes.
    pub devices: Vec<PathBuf>,
}

/// A file or directory of the host under a name of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Where it is on the host, absolute.
    pub source: PathBuf,
    /// Where the program sees it, absolute.
    pub target: PathBuf,
}

impl Bound {
    /// A file under the name that it has on the host.
    pub fn same(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { source: path.clone(), target: path }
    }
}

/// The identity of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JailIdentity {
    /// The user that starts it, alone in a user namespace: what an ordinary user can have.
    Own,
    /// The user and group with this id, which belong to nobody else: what root can have.
    Reserved(u32),
}

impl JailIdentity {
    /// The identity of box number `index` of the reserved ids `first..first + count`, where the caller is root.
    pub fn of_box(is_root: bool, first: u32, count: u32, index: u32) -> Self {
        if is_root && count > 0 { Self::Reserved(first + index % count) } else { Self::Own }
    }
}

/// Resource limits that are not about all of a box but about one process. No core is ever dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most open descriptors; also the highest number that one may have.
    pub open_files: u64,
    /// Most bytes that a file may have after a write.
    pub file_size: u64,
    /// Most bytes of locked memory.
    pub locked_memory: u64,
    /// Most bytes of address space, for a program whose need is known; `None` leaves that to the control group.
    pub address_space: Option<u64>,
}

/// Which system calls a program may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// QEMU that translates the guest's code.
    Tcg,
    /// QEMU that has the guest's code run by the kernel: with the ioctls of `/dev/kvm`.
    Kvm,
    /// QEMU without a machine, which is a user-mode network stack: it has sockets and no disks.
    Stack,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcg => "TCG",
            Self::Kvm => "KVM",
            Self::Stack => "a user-mode network",
        })
    }
}

/// Whether a program sits in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkScope {
    /// In an empty network namespace, and without a system call that makes a socket.
    None,
    /// In the host's: a user-mode stack has its sockets there.
    Host,
}

/// Bounds on all of a box's jailed processes together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// The name of the control group below `boxlite`: one path component.
    pub name: String,
    /// Most bytes of memory.
    pub memory_max: u64,
    /// Most threads.
    pub tasks_max: u32,
    /// Most processor time, in hundredths of one processor; also the share among the boxes when there is too little for all.
    pub cpu_percent: u32,
}

/// Bytes of memory that a box may take besides its guest's: QEMU itself (60 MiB), its translation cache (64 MiB, see
/// `tb-size`), its threads' stacks and buffers, and what the kernel keeps for it.
pub const MEMORY_OVERHEAD: u64 = 256 << 20;

/// Threads that a box may have besides one for each virtual processor: QEMU's pool for disk requests has up to 64, each
/// volume's device two, and a migration some; the jail itself has one.
pub const TASKS_OVERHEAD: u32 = 96;

/// Bytes that a box may take besides its guest's `memory`: [`MEMORY_OVERHEAD`], and a 32nd of the guest's memory for its
/// page tables and QEMU's bookkeeping of dirty pages.
pub fn memory_overhead(memory: u64) -> u64 {
    memory / 32 + MEMORY_OVERHEAD
}

impl CgroupSpec {
    /// The group of the box `name` with a guest of `memory` bytes on `cpus` processors.
    pub fn of_box(name: &str, memory: u64, cpus: u32) -> Self {
        Self {
            name: name.into(),
            memory_max: memory.saturating_add(memory_overhead(memory)),
            tasks_max: cpus.saturating_add(TASKS_OVERHEAD),
            cpu_percent: cpus.saturating_mul(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_box_of_root_has_an_id_of_the_range_and_nobody_elses() {
        assert_eq!(JailIdentity::of_box(true, 100_000, 10, 3), JailIdentity::Reserved(100_003));
        assert_eq!(JailIdentity::of_box(true, 100_000, 10, 13), JailIdentity::Reserved(100_003));
        assert_eq!(JailIdentity::of_box(false, 100_000, 10, 3), JailIdentity::Own);
        assert_eq!(JailIdentity::of_box(true, 100_000, 0, 3), JailIdentity::Own);
    }

    #[test]
    fn a_group_holds_the_guest_and_the_stated_overhead() {
        let group = CgroupSpec::of_box("b", 1 << 30, 2);
        assert_eq!(group.memory_max, (1 << 30) + (32 << 20) + (256 << 20));
        assert_eq!((group.tasks_max, group.cpu_percent), (98, 200));
    }
}
