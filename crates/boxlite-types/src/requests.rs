//! The options of each operation, as callers pass them along with a request.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{BoxInfo, BoxState, HealthStatus, OutputStream, WindowSize};

/// A command to run in a running box.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecOptions {
    /// Program and arguments; the program is looked up in the box's `PATH`.
    pub command: Vec<String>,
    /// `NAME=value`, over the box's environment.
    pub env: Vec<String>,
    /// Working directory; the box's when absent.
    pub workdir: Option<String>,
    /// `user[:group]`; the box's when absent.
    pub user: Option<String>,
    /// A terminal of this size.
    pub tty: Option<WindowSize>,
    /// Standard input is connected.
    pub stdin: bool,
    /// Refuse with `ResourceExhausted` while the box is paused, instead of waiting until it resumes.
    pub unless_paused: bool,
    /// Milliseconds after which the command is killed, and then ends with status 124.
    pub timeout_ms: Option<u64>,
}

/// The selection of a listing; all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListOptions {
    /// Include boxes that are not running.
    pub all: bool,
    /// Conditions.
    pub filters: Vec<BoxFilter>,
}

/// One condition on boxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxFilter {
    /// The name contains this.
    Name(String),
    /// The id begins with this.
    Id(String),
    /// The state is this.
    State(BoxState),
    /// The box runs, and its health is this.
    Health(HealthStatus),
    /// The image reference or digest is this.
    Image(String),
    /// The label exists, with this value if one is given.
    Label(String, Option<String>),
}

/// How to stop a box.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOptions {
    /// Seconds between the stop signal and KILL; the box's own when absent.
    pub timeout: Option<u32>,
}

/// How to remove a box.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
}

/// How files are copied between a box and the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CopyOptions {
    /// Keep the owners that the archive names; without it the copy belongs to the user who unpacks it.
    pub archive: bool,
    /// Copy what a symbolic link points to when the source is one.
    pub follow_link: bool,
    /// Refuse with `ResourceExhausted` while the box is paused, instead of waiting until it resumes.
    pub unless_paused: bool,
}

/// Which of the main process's output to return.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogOptions {
    /// Keep following the log until the box stops.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail: Option<usize>,
    /// Only what was written from then on.
    pub since: Option<Timestamp>,
    /// Only what was written before then.
    pub until: Option<Timestamp>,
    /// Only one run: counted from the box's first, which is 1, or back from its last, which is -1. All runs when absent.
    pub run: Option<i64>,
    /// The guest's console instead of the main process's output.
    pub console: bool,
}

/// A piece of the log, a line or less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The run that wrote it, counted from the box's first, which is 1; 0 for the console and where it is not known.
    pub run: u64,
    /// When the host received it.
    pub at: Timestamp,
    /// Which output it came from.
    pub stream: OutputStream,
    /// The bytes, with the line's end if it had one.
    pub bytes: bytes::Bytes,
}

/// A box that was given its record back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adoption {
    /// The box.
    pub info: BoxInfo,
    /// Everything that is not as it was, as sentences.
    pub notices: Vec<String>,
}

/// The report of a removal for good, which a person asked for by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// The box's id, or the base's file name.
    pub name: String,
    /// Allocated bytes.
    pub reclaimed: u64,
}
