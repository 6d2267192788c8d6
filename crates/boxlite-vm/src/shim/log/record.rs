//! The format of `main.log`: records of up to 64 KiB, each with its position in the output of its run.
//!
//! A record is a header of 24 bytes (all little endian) and its bytes: magic `0xB0` (u8), kind (u8), two zero bytes,
//! length (u32), position of the first byte in the output of the run, both streams counted together (u64),
//! milliseconds since the epoch (u64). The kinds are 1 for standard output, 2 for standard error, and 3 for the mark of
//! a run, whose bytes are the run's number (u64). What follows a mark is of that run; what precedes the first is of
//! run 1.

use boxlite_proto::Stream;

pub(super) const HEADER_LEN: usize = 24;
pub(super) const MAX_LEN: usize = boxlite_proto::MAX_PAYLOAD;
/// Bytes of a mark's contents.
pub(super) const MARK_LEN: usize = 8;
const MAGIC: u8 = 0xB0;

/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    Output(Stream),
    /// The number of the run that follows.
    RunMark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: RecordKind,
    pub(super) length: usize,
    pub(super) position: u64,
    pub(super) at_unix_ms: u64,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = MAGIC;
        out[1] = match self.kind {
            RecordKind::Output(Stream::Stderr) => 2,
            RecordKind::Output(_) => 1,
            RecordKind::RunMark => 3,
        };
        out[4..8].copy_from_slice(&(self.length as u32).to_le_bytes());
        out[8..16].copy_from_slice(&self.position.to_le_bytes());
        out[16..24].copy_from_slice(&self.at_unix_ms.to_le_bytes());
        out
    }

    /// `None` for anything that [`Header::encode`] does not write.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let [MAGIC, kind, 0, 0, a, b, c, d, ..] = *bytes else { return None };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let kind = match kind {
            1 => RecordKind::Output(Stream::Stdout),
            2 => RecordKind::Output(Stream::Stderr),
            3 if length == MARK_LEN => RecordKind::RunMark,
            _ => return None,
        };
        let number = |from: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[from + i]));
        (length <= MAX_LEN).then(|| Self { kind, length, position: number(8), at_unix_ms: number(16) })
    }
}
