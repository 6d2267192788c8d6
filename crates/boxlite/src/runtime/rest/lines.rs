//! Answers that come line by line.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use boxlite_types::Result;
use boxlite_types::wire::PING;
use futures::{StreamExt, TryStreamExt};
use reqwest::Response;
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

use super::failure;

/// The longest silence of a living server, which sends a beat well before.
pub(super) const SILENCE_TIMEOUT: Duration = PING.saturating_mul(4);
/// Bytes of a line: a piece of a log, or a box or an image with all that is known of it.
const MAX_LINE: usize = 16 << 20;

/// The lines of one answer, each a JSON object, read as they are asked for.
pub(super) struct AnswerLines {
    lines: FramedRead<Pin<Box<dyn AsyncRead + Send>>, LinesCodec>,
    server: String,
}

impl AnswerLines {
    pub(super) fn of(response: Response, server: &str) -> Self {
        let body = StreamReader::new(response.bytes_stream().map_err(io::Error::other));
        let lines = FramedRead::new(Box::pin(body) as Pin<Box<_>>, LinesCodec::new_with_max_length(MAX_LINE));
        Self { lines, server: server.to_owned() }
    }

    /// The next line; `None` at the answer's end.
    ///
    /// # Errors
    /// `Unavailable` when the answer breaks off, falls silent or is not understood.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let line = match tokio::time::timeout(SILENCE_TIMEOUT, self.lines.next()).await {
            Err(_) => return Err(failure::silent(&self.server)),
            Ok(None) => return Ok(None),
            Ok(Some(Ok(line))) => line,
            Ok(Some(Err(LinesCodecError::Io(error)))) => {
                return Err(failure::broken_off(&self.server, Some(&error)));
            }
            Ok(Some(Err(LinesCodecError::MaxLineLengthExceeded))) => {
                let message = format!("the server {} sent a line of more than {MAX_LINE} bytes", self.server);
                return Err(failure::unusable(&self.server, message));
            }
        };
        serde_json::from_str(&line).map(Some).map_err(|error| failure::not_understood(&self.server, error))
    }
}
