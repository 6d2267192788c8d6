//! The answer of `/readyz`.

use serde::{Deserialize, Serialize};

/// Whether a start would be admitted, and how much room there is for more boxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReadiness {
    status: ReadinessStatus,
    /// Why a start would be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Absent from an older server, and where nothing could be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReadinessStatus {
    Ready,
    NotReady,
}

/// The room for further boxes; absent where it cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Bytes of disk that are free and unclaimed above the floor that refuses starts.
    pub disk: Option<u64>,
    /// Bytes of memory that are not promised to a running box.
    pub memory: Option<u64>,
}

impl ServerReadiness {
    /// A start would be admitted.
    pub fn ready() -> Self {
        Self { status: ReadinessStatus::Ready, reason: None, room: None }
    }

    /// A start would be refused for this reason.
    pub fn not_ready(reason: String) -> Self {
        Self { status: ReadinessStatus::NotReady, reason: Some(reason), room: None }
    }

    /// The same answer with how much room there is, if that is known.
    #[must_use]
    pub fn with_room(self, room: Option<Room>) -> Self {
        Self { room, ..self }
    }

    /// Whether a start would be admitted.
    pub fn is_ready(&self) -> bool {
        self.status == ReadinessStatus::Ready
    }
}
