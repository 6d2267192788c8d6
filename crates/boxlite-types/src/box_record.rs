//! The record of a box, as the database keeps it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{BoxOptions, ImageConfig, Membership, PortForward, Volume, VolumeMount};

/// The durable record of a box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoxRecord {
    /// 32 lower-case hex digits.
    pub id: String,
    /// Unique in the home.
    pub name: String,
    /// Manifest digest of its image.
    pub image: String,
    /// The image as the user named it.
    pub image_reference: String,
    /// Names the disk image below its overlay: this record pins it.
    pub disk_digest: String,
    /// Virtual size in bytes of that disk image.
    pub disk_image_size: u64,
    /// How the image wants to be run; kept here because the image may be untagged and removed.
    pub image_config: ImageConfig,
    /// Its volumes, as they were resolved when it was created.
    pub volumes: Vec<Volume>,
    /// The named volumes that it mounts: while this record is there they are not removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named_volumes: Vec<VolumeMount>,
    /// The networks that it is a member of: while this record is there they are not removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memberships: Vec<Membership>,
    /// The options that were asked for.
    pub options: BoxOptions,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its recorded state.
    pub phase: Phase,
    /// Its restarts.
    #[serde(default)]
    pub restarts: Restarts,
    /// Its snapshots, oldest first; gc reads them out of the record's text, under this name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotRecord>,
}

/// The durable record of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Unique among the snapshots of its box.
    pub name: String,
    /// File name of the base that holds the disk as it was; `None` where the box had written nothing.
    pub base: Option<String>,
    /// When it was taken.
    pub created_at: Timestamp,
    /// For how long the guest stood still, in microseconds; `None` of a box that did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_us: Option<u64>,
}

/// The recorded state. The shim's lock, not this record, tells whether a `Started` box still runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// Never started.
    Created,
    /// A shim was, or was about to be, spawned for this run.
    Started {
        /// When.
        at: Timestamp,
        /// Tells the outcome of this run from that of an earlier one.
        run: String,
        /// Its published ports, the host's ports chosen.
        #[serde(default)]
        ports: Vec<PortForward>,
    },
    /// The last run ended in order, and its shim said how.
    Ended {
        /// When the run began.
        started_at: Option<Timestamp>,
        /// How it ended.
        #[serde(rename = "ending")]
        outcome: RunOutcome,
    },
    /// The last run broke, or its shim was killed.
    Failed {
        /// When the run began.
        started_at: Option<Timestamp>,
        /// When the run ended; `None` when no process was left to record it.
        at: Option<Timestamp>,
        /// Exit status of the main process, 128 + n for signal n; `None` when there was none.
        exit_code: Option<i32>,
        /// Why, in one sentence.
        reason: String,
    },
}

/// The record of a box's restarts since its user started it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restarts {
    /// The run that is restarted when it ends; a run that the user has begun meanwhile has another.
    pub run: String,
    /// A keeper stands beside that run, which may restart the box after it.
    pub kept: bool,
    /// Restarts so far, those that were refused included.
    pub count: u32,
    /// The pause before the last of them, in milliseconds.
    pub delay_ms: u64,
    /// The user has stopped the box.
    pub halted: bool,
    /// How the run before the present one ended.
    pub last: Option<RunOutcome>,
    /// Why the last restart was refused.
    pub refused: Option<String>,
}

/// How a run ended: its outcome as the record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOutcome {
    /// When it ended.
    pub at: Option<Timestamp>,
    /// Exit status of the main process, 128 + n for signal n; `None` when there was none.
    pub exit_code: Option<i32>,
    /// A remark, such as that the guest was out of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The contents of `box.json` in a box's directory: enough to give the box its record back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoxDescription {
    /// Counts up with every change that older builds must not meet.
    pub format: u32,
    /// Id of the home it was written in, if that had one.
    pub home: Option<String>,
    /// The record, its phase left out of account.
    pub record: BoxRecord,
}

impl BoxDescription {
    /// The format that this build writes.
    pub const FORMAT: u32 = 1;
}
