//! The check of a box's health: what the agent is to do, and what it and the shim say of it.
//!
//! The agent decides when to probe, and nobody outside of the guest is needed for that. The shim decides what the results mean.

use serde::{Deserialize, Serialize};

use crate::op::{ExecSpec, ProcessExit};

/// A command that the agent runs from time to time to find out whether the box is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthProbe {
    /// The command; it has no input and no terminal.
    pub spec: ExecSpec,
    /// Milliseconds from the start of the box, and later from the end of one probe, to the next probe.
    pub interval_ms: u64,
    /// Milliseconds after which a probe is killed, with everything that it has started.
    pub timeout_ms: u64,
    /// Milliseconds from the start of the box in which a probe may fail without a consequence.
    pub start_period_ms: u64,
    /// As `interval_ms`, in the start period as long as no probe has succeeded.
    pub start_interval_ms: u64,
}

impl HealthProbe {
    /// Most bytes of one probe's output that anybody keeps.
    pub const MAX_OUTPUT: usize = 4096;
}

/// The life of a probe, as the agent tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeEvent {
    /// A probe has begun.
    Began,
    /// That probe has ended.
    Ended(ProbeReport),
}

/// The result of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// How it ended.
    pub outcome: ProbeOutcome,
    /// The beginning of what it wrote, at most [`HealthProbe::MAX_OUTPUT`] bytes.
    pub output: String,
    /// Whether it began in the start period.
    pub in_start_period: bool,
    /// Processor time that it took, in microseconds of the guest's clock.
    pub cpu_us: u64,
}

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// Its command exited, or could not be started, which counts as the exit status that a shell gives it.
    Exited(ProcessExit),
    /// Its time was over.
    TimedOut,
    /// The agent could not run it.
    Failed,
}

/// A probe that has ended, by the host's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// When it began, in milliseconds since the epoch.
    pub began_unix_ms: i64,
    /// When it had ended.
    pub ended_unix_ms: i64,
    /// The exit status of its command; -1 where it had none.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}
