//! Operations inside a booted guest, and their events. Clients and shim use the same messages.

use serde::{Deserialize, Serialize};

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WinSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// A process to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments; the program is looked up in the `PATH` of `env` when it has no slash.
    pub argv: Vec<String>,
    /// `NAME=value` entries; `PATH` and `HOME` (and `TERM` on a terminal) are added where missing.
    pub env: Vec<String>,
    /// Working directory; empty means `/`.
    pub cwd: String,
    /// Whether to create a missing working directory.
    pub create_cwd: bool,
    /// `user`, `uid`, `user:group`, `uid:gid` or empty for root, by the image's own files.
    pub user: String,
    /// Supplementary groups besides the user's own, by name or id.
    pub extra_groups: Vec<String>,
    /// Size of the terminal to run on; `None` means pipes.
    pub tty: Option<WinSize>,
    /// Whether standard input is connected; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Whether it is an init system: it becomes process 1 of its own process namespace, which later operations enter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init_system: bool,
}

/// An operation inside the guest.
///
/// The sender chooses the id, which is also the channel of the operation's streams. The id is free again after the
/// operation's last event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Run a process: `Started` and later `Exited`, or `ExecFailed`.
    Exec {
        /// Channel of its streams.
        id: u32,
        /// The command to run.
        spec: ExecSpec,
    },
    /// Send a signal to the process of an exec. Unknown ids are ignored, because the process may just have exited.
    Signal {
        /// The exec.
        id: u32,
        /// Signal number.
        signo: i32,
    },
    /// Resize the terminal of an exec; ignored like `Signal`.
    Resize {
        /// The exec.
        id: u32,
        /// New size.
        size: WinSize,
    },
    /// Unpack a tar stream sent on [`crate::Stream::Stdin`]; answered by `Copied` or `Failed`.
    ///
    /// The archive's top-level entry is named after the source, or `.` for a directory's contents. An existing
    /// directory at `dest` receives the entry under its own name; otherwise the entry takes the name of `dest`.
    CopyIn {
        /// Channel of the archive.
        id: u32,
        /// Absolute path in the guest.
        dest: String,
        /// Whether to keep the archive's numeric owners; otherwise root owns everything.
        keep_owners: bool,
    },
    /// Pack a path as a tar stream on [`crate::Stream::Stdout`]; answered by `Copied` or `Failed`.
    ///
    /// A path ending in `/.` packs the directory's contents, top-level entry `.`.
    CopyOut {
        /// Channel of the archive.
        id: u32,
        /// Absolute path in the guest.
        path: String,
        /// Whether a symbolic link at `path` itself is followed.
        follow: bool,
    },
    /// List the files on the box's disk on [`crate::Stream::Stdout`], without what is mounted over them; then pack those
    /// that are asked for on [`crate::Stream::Stdin`], as `boxlite-archive` describes. Answered by `Copied` or `Failed`.
    Tree {
        /// Channel of the list and the files.
        id: u32,
    },
    /// Connect to a TCP port of the guest's own loopback addresses: `Started` once connected, then its streams, and `Exited`
    /// when the other side has ended; or `Failed`. The connection does not outlive the client that asked for it.
    Dial {
        /// Channel of the connection.
        id: u32,
        /// The port.
        port: u16,
    },
    /// Write out the root filesystem and hold back everything that is written to it, until the input on
    /// [`crate::Stream::Stdin`] ends or the time is over; answered by one byte on [`crate::Stream::Stdout`] once it stands
    /// still, and then by `Thawed`, or by `Failed`.
    Freeze {
        /// Channel of the byte and of the input.
        id: u32,
        /// Milliseconds after which the guest thaws by itself.
        timeout_ms: u64,
    },
    /// Describe a path: `Stat` or `Failed`.
    Stat {
        /// Echoed in the answer.
        id: u32,
        /// Absolute path in the guest; a final symbolic link is described, not followed.
        path: String,
    },
    /// Report consumption: `Metrics`.
    Metrics {
        /// Echoed in the answer.
        id: u32,
    },
    /// List the processes: `Processes` or `Failed`.
    Processes {
        /// Echoed in the answer.
        id: u32,
    },
    /// Answered by `Pong` at once. Before `Boot` it is not answered: the guest rehearses then what it will do for a box, which it does
    /// faster the second time where it is emulated. An agent of an earlier version ignores it.
    Ping {
        /// Echoed in the answer.
        id: u32,
    },
}

impl Op {
    /// The id the operation carries.
    pub fn id(&self) -> u32 {
        match self {
            Self::Exec { id, .. }
            | Self::Signal { id, .. }
            | Self::Resize { id, .. }
            | Self::CopyIn { id, .. }
            | Self::CopyOut { id, .. }
            | Self::Tree { id }
            | Self::Dial { id, .. }
            | Self::Freeze { id, .. }
            | Self::Stat { id, .. }
            | Self::Metrics { id }
            | Self::Processes { id }
            | Self::Ping { id } => *id,
        }
    }

    /// The same operation under another id, for a forwarder that renumbers.
    #[must_use]
    pub fn with_id(mut self, renumbered: u32) -> Self {
        match &mut self {
            Self::Exec { id, .. }
            | Self::Signal { id, .. }
            | Self::Resize { id, .. }
            | Self::CopyIn { id, .. }
            | Self::CopyOut { id, .. }
            | Self::Tree { id }
            | Self::Dial { id, .. }
            | Self::Freeze { id, .. }
            | Self::Stat { id, .. }
            | Self::Metrics { id }
            | Self::Processes { id }
            | Self::Ping { id } => *id = renumbered,
        }
        self
    }

    /// Whether the operation opens a channel and its id stays taken until a last event.
    pub fn opens_channel(&self) -> bool {
        matches!(
            self,
            Self::Exec { .. }
                | Self::CopyIn { .. }
                | Self::CopyOut { .. }
                | Self::Tree { .. }
                | Self::Dial { .. }
                | Self::Freeze { .. }
        )
    }
}

/// Progress or result of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpEvent {
    /// The process is running, or the connection stands.
    Started {
        /// The exec, or the dial.
        id: u32,
        /// Its process id in the guest.
        pid: u32,
    },
    /// The process could not be started; last event of the id.
    ExecFailed {
        /// The exec.
        id: u32,
        /// Why.
        kind: ExecFailure,
        /// One sentence for the user.
        message: String,
    },
    /// The process has exited and all of its output was sent before this; last event of the id.
    Exited {
        /// The exec.
        id: u32,
        /// How it ended.
        status: ProcessExit,
        /// Processes that the guest's kernel has killed for want of memory since it booted.
        #[serde(default, skip_serializing_if = "is_zero")]
        memory_kills: u32,
    },
    /// A copy is complete; last event of the id. For a copy out, the archive's end was sent before this.
    Copied {
        /// The copy.
        id: u32,
        /// Bytes of the archive.
        bytes: u64,
    },
    /// The root filesystem takes writes again; last event of the id.
    Thawed {
        /// The freeze.
        id: u32,
        /// For how long it took none, in microseconds of the guest's clock.
        frozen_us: u64,
        /// Whether the time was over, or something else thawed it, before the input ended.
        expired: bool,
    },
    /// Answer to `Stat`.
    Stat {
        /// Echo of the request.
        id: u32,
        /// The description.
        stat: FileStat,
    },
    /// Answer to `Metrics`.
    Metrics {
        /// Echo of the request.
        id: u32,
        /// The figures.
        metrics: GuestMetrics,
    },
    /// Answer to `Processes`.
    Processes {
        /// Echo of the request.
        id: u32,
        /// The list.
        list: GuestProcesses,
    },
    /// Answer to `Ping`.
    Pong {
        /// Echo of the request.
        id: u32,
    },
    /// An operation other than an exec failed; last event of the id.
    Failed {
        /// The operation.
        id: u32,
        /// Why.
        kind: OpFailure,
        /// One sentence for the user.
        message: String,
    },
}

impl OpEvent {
    /// The id of the operation it answers.
    pub fn id(&self) -> u32 {
        match self {
            Self::Started { id, .. }
            | Self::ExecFailed { id, .. }
            | Self::Exited { id, .. }
            | Self::Copied { id, .. }
            | Self::Thawed { id, .. }
            | Self::Stat { id, .. }
            | Self::Metrics { id, .. }
            | Self::Processes { id, .. }
            | Self::Pong { id }
            | Self::Failed { id, .. } => *id,
        }
    }

    /// The same event under another id, for a forwarder that renumbers.
    #[must_use]
    pub fn with_id(mut self, renumbered: u32) -> Self {
        match &mut self {
            Self::Started { id, .. }
            | Self::ExecFailed { id, .. }
            | Self::Exited { id, .. }
            | Self::Copied { id, .. }
            | Self::Thawed { id, .. }
            | Self::Stat { id, .. }
            | Self::Metrics { id, .. }
            | Self::Processes { id, .. }
            | Self::Pong { id }
            | Self::Failed { id, .. } => *id = renumbered,
        }
        self
    }

    /// Whether this is the last event of its id.
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Started { .. })
    }
}

/// Why a process did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecFailure {
    /// No such program.
    NotFound,
    /// The program is not executable, or is a directory.
    PermissionDenied,
    /// The kernel cannot run files of this format.
    BadFormat,
    /// The user or a group is not in the image.
    NoSuchUser,
    /// The working directory is missing or not a directory.
    BadCwd,
    /// The request itself is invalid: no argv, a NUL byte, an id that is in use.
    Invalid,
    /// The guest is out of memory, processes or descriptors, or met another kernel error.
    Resources,
}

impl ExecFailure {
    /// The exit status that Docker's users expect: 127, 126, or 125 for what is not the command's fault.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::NotFound => 127,
            Self::PermissionDenied | Self::BadFormat | Self::BadCwd | Self::NoSuchUser => 126,
            Self::Invalid | Self::Resources => 125,
        }
    }
}

/// Why an operation other than an exec failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpFailure {
    /// The path, or the parent of a copy's target, does not exist.
    NotFound,
    /// A directory is needed, or one is in the way.
    WrongKind,
    /// The archive is malformed or an entry would leave its target.
    BadArchive,
    /// The guest's disk is full.
    NoSpace,
    /// The request is invalid, or its id is in use.
    Invalid,
    /// Another input/output error.
    Io,
}

/// How a process in the guest ended, as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessExit {
    /// It exited.
    Code(i32),
    /// It was killed.
    Signal(i32),
}

impl ProcessExit {
    /// The status as a shell reports it: the code, or 128 + signal.
    pub const fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signo) => 128 + signo,
        }
    }
}

/// Kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, FIFO or socket.
    Other,
}

/// Description of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Kind of file.
    pub kind: FileKind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Apparent length in bytes.
    pub length: u64,
    /// Modification time in seconds since the epoch.
    pub mtime: i64,
    /// Target, for a symbolic link.
    pub link_target: Option<String>,
    /// Whether the path is a directory once symbolic links are followed.
    pub leads_to_directory: bool,
}

/// Resources in use inside the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestMetrics {
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// Time that the processors were not idle, in milliseconds, summed over all of them.
    pub cpu_busy_ms: u64,
    /// Processors on line.
    pub cpus: u32,
    /// Memory the kernel manages, in bytes.
    pub memory_total: u64,
    /// Memory available without swapping, in bytes.
    pub memory_available: u64,
    /// Processes, threads and kernel threads not counted.
    pub processes: u32,
    /// Length of the root filesystem in bytes.
    pub root_total: u64,
    /// Bytes in use on the root filesystem.
    pub root_used: u64,
}

/// The processes of a guest, threads and kernel threads left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestProcesses {
    /// In the order of their ids.
    pub processes: Vec<GuestProcess>,
    /// How many more there are than the list has room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u32,
    /// The guest's clock, in seconds since the epoch.
    pub now: i64,
    /// Bytes of memory that the guest's kernel manages.
    pub memory_total: u64,
}

/// One process of a guest, as its `/proc` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestProcess {
    /// Process id.
    pub pid: u32,
    /// That of its parent.
    pub ppid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Name of that user by the image's `/etc/passwd`, or the number.
    pub user: String,
    /// Terminal, such as `pts/0`; `None` where it has none.
    pub terminal: Option<String>,
    /// The kernel's letter for its state, such as `R` or `S`.
    pub state: char,
    /// Its start, in seconds since the epoch.
    pub started: i64,
    /// Processor time in milliseconds.
    pub cpu_ms: u64,
    /// Bytes of its address space.
    pub virtual_bytes: u64,
    /// Bytes of it in memory.
    pub resident_bytes: u64,
    /// Number of threads.
    pub threads: u32,
    /// Niceness.
    pub nice: i32,
    /// Short name.
    pub name: String,
    /// Command line, its arguments separated by spaces and cut where it is very long; the name in brackets where
    /// it has none.
    pub command: String,
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests;
