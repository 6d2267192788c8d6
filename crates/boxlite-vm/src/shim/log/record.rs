//! The format of `main.log`: records of up to 64 KiB, each with its position in the output.
//!
//! A record is a header of 24 bytes (all little endian) and its bytes: magic `0xB0` (u8), stream (u8: 1 stdout,
//! 2 stderr), two zero bytes, length (u32), position of the first byte in the output of the run, both streams
//! counted together (u64), milliseconds since the epoch (u64).

use boxlite_proto::Stream;

pub(super) const HEADER_LEN: usize = 24;
pub(super) const MAX_LEN: usize = boxlite_proto::MAX_PAYLOAD;
const MAGIC: u8 = 0xB0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) stream: Stream,
    pub(super) length: usize,
    pub(super) position: u64,
    pub(super) at_unix_ms: u64,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = MAGIC;
        out[1] = if self.stream == Stream::Stderr { 2 } else { 1 };
        out[4..8].copy_from_slice(&(self.length as u32).to_le_bytes());
        out[8..16].copy_from_slice(&self.position.to_le_bytes());
        out[16..24].copy_from_slice(&self.at_unix_ms.to_le_bytes());
        out
    }

    /// `None` for anything that [`Header::encode`] does not write.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let [MAGIC, stream, 0, 0, a, b, c, d, ..] = *bytes else { return None };
        let stream = match stream {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return None,
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let number = |from: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[from + i]));
        (length <= MAX_LEN).then(|| Self { stream, length, position: number(8), at_unix_ms: number(16) })
    }
}
