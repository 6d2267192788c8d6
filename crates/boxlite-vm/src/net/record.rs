//! Frames on a socket of QEMU's: records of a length and a frame.

use std::io;

/// QEMU's `stream` netdev, at both ends, puts a frame's length before it, in four bytes, the most significant first.
pub(super) const LENGTH_PREFIX: usize = 4;
/// The longest frame that QEMU carries at all: its `NET_BUFSIZE`.
pub(super) const MAX_RECORD: usize = 4096 + 65536;
/// Bytes of a direction's buffer: the longest record always fits behind an incomplete one's beginning.
pub(super) const BUFFER: usize = 2 * (LENGTH_PREFIX + MAX_RECORD);

/// The parts of a buffer that were looked at, and that stay.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sifted {
    /// Bytes of whole records, from the start of the buffer.
    pub(super) used: usize,
    /// Bytes of those that passed, moved to the start of the buffer.
    pub(super) kept: usize,
    /// How many passed.
    pub(super) frames: u64,
}

/// Moves the records that pass, and may be changed by that, to the front of `buffer`; an incomplete record at its end stays in place.
pub(super) fn sift(buffer: &mut [u8], passes: &mut impl FnMut(&mut [u8]) -> bool) -> io::Result<Sifted> {
    let mut sifted = Sifted { used: 0, kept: 0, frames: 0 };
    while let Some((prefix, rest)) = buffer[sifted.used..].split_first_chunk_mut::<LENGTH_PREFIX>() {
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > MAX_RECORD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("QEMU sent a frame of {length} bytes"),
            ));
        }
        let Some(frame) = rest.get_mut(..length) else { break };
        let record = sifted.used..sifted.used + LENGTH_PREFIX + length;
        if passes(frame) {
            if sifted.kept < sifted.used {
                buffer.copy_within(record.clone(), sifted.kept);
            }
            sifted.kept += record.len();
            sifted.frames += 1;
        }
        sifted.used = record.end;
    }
    Ok(sifted)
}
