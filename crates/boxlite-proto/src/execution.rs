//! Executions that a shim holds for clients that come and go.

mod reaper;

pub use reaper::{KEPT_TIMEOUT, ReapAction, reap_action};
use serde::{Deserialize, Serialize};

/// On which terms an execution runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldTerms {
    /// Its treatment while no client is attached.
    pub unattended: UnattendedPolicy,
    /// How long it may run.
    pub limit: Option<ExecutionLimit>,
}

/// The treatment of an execution that no client is attached to for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnattendedPolicy {
    /// It gets HUP, TERM and KILL: a client was expected back.
    HangUp,
    /// It keeps running, its input at its end and its output discarded.
    Release,
    /// The same from its beginning: only its status is held.
    Discard,
}

/// How long an execution may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionLimit {
    /// Milliseconds from its beginning until it is killed.
    pub ms: u64,
    /// The exit status of one that exceeded it; `None` leaves what the kill makes of it.
    pub code: Option<i32>,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionEnd {
    /// Its exit status; 128 + n when signal n ended it; 126 or 127 when it could not be run.
    pub code: i32,
    /// Why it could not be run, or what else there is to say.
    pub reason: Option<String>,
}

/// A shim's knowledge of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionState {
    /// Its id.
    pub id: String,
    /// The program that it runs.
    pub program: String,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it has standard input.
    pub stdin: bool,
    /// Its treatment while no client is attached.
    pub unattended: UnattendedPolicy,
    /// When it began, in milliseconds since the epoch.
    pub began_unix_ms: u64,
    /// How long it ran, in milliseconds; `None` while it runs.
    pub duration_ms: Option<u64>,
    /// Whether its process was started.
    pub started: bool,
    /// How it ended.
    pub end: Option<ExecutionEnd>,
    /// A client killed it by `EndExecution`.
    pub killed: bool,
    /// It exceeded its limit.
    pub timed_out: bool,
    /// It is to be shown to nobody but a client that was about to attach.
    pub hidden: bool,
    /// Its streams can no longer be attached to.
    pub released: bool,
    /// A client is attached.
    pub attached: bool,
    /// The client that was attached last was lost, and has not had all of the output.
    pub interrupted: bool,
    /// Bytes of its output so far.
    pub output: u64,
    /// Bytes of its output that are held.
    pub held: u64,
}
