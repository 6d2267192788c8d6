//! Frames of an execution's WebSocket, as the public API's `…/executions/{id}/attach` defines them.
//!
//! Binary frames carry data: from the client, standard input; from the server, output behind one byte that names
//! its [`Channel`]. Text frames carry the JSON of [`ClientFrame`] and [`ServerFrame`].

use serde::{Deserialize, Serialize};

use crate::runtime::OutputStream;

/// The first byte of a binary frame from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Channel {
    /// Standard output, or a terminal's output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

impl From<OutputStream> for Channel {
    fn from(stream: OutputStream) -> Self {
        match stream {
            OutputStream::Stdout => Self::Stdout,
            OutputStream::Stderr => Self::Stderr,
        }
    }
}

impl Channel {
    /// The output that a frame's first byte names.
    pub fn stream_of(byte: u8) -> Option<OutputStream> {
        match byte {
            1 => Some(OutputStream::Stdout),
            2 => Some(OutputStream::Stderr),
            _ => None,
        }
    }
}

/// What a client says in a text frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// The terminal's new size.
    Resize {
        /// Columns.
        cols: u16,
        /// Lines.
        rows: u16,
    },
    /// Send this signal to the process.
    Signal {
        /// Its number.
        sig: i32,
    },
    /// No more standard input will come.
    StdinEof,
}

/// What the server says in a text frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The process has ended and all its output was sent; a normal close follows.
    Exit {
        /// As in [`crate::ExecStatus::code`].
        exit_code: i32,
        /// As in [`crate::ExecStatus::reason`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Something the client asked for could not be done; the connection stays open.
    Error {
        /// One sentence.
        message: String,
    },
}
