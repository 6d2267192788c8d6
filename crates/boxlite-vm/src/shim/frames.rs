//! Reading frames off a byte stream.

use std::collections::VecDeque;

use boxlite_proto::{Decoder, Frame, ProtoError};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes read at once.
const READ: usize = 128 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Protocol(#[from] ProtoError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Turns a byte stream into frames.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    read: R,
    decoder: Decoder,
    buffer: Vec<u8>,
    ready: VecDeque<Frame>,
    failed: Option<ProtoError>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(read: R) -> Self {
        Self { read, decoder: Decoder::new(), buffer: Vec::new(), ready: VecDeque::new(), failed: None }
    }

    /// The next frame; `None` at the stream's end. Frames before a protocol error are returned before it.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            if let Some(error) = &self.failed {
                return Err(error.clone().into());
            }
            self.buffer.resize(READ, 0);
            let length = match self.read.read(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let mut input = &self.buffer[..length];
            loop {
                match self.decoder.next(&mut input) {
                    Ok(Some(frame)) => self.ready.push_back(frame),
                    Ok(None) => break,
                    Err(error) => {
                        self.failed = Some(error);
                        break;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_whole_and_before_the_error_that_follows_them() {
        let frame = Frame::Control(b"{}".to_vec());
        let mut bytes = frame.to_bytes();
        bytes.extend_from_slice(&frame.to_bytes());
        bytes.extend_from_slice(&[9; 9]);
        let mut reader = FrameReader::new(&bytes[..]);
        assert_eq!(reader.next().await.unwrap(), Some(frame.clone()));
        assert_eq!(reader.next().await.unwrap(), Some(frame));
        assert!(matches!(reader.next().await, Err(ReadError::Protocol(_))));
    }
}
