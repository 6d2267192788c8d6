//! What the database keeps of a box.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::BoxOptions;
use crate::image::ImageConfig;
use crate::net::PortForward;
use crate::volume::Volume;

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
    /// Virtual size in bytes of that disk image.
    pub(crate) disk_image_size: u64,
    /// How the image wants to be run; kept here because the image may be untagged and removed.
    pub(crate) image_config: ImageConfig,
    /// Its shared folders, as they were resolved when it was created.
    pub(crate) volumes: Vec<Volume>,
    /// What was asked for.
    pub(crate) options: BoxOptions,
    pub(crate) created_at: Timestamp,
    pub(crate) phase: Phase,
}

/// The recorded state. Whether a `Started` box still runs is the shim lock's to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub(crate) enum Phase {
    /// Never started.
    Created,
    /// A shim was, or was about to be, spawned for this run.
    Started {
        at: Timestamp,
        /// Tells the outcome of this run from that of an earlier one.
        run: String,
        /// Its published ports, the host's ports chosen.
        #[serde(default)]
        ports: Vec<PortForward>,
    },
    /// The last run ended in order, and its shim said how.
    Ended { started_at: Option<Timestamp>, ending: Ending },
    /// The last run broke, or its shim was killed.
    Failed {
        started_at: Option<Timestamp>,
        /// `None` when nobody was left to tell.
        at: Option<Timestamp>,
        exit_code: Option<i32>,
        reason: String,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub(crate) at: Option<Timestamp>,
    /// Exit status of the main process, 128 + n for signal n; `None` when there was none.
    pub(crate) exit_code: Option<i32>,
}
