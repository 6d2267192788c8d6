//! The byte streams of a channel.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One byte stream of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// To the process, or the archive of a copy into the box.
    Stdin,
    /// From the process, or the archive of a copy out of the box. A terminal has no other output.
    Stdout,
    /// From the process, unless it runs on a terminal.
    Stderr,
}

impl Stream {
    /// The byte that stands for the stream in a frame.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    /// The stream of a byte from a frame, `None` for a byte that no stream has.
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}
