//! Frames of an execution's WebSocket, as the public API's `…/executions/{id}/attach` defines them.
//!
//! Binary frames carry data: from the client, standard input; from the server, output behind one byte that names
//! its [`Channel`]. Text frames carry the JSON of [`ClientFrame`] and [`ServerFrame`].
//!
//! **Resuming.** Bytes that one end has handed to its socket may be lost with the connection. A client that says in
//! [`super::AttachQuery::received`] how much output has reached it therefore acknowledges output as its reader takes
//! it ([`ClientFrame::Ack`]); the server keeps what is not acknowledged, at most [`WINDOW`] bytes, reads no more than
//! that ahead, and continues after `received`. In return the server acknowledges standard input as the process takes it
//! ([`ServerFrame::Ack`]), first of all once at the beginning of each such attachment, and the client sends the rest
//! again, at most [`WINDOW`] bytes of it. Such an attachment replaces one that the server still takes for alive.
//! A normal close by such a client says that it will not come back: the server detaches from the execution, as dropping
//! an [`crate::Execution`] does, and the process keeps running. After a connection that merely broke, it waits.
//!
//! Without `received`, output counts as delivered once it is in the socket, a second attachment is refused, and there
//! are no acknowledgements.
//!
//! **Silence.** The server sends a ping every [`PING`], beside anything else; a client that reads and receives nothing
//! for three times as long takes the server for dead.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ErrorBody;
use crate::OutputStream;

/// Bytes of output, and of standard input, that may be on their way without having been acknowledged.
pub const WINDOW: usize = 256 * 1024;

/// The longest silence of a living server.
pub const PING: Duration = Duration::from_secs(15);

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

/// A client's message in a text frame.
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
    /// The client's reader has taken so many bytes of output since the execution began, both channels together; sent
    /// only by a client that attached with [`super::AttachQuery::received`].
    Ack {
        /// Bytes.
        output: u64,
    },
}

/// A message of the server in a text frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The process has ended and all its output was sent; a normal close follows.
    Exit {
        /// As in [`crate::ExitStatus::code`].
        exit_code: i32,
        /// As in [`crate::ExitStatus::reason`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The process has been given so many bytes of standard input since the execution began; sent only to a client
    /// that attached with [`super::AttachQuery::received`], before anything else and then as input is taken.
    Ack {
        /// Bytes.
        stdin: u64,
        /// The process takes no more input; further input is discarded.
        #[serde(default)]
        closed: bool,
    },
    /// The execution ended without a status, because its box went away or could not be reached, and all its output
    /// was sent; a normal close follows. To a client without `received` the server says [`Self::Error`] instead.
    Failed {
        /// The error that its waiter was told.
        error: ErrorBody,
    },
    /// Something the client asked for could not be done; the connection stays open.
    Error {
        /// One sentence.
        message: String,
    },
}
