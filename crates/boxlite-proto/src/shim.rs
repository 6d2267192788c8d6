//! Control messages between a client and the shim that owns a box. See the crate's [first hop](crate#client-to-shim).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::health::ProbeRecord;
use crate::{
    ProcessExit,
    execution::{ExecutionEnd, ExecutionState, HoldTerms},
    op::{ExecSpec, Op, OpEvent, WinSize},
};

/// A request from a client to a shim.
///
/// Each client chooses the ids of its [`Op`]s and of `Attach`; the shim renumbers them towards the guest. When a client
/// disconnects, its execs keep running: their input ends and their output is discarded. An exec without a terminal that
/// has had a part of its input is killed instead, since it would take that part for the whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimRequest {
    /// The first message.
    Hello {
        /// [`crate::PROTOCOL_VERSION`] of the client.
        version: u32,
    },
    /// Answered by `Status`.
    Status,
    /// Connect to the main process on channel `id`: `Attached`, then data frames, then `Event(Exited)`.
    Attach {
        /// Channel for the main process on this connection.
        id: u32,
        /// Position in the main process's output to resume from, in bytes; `None` means from now on.
        from: Option<u64>,
        /// Whether this client's input goes to the process; the first such client wins.
        stdin: bool,
        /// Size of the client's terminal, if it has one.
        tty: Option<WinSize>,
    },
    /// An operation for the guest, answered by `Event`s.
    Op(Op),
    /// Signal the main process.
    Kill {
        /// Signal number.
        signo: i32,
    },
    /// Stop the box: signal the main process, wait, then end everything and flush. Answered by `Stopped`.
    Stop {
        /// Signal to begin with; `None` means SIGTERM.
        signo: Option<i32>,
        /// Milliseconds before SIGKILL.
        timeout_ms: u64,
    },
    /// Wait until the box has stopped. Answered by `Stopped`.
    Wait,
    /// From now on the box has this disk quota. Answered by `Done`.
    SetDiskQuota {
        /// Allocated bytes of its overlay; `None` takes the quota away.
        bytes: Option<u64>,
    },
    /// Open the overlay that lies at the box's path by now, and that stands on the one in use, so that `SwitchDisk` has only to
    /// go over to it. Answered by `Done`. For a shim that has the ability [`crate::FROZEN_SWITCH`].
    PrepareDisk,
    /// Have the guest's root filesystem stand still, go on with the overlay that was opened, and let the guest go on. The shim
    /// does all of it, so that the guest waits for no client. Answered by `Switched`.
    SwitchDisk {
        /// Milliseconds after which the guest goes on by itself.
        limit_ms: u64,
    },
    /// Pause the guest for its user, or let it go on as far as the user is concerned. Answered by `Done`.
    SetPaused {
        /// Whether it is to pause.
        paused: bool,
    },
    /// Begin an execution that the shim holds, unless it holds one of that id. Answered by `Execution` once the process
    /// runs or could not be run.
    ///
    /// This request and those below are for a shim that has the ability [`crate::EXECUTIONS`].
    Begin {
        /// Its id, which the client has chosen.
        execution: String,
        /// The command to run.
        spec: ExecSpec,
        /// For how long, and what becomes of it without a client.
        terms: HoldTerms,
    },
    /// Answered by `Execution`.
    Inspect {
        /// The execution.
        execution: String,
    },
    /// Answered by `Executions`, the one begun last first.
    ListExecutions,
    /// Take the execution's only seat: `ExecutionAttached`, then data frames on channel `id`, then `ExecutionEnded`.
    /// A connection attaches once.
    AttachExecution {
        /// Channel for its streams on this connection.
        id: u32,
        /// The execution.
        execution: String,
        /// Position in its output to begin at, in bytes; `None` means the first byte that is held.
        from: Option<u64>,
        /// Whether to take the place of a client that has the seat.
        replace: bool,
        /// Whether this client knows what has reached its reader and what its writer must send again, so that a broken
        /// connection loses none of the input.
        resumes: bool,
        /// Whether this client sends input.
        stdin: bool,
    },
    /// The output before this position has reached its reader and needs not be held.
    Taken {
        /// The execution.
        execution: String,
        /// Position in its output, in bytes.
        position: u64,
    },
    /// Leave the seat. Answered by `Done`, after which the seat is free. A client that is gone without this was lost.
    LeaveExecution {
        /// The execution.
        execution: String,
        /// Whether its own connection broke, so that it may come back, and may have lost what was on its way.
        broke: bool,
        /// Whether it was sent away and comes back. Nothing of its input is missing then. Older shims take it for one that
        /// does not come back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        returns: bool,
    },
    /// No client will come back for the execution's streams: it runs on, its input at its end, its output discarded.
    /// Answered by `Done`.
    ReleaseExecution {
        /// The execution.
        execution: String,
    },
    /// Signal the execution's process, unless it has ended. Answered by `Done`.
    SignalExecution {
        /// The execution.
        execution: String,
        /// Signal number.
        signo: i32,
    },
    /// Kill the execution, if it has not ended, and from then on say that it is hidden. Answered by `Done`.
    EndExecution {
        /// The execution.
        execution: String,
    },
    /// Resize the execution's terminal. Answered by `Done`.
    ResizeExecution {
        /// The execution.
        execution: String,
        /// New size.
        size: WinSize,
    },
}

/// A message from a shim to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimReply {
    /// The first message.
    Hello {
        /// [`crate::PROTOCOL_VERSION`] of the shim.
        version: u32,
        /// Abilities of this shim beyond that version, for example [`crate::EXECUTIONS`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        abilities: Vec<String>,
    },
    /// Answer to `Status`.
    Status(ShimStatus),
    /// Answer to `Attach`; the data frames that follow begin at this position.
    Attached {
        /// The client's channel.
        id: u32,
        /// Position in the main process's output, in bytes; later than asked for when older output is gone.
        position: u64,
    },
    /// Progress or result of an operation, under the client's id.
    Event(OpEvent),
    /// The box has stopped; the shim exits after this.
    Stopped {
        /// How the main process ended; `None` when the virtual machine ended without reporting it.
        status: Option<ProcessExit>,
    },
    /// A request that has no other answer was carried out.
    Done,
    /// Answer to `SwitchDisk`.
    Switched {
        /// For how long the guest wrote nothing, in microseconds of its own clock.
        frozen_us: u64,
        /// Whether it had gone on by itself before it was told to.
        expired: bool,
    },
    /// Answer to `Begin` and `Inspect`.
    Execution(ExecutionState),
    /// Answer to `ListExecutions`.
    Executions(Vec<ExecutionState>),
    /// Answer to `AttachExecution`; the data frames that follow begin at `position`.
    ExecutionAttached {
        /// The client's channel.
        id: u32,
        /// Position in the execution's output, in bytes.
        position: u64,
        /// Input that the execution was given so far.
        input: GivenInput,
        /// Bytes of the window of this client's input that are in use, by input that others sent.
        queued: u32,
        /// The shim's knowledge of the execution.
        state: ExecutionState,
    },
    /// So much of the input of an attached client is the shim's now and will reach the process.
    InputGiven {
        /// The client's channel.
        id: u32,
        /// Its account.
        input: GivenInput,
    },
    /// The execution of an attached client has ended, and all of its output was sent.
    ExecutionEnded {
        /// The client's channel.
        id: u32,
        /// How.
        end: ExecutionEnd,
    },
    /// A request was refused.
    Error {
        /// Why, for programs.
        kind: ShimError,
        /// Why, for people: one sentence, without a full stop.
        message: String,
    },
}

/// Why a shim refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimError {
    /// Another protocol version.
    Version,
    /// The guest is not up yet, or not any more.
    NotRunning,
    /// The request does not fit the state of the box.
    Invalid,
    /// The virtual machine failed.
    Vm,
    /// The shim holds no execution of that id.
    Unknown,
    /// Another client has the execution's seat, or the output from there on is not held any more.
    Conflict,
    /// The shim holds as much as it may; a client may come back later.
    TooMany,
    /// The guest did not answer in time.
    Unavailable,
}

/// How much input an execution was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenInput {
    /// Bytes since it began.
    pub bytes: u64,
    /// It takes no more.
    pub closed: bool,
}

/// How the guest of a box came up for the present run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestStart {
    /// Whether it was restored from a template.
    pub restored: bool,
    /// Why it booted, where it was not.
    pub reason: Option<String>,
}

/// A shim's view of its box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimStatus {
    /// The shim's process id.
    pub shim_pid: u32,
    /// The virtual machine's process id, while there is one.
    pub vm_pid: Option<u32>,
    /// State of the main process.
    pub main: MainState,
    /// Whether the virtual machine paused itself because the host's disk is full.
    pub out_of_space: bool,
    /// The overlay in use; `None` from a shim that cannot switch to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskIdentity>,
    /// The traffic of its network; `None` where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkUsage>,
    /// The last probes of its health, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbeRecord>,
    /// How its guest came up; `None` from a shim that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_start: Option<GuestStart>,
}

/// Which file a disk is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskIdentity {
    /// Number of the host's filesystem.
    pub device: u64,
    /// Number of the file on it.
    pub inode: u64,
}

/// A box's use of its network, and the refusals since its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUsage {
    /// Sockets that the host holds now: TCP connections, UDP ports that the guest sends from, pings without an answer.
    pub connections: u64,
    /// The most that there may be at a time.
    pub max_connections: u64,
    /// How often the guest, or a client of a published port, was refused one more.
    pub refused_connections: u64,
    /// Frames that the guest sent to where no box may send, or that are malformed.
    pub dropped_frames: u64,
    /// Bytes of the frames that the guest has sent.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Bytes of the frames that were handed to the guest.
    #[serde(default)]
    pub received_bytes: u64,
    /// Connections that the guest has asked for at ports of the host's loopback; `None` where it may reach none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_connections: Option<u64>,
    /// Refusals of its list of allowed destinations; `None` where it has no list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusals: Option<NetworkRefusals>,
    /// Its traffic with the other boxes of its network; `None` where it is in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeerUsage>,
}

/// A box's traffic with the other boxes of its network since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerUsage {
    /// Boxes of its network that run, itself left out.
    pub connected: u64,
    /// Packets handed to others.
    pub sent: u64,
    /// Packets from others that were handed to the guest.
    pub received: u64,
    /// Packets that were lost because their receiver did not keep up.
    pub lost: u64,
    /// Packets that were not what their sender may send: another source or destination than the two boxes, or malformed.
    pub refused: u64,
}

/// Refusals of a box's list of allowed destinations since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRefusals {
    /// How often it refused anything.
    pub total: u64,
    /// The same by kind, without kinds that did not occur.
    pub counts: BTreeMap<RefusalKind, u64>,
    /// A few of the destinations, the latest first.
    pub latest: Vec<RefusedDestination>,
}

/// A destination that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedDestination {
    /// Why.
    pub kind: RefusalKind,
    /// `ADDRESS[:PORT]`, a name, or both; printable ASCII.
    pub destination: String,
    /// How often since it was first among the latest.
    pub times: u64,
}

/// Why a list of allowed destinations refused something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// A question for a name that is not allowed, or one that cannot be read.
    Name,
    /// Another name server than the box's, or the box's own over TCP.
    Resolver,
    /// A TCP connection to an address that neither a block nor an allowed name stands for.
    Address,
    /// A datagram to an address that no block allows.
    Datagram,
    /// A ping of an address that no block allows.
    Ping,
    /// A connection to the address of an allowed name that asks for another server by TLS or HTTP.
    Server,
    /// A connection to the address of an allowed name that does not say which server it asks for.
    Nameless,
}

impl RefusalKind {
    /// Every kind, in the order of their discriminants.
    pub const ALL: [Self; 7] =
        [Self::Name, Self::Resolver, Self::Address, Self::Datagram, Self::Ping, Self::Server, Self::Nameless];
}

/// State of a box's main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MainState {
    /// The guest is coming up.
    Booting,
    /// It is running.
    Running {
        /// Its process id in the guest.
        pid: u32,
    },
    /// It has exited.
    Exited(ProcessExit),
}
