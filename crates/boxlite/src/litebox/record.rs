//! What the database keeps of a box.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::BoxOptions;

/// The durable record of a box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BoxRecord {
    /// 32 lower-case hex digits.
    pub(crate) id: String,
    /// Unique in the home.
    pub(crate) name: String,
    /// Manifest digest of its image.
    pub(crate) image: String,
    /// The image as the user named it.
    pub(crate) image_reference: String,
    /// Names the disk image below its overlay: this record pins it.
    pub(crate) disk_digest: String,
    /// What was asked for.
    pub(crate) options: BoxOptions,
    pub(crate) created_at: Timestamp,
    /// Counts the starts; tells the outcome of this run from that of an earlier one.
    pub(crate) run: u64,
    pub(crate) phase: Phase,
}

/// The recorded state. Whether a `Started` box still runs is the shim lock's to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub(crate) enum Phase {
    /// Never started.
    Created,
    /// A shim was, or was about to be, spawned for run [`BoxRecord::run`].
    Started {
        at: Timestamp,
        /// What to fall back to if the shim never came to be.
        before: Box<Phase>,
    },
    /// It ended, and its shim said how.
    Ended { started_at: Option<Timestamp>, ending: Ending },
    /// It could not be started, or its shim was killed.
    Failed { started_at: Option<Timestamp>, at: Timestamp, reason: String },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub(crate) at: Timestamp,
    /// Exit status of the main process, 128 + n for signal n; `None` when there was none or it never ended.
    pub(crate) exit_code: Option<i32>,
    /// What else there is to say, such as that it was killed after its timeout.
    pub(crate) reason: Option<String>,
}
