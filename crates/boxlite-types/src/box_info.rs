//! A box, as callers see it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    BoxOptions, Error, ErrorCause, GuestStart, Health, Membership, NetworkUsage, Pause, PauseCause,
    PortForward, Result, RunOutcome, Shortage,
};

/// A box as `ls` and `inspect` show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoxInfo {
    /// 32 hex digits.
    pub id: String,
    /// Its unique name.
    pub name: String,
    /// The image as the user named it.
    pub image: String,
    /// Manifest digest of the image.
    pub image_digest: String,
    /// The disk image below its overlay.
    pub disk_digest: String,
    /// Its state, observed and not merely recorded.
    pub state: BoxState,
    /// Why it failed, how it ended when not by an ordinary exit, or why it is paused.
    pub reason: Option<String>,
    /// The figures of its pause, while it is paused.
    #[serde(default)]
    pub pause: Option<Pause>,
    /// Whether it is healthy; `None` unless it runs and its health is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Exit status of the main process of the last run (128 + n for signal n).
    pub exit_code: Option<i32>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When the last run began.
    pub started_at: Option<Timestamp>,
    /// When the last run ended.
    pub finished_at: Option<Timestamp>,
    /// Bytes allocated to its overlays; `None` when they cannot be measured.
    pub disk_allocated: Option<u64>,
    /// Published ports of the present run, the host's ports chosen; none unless it runs.
    pub ports: Vec<PortForward>,
    /// The networks that it is a member of, and its address in each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memberships: Vec<Membership>,
    /// Its use of the network; told by `inspect` alone, while it runs with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_usage: Option<NetworkUsage>,
    /// How its guest came up; told by `inspect` alone, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_start: Option<GuestStart>,
    /// Restarts by its policy since its user started it, those that were refused included.
    #[serde(default)]
    pub restart_count: u32,
    /// How the run before the last restart ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<RunOutcome>,
    /// The server that has it, by its URL, where several were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The options that were asked for.
    pub options: BoxOptions,
}

impl BoxInfo {
    /// The first 12 digits of the id.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Refuses what would wait for the box to resume, if it is paused.
    ///
    /// # Errors
    /// `ResourceExhausted` with the figures of the pause; `Conflict` where it is the user's.
    pub fn refuse_while_paused(&self) -> Result<()> {
        let Some(pause) = &self.pause else { return Ok(()) };
        if pause.cause == PauseCause::User {
            return Err(Error::conflict(format!(
                "box {name} is paused by its user; `boxlite unpause {name}` lets it go on",
                name = self.name
            ))
            .about(ErrorCause::Paused));
        }
        let reason = self.reason.as_deref().unwrap_or("too little space is free");
        let message = format!("box {} is paused ({reason})", self.name);
        let have = pause.free.unwrap_or_default();
        let shortage = Shortage { need: pause.resumes_at, have, inodes: false, reclaimable: None };
        let error = Error::exhausted(message, shortage).at(&pause.path);
        Err(if pause.cause == PauseCause::DiskQuota { error.about(ErrorCause::DiskQuota) } else { error })
    }
}

/// The state machine's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxState {
    /// Created and never started.
    Created,
    /// Its shim and its VM are alive.
    Running,
    /// As running, but its guest waits for space on the host's disk or under its quota, and resumes by itself, or for its
    /// user; `reason` says for what.
    Paused,
    /// The last run ended, and the box is about to be started again by its restart policy; `reason` says why a restart
    /// was refused.
    Restarting,
    /// The last run ended.
    Stopped,
    /// The last start or run broke; `reason` says how.
    Failed,
}

impl BoxState {
    /// Every state, in the order of a box's life.
    pub const ALL: [Self; 6] =
        [Self::Created, Self::Running, Self::Paused, Self::Restarting, Self::Stopped, Self::Failed];

    /// Whether the box's shim and virtual machine are alive.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// The state's stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl std::fmt::Display for BoxState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
