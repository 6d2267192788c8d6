//! Answers that take their time: one JSON object a line (`application/x-ndjson`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ErrorBody;
use crate::{Error, LogLine, OutputStream, Progress, Result};

/// A line of the answer to a request that reports progress: any number of `progress` and `beat`, then one `done` or
/// `failed`. An answer that ends without either was broken off.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event<T> {
    /// A step of the work.
    Progress(Progress),
    /// The work continues; sent after some seconds without another line, so that a dead peer is noticed.
    Beat,
    /// It is done.
    Done(T),
    /// It failed.
    Failed(ErrorBody),
}

/// A piece of a box's log; see [`LogLine`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// The run that wrote it, counted from 1; 0 where it is not known.
    #[serde(default)]
    pub run: u64,
    /// When the server's host received it.
    pub at: Timestamp,
    /// Which output it came from.
    pub stream: OutputStream,
    /// The bytes in base64.
    pub data: String,
}

/// A line of the answer to a request for a box's log: any number of lines and beats, then one `end` or `failed`. An
/// answer that ends without either was broken off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogEvent {
    /// A piece of the log.
    Line(LogRecord),
    /// The work continues; sent after some seconds without another line, so that a dead peer is noticed.
    Beat,
    /// The log's end; a followed log has no further lines either.
    End,
    /// It failed.
    Failed(ErrorBody),
}

impl From<LogLine> for LogRecord {
    fn from(line: LogLine) -> Self {
        Self { run: line.run, at: line.at, stream: line.stream, data: STANDARD.encode(&line.bytes) }
    }
}

impl LogRecord {
    /// The line.
    ///
    /// # Errors
    /// `Corrupt` when the data is not base64.
    pub fn into_line(self) -> Result<LogLine> {
        let bytes = STANDARD.decode(&self.data).map_err(|source| {
            Error::corrupt("the server sent a log line that is not base64").because(source)
        })?;
        Ok(LogLine { run: self.run, at: self.at, stream: self.stream, bytes: bytes.into() })
    }
}
