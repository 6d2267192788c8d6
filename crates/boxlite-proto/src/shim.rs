//! Control messages between a client and the shim that owns a box.

use serde::{Deserialize, Serialize};

use crate::{
    ExitStatus,
    op::{Op, OpEvent, WinSize},
};

/// What a client asks a shim.
///
/// Ids in [`Op`]s and in `Attach` are the client's own; the shim renumbers them towards the guest. When a client goes,
/// its execs run on, with their input at its end and their output discarded.
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
    /// Stop the virtual processors. Answered by `Done`.
    Pause,
    /// Let the virtual processors run again. Answered by `Done`.
    Resume,
    /// Wait for the box's end. Answered by `Stopped`.
    Wait,
}

/// What a shim answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimReply {
    /// The first message.
    Hello {
        /// [`crate::PROTOCOL_VERSION`] of the shim.
        version: u32,
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
    /// Outcome or progress of an operation, under the client's id.
    Event(OpEvent),
    /// The box has stopped; the shim goes after this.
    Stopped {
        /// How the main process ended; `None` when the virtual machine ended without telling.
        status: Option<ExitStatus>,
    },
    /// Something was done that has no other answer.
    Done,
    /// A request was refused.
    Error {
        /// Why, for programs.
        kind: ShimError,
        /// Why, for people: one sentence.
        message: String,
    },
}

/// Why a shim refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimError {
    /// Another protocol version.
    Version,
    /// The guest is not up yet, or no longer.
    NotRunning,
    /// The request makes no sense here.
    Invalid,
    /// The virtual machine failed.
    Vm,
}

/// What a shim knows of its box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimStatus {
    /// The shim's process id.
    pub shim_pid: u32,
    /// The virtual machine's process id, while there is one.
    pub vm_pid: Option<u32>,
    /// State of the main process.
    pub main: MainState,
    /// Whether the virtual processors are stopped at a client's wish.
    pub paused: bool,
    /// Whether the virtual machine stopped itself because the host's disk is full.
    pub out_of_space: bool,
}

/// State of a box's main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MainState {
    /// The guest is coming up.
    Booting,
    /// It runs.
    Running {
        /// Its process id in the guest.
        pid: u32,
    },
    /// It has ended.
    Exited(ExitStatus),
}
