//! Frames on a byte stream; the crate's front page describes [their encoding](crate#protocol).

use serde::{Serialize, de::DeserializeOwned};

use crate::{ProtoError, stream::Stream};

/// Bytes before each payload.
pub const HEADER_LEN: usize = 9;
/// Most bytes in one payload.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Most bytes in one control message, which may span several frames.
pub const MAX_CONTROL: usize = 4 * 1024 * 1024;

const KIND_CONTROL: u8 = 1;
const KIND_CONTROL_PART: u8 = 2;
const KIND_CREDIT: u8 = 3;
const KIND_EOF: u8 = 4;
const KIND_CLOSE: u8 = 5;
const KIND_DATA: u8 = 0x10;

/// One unit of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A control message as JSON; see [`Frame::control`] and [`Frame::parse_control`].
    Control(Vec<u8>),
    /// Bytes of a stream, paid for with credit.
    Data {
        /// Exec or copy id.
        channel: u32,
        /// Stream of it.
        stream: Stream,
        /// Never more than [`MAX_PAYLOAD`] when decoded.
        bytes: Vec<u8>,
    },
    /// The receiver of a stream lets its sender send this many bytes more.
    Credit {
        /// Exec or copy id.
        channel: u32,
        /// Stream of it.
        stream: Stream,
        /// Bytes added to the window.
        bytes: u32,
    },
    /// The sender of a stream has sent all of it.
    Eof {
        /// Exec or copy id.
        channel: u32,
        /// Stream of it.
        stream: Stream,
    },
    /// The receiver of a stream wants no more of it: the sender discards the rest and needs no credit for it.
    Close {
        /// Exec or copy id.
        channel: u32,
        /// Stream of it.
        stream: Stream,
    },
}

impl Frame {
    /// Makes a control frame out of a message.
    ///
    /// # Errors
    /// [`ProtoError::ControlOversize`] when the message has more than [`MAX_CONTROL`] bytes.
    pub fn control<T: Serialize>(message: &T) -> Result<Self, ProtoError> {
        let bytes = serde_json::to_vec(message).map_err(|e| ProtoError::Control(e.to_string()))?;
        if bytes.len() > MAX_CONTROL {
            return Err(ProtoError::ControlOversize { length: bytes.len(), limit: MAX_CONTROL });
        }
        Ok(Self::Control(bytes))
    }

    /// Reads the message of a control frame's payload.
    ///
    /// # Errors
    /// [`ProtoError::Control`] when the payload is not a message of this type.
    pub fn parse_control<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ProtoError> {
        serde_json::from_slice(payload).map_err(|e| ProtoError::Control(e.to_string()))
    }

    /// The channel a frame belongs to, `None` for control.
    pub fn channel(&self) -> Option<u32> {
        match self {
            Self::Control(_) => None,
            Self::Data { channel, .. }
            | Self::Credit { channel, .. }
            | Self::Eof { channel, .. }
            | Self::Close { channel, .. } => Some(*channel),
        }
    }

    /// The same frame on another channel, for a forwarder that renumbers; control frames are left alone.
    #[must_use]
    pub fn on_channel(mut self, renumbered: u32) -> Self {
        match &mut self {
            Self::Control(_) => {}
            Self::Data { channel, .. }
            | Self::Credit { channel, .. }
            | Self::Eof { channel, .. }
            | Self::Close { channel, .. } => *channel = renumbered,
        }
        self
    }

    /// Appends the frame's bytes; payloads above [`MAX_PAYLOAD`] are split into several frames.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Control(json) => {
                let mut chunks = json.chunks(MAX_PAYLOAD).peekable();
                if chunks.peek().is_none() {
                    put(out, KIND_CONTROL, 0, &[]);
                }
                while let Some(chunk) = chunks.next() {
                    let kind = if chunks.peek().is_some() { KIND_CONTROL_PART } else { KIND_CONTROL };
                    put(out, kind, 0, chunk);
                }
            }
            Self::Data { channel, stream, bytes } => encode_data(*channel, *stream, bytes, out),
            Self::Credit { channel, stream, bytes } => {
                let mut payload = [stream.code(), 0, 0, 0, 0];
                payload[1..].copy_from_slice(&bytes.to_le_bytes());
                put(out, KIND_CREDIT, *channel, &payload);
            }
            Self::Eof { channel, stream } => put(out, KIND_EOF, *channel, &[stream.code()]),
            Self::Close { channel, stream } => put(out, KIND_CLOSE, *channel, &[stream.code()]),
        }
    }

    /// The frame's bytes on their own; see [`Frame::encode`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Appends data frames for borrowed bytes; the same as [`Frame::encode`] of [`Frame::Data`] without the copy.
    pub fn encode_data(channel: u32, stream: Stream, bytes: &[u8], out: &mut Vec<u8>) {
        encode_data(channel, stream, bytes, out);
    }
}

fn encode_data(channel: u32, stream: Stream, bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(MAX_PAYLOAD) {
        put(out, KIND_DATA + stream.code(), channel, chunk);
    }
}

fn put(out: &mut Vec<u8>, kind: u8, channel: u32, payload: &[u8]) {
    debug_assert!(payload.len() <= MAX_PAYLOAD);
    out.reserve(HEADER_LEN + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&channel.to_le_bytes());
    out.extend_from_slice(payload);
}

/// Turns bytes, split in any way, back into frames.
///
/// Holds one frame and the parts of one control message at most. After an error it stays in error: the boundary of
/// the next frame is no longer known.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER_LEN],
    header_filled: usize,
    payload: Vec<u8>,
    control: Vec<u8>,
    failed: Option<ProtoError>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes off the front of `input` until one frame is complete; `None` means that all of it was taken.
    ///
    /// # Errors
    /// [`ProtoError`] for anything that no honest peer sends; it is returned again on each later call.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, ProtoError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let outcome = self.advance(input);
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
            self.payload = Vec::new();
            self.control = Vec::new();
        }
        outcome
    }

    /// Whether the stream may end here: no frame and no control message is half-read.
    pub fn is_at_boundary(&self) -> bool {
        self.header_filled == 0 && self.control.is_empty()
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, ProtoError> {
        loop {
            if self.header_filled < HEADER_LEN {
                let n = input.len().min(HEADER_LEN - self.header_filled);
                self.header[self.header_filled..self.header_filled + n].copy_from_slice(&input[..n]);
                self.header_filled += n;
                *input = &input[n..];
                if self.header_filled < HEADER_LEN {
                    return Ok(None);
                }
                self.check_header()?;
            }
            let missing = self.payload_len() - self.payload.len();
            let n = input.len().min(missing);
            self.payload.extend_from_slice(&input[..n]);
            *input = &input[n..];
            if n < missing {
                return Ok(None);
            }
            self.header_filled = 0;
            let payload = std::mem::take(&mut self.payload);
            if let Some(frame) = self.assemble(payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn payload_len(&self) -> usize {
        let [a, b, c, d, ..] = self.header;
        u32::from_le_bytes([a, b, c, d]) as usize
    }

    fn check_header(&self) -> Result<(), ProtoError> {
        let kind = self.header[4];
        let known = matches!(kind, KIND_CONTROL..=KIND_CLOSE | KIND_DATA..=0x12);
        if !known {
            return Err(ProtoError::UnknownKind(kind));
        }
        let length = self.payload_len();
        if length > MAX_PAYLOAD {
            return Err(ProtoError::Oversize { length: length as u32, limit: MAX_PAYLOAD as u32 });
        }
        Ok(())
    }

    fn assemble(&mut self, payload: Vec<u8>) -> Result<Option<Frame>, ProtoError> {
        let [_, _, _, _, kind, a, b, c, d] = self.header;
        let channel = u32::from_le_bytes([a, b, c, d]);
        let malformed = ProtoError::Payload { kind, length: payload.len() };
        match kind {
            KIND_CONTROL | KIND_CONTROL_PART => {
                let length = self.control.len() + payload.len();
                if length > MAX_CONTROL {
                    return Err(ProtoError::ControlOversize { length, limit: MAX_CONTROL });
                }
                if kind == KIND_CONTROL && self.control.is_empty() {
                    return Ok(Some(Frame::Control(payload)));
                }
                self.control.extend_from_slice(&payload);
                if kind == KIND_CONTROL_PART {
                    if payload.is_empty() {
                        return Err(malformed);
                    }
                    return Ok(None);
                }
                Ok(Some(Frame::Control(std::mem::take(&mut self.control))))
            }
            KIND_CREDIT => {
                let [code, a, b, c, d] = payload[..] else { return Err(malformed) };
                let stream = Stream::from_code(code).ok_or(malformed)?;
                Ok(Some(Frame::Credit { channel, stream, bytes: u32::from_le_bytes([a, b, c, d]) }))
            }
            KIND_EOF | KIND_CLOSE => {
                let [code] = payload[..] else { return Err(malformed) };
                let stream = Stream::from_code(code).ok_or(malformed)?;
                Ok(Some(if kind == KIND_EOF {
                    Frame::Eof { channel, stream }
                } else {
                    Frame::Close { channel, stream }
                }))
            }
            _ => {
                let stream = Stream::from_code(kind - KIND_DATA).ok_or(ProtoError::UnknownKind(kind))?;
                Ok(Some(Frame::Data { channel, stream, bytes: payload }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
