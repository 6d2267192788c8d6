//! The 256-byte inode record.

use super::checksum::Checksum;
use super::{BLOCK, INODE, put, xattr};
use crate::tar::Timestamp;

/// The inode's blocks are mapped by extents.
pub(crate) const EXTENTS_FLAG: u32 = 0x8_0000;
/// The directory has a hash index.
pub(crate) const INDEX_FLAG: u32 = 0x1000;

/// Longest symbolic link that fits the inode, exclusive.
pub(crate) const FAST_SYMLINK: usize = 60;

/// The fields of a record that vary.
#[derive(Debug, Clone)]
pub(crate) struct InodeRecord {
    /// Type and permissions.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) links: u16,
    /// File system blocks in use, those of extents trees and attributes included.
    pub(crate) blocks: u64,
    pub(crate) flags: u32,
    pub(crate) block: [u8; 60],
    /// Block of extended attributes, or 0.
    pub(crate) attributes: u64,
    /// Extended attributes behind the fields.
    pub(crate) inline: Vec<u8>,
}

impl InodeRecord {
    /// A record of nothing, as for the reserved inodes.
    pub(crate) fn empty() -> Self {
        Self {
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timestamp::default(),
            links: 0,
            blocks: 0,
            flags: 0,
            block: [0; 60],
            attributes: 0,
            inline: Vec::new(),
        }
    }

    /// The record's bytes; `seed` is the inode's own.
    pub(crate) fn bytes(&self, seed: Checksum) -> [u8; INODE] {
        let mut record = [0; INODE];
        let sectors = self.blocks * (BLOCK as u64 / 512);
        let (seconds, extra) = encode_time(self.mtime);
        put!(record, 0x00, self.mode);
        put!(record, 0x02, self.uid as u16);
        put!(record, 0x04, self.size as u32);
        for place in [0x08, 0x0c, 0x10] {
            put!(record, place, seconds);
        }
        put!(record, 0x18, self.gid as u16);
        put!(record, 0x1a, self.links);
        put!(record, 0x1c, sectors as u32);
        put!(record, 0x20, self.flags);
        record[0x28..0x64].copy_from_slice(&self.block);
        put!(record, 0x68, self.attributes as u32);
        put!(record, 0x6c, (self.size >> 32) as u32);
        put!(record, 0x74, (sectors >> 32) as u16);
        put!(record, 0x76, (self.attributes >> 32) as u16);
        put!(record, 0x78, (self.uid >> 16) as u16);
        put!(record, 0x7a, (self.gid >> 16) as u16);
        put!(record, 0x80, (xattr::IN_INODE - 128) as u16);
        for place in [0x84, 0x88, 0x8c] {
            put!(record, place, extra);
        }
        record[xattr::IN_INODE..xattr::IN_INODE + self.inline.len()].copy_from_slice(&self.inline);
        let checksum = seed.over(&record).value();
        put!(record, 0x7c, checksum as u16);
        put!(record, 0x82, (checksum >> 16) as u16);
        record
    }
}

impl InodeRecord {
    /// Reads a record back; `None` unless it is exactly what [`Self::bytes`] gives, its checksum included.
    pub(crate) fn parse(bytes: &[u8; INODE], seed: Checksum) -> Option<Self> {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let mut block = [0; 60];
        block.copy_from_slice(&bytes[0x28..0x64]);
        let inline = &bytes[xattr::IN_INODE..];
        let sectors = u64::from(word(0x1c)) | u64::from(half(0x74)) << 32;
        let record = Self {
            mode: half(0x00),
            uid: u32::from(half(0x02)) | u32::from(half(0x78)) << 16,
            gid: u32::from(half(0x18)) | u32::from(half(0x7a)) << 16,
            size: u64::from(word(0x04)) | u64::from(word(0x6c)) << 32,
            mtime: decode_time(word(0x08).cast_signed(), word(0x84)),
            links: half(0x1a),
            blocks: sectors / (BLOCK as u64 / 512),
            flags: word(0x20),
            block,
            attributes: u64::from(word(0x68)) | u64::from(half(0x76)) << 32,
            inline: if inline.iter().all(|&byte| byte == 0) { Vec::new() } else { inline.to_vec() },
        };
        (record.bytes(seed) == *bytes).then_some(record)
    }
}

/// The 32-bit seconds, and the word with two more bits of them and the nanoseconds.
///
/// Clamped as the kernel does, which drops the fraction at either end.
fn encode_time(time: Timestamp) -> (i32, u32) {
    const EARLIEST: i64 = i32::MIN as i64;
    const LATEST: i64 = i32::MAX as i64 + (3_i64 << 32);
    let seconds = time.seconds.clamp(EARLIEST, LATEST);
    let nanoseconds = if (EARLIEST + 1..LATEST).contains(&seconds) { time.nanoseconds } else { 0 };
    let low = seconds as i32;
    let epoch = ((seconds - i64::from(low)) >> 32) as u32 & 3;
    (low, nanoseconds << 2 | epoch)
}

/// The time of two words made by [`encode_time`].
fn decode_time(low: i32, extra: u32) -> Timestamp {
    let seconds = i64::from(low) + (i64::from(extra & 3) << 32);
    Timestamp { seconds, nanoseconds: extra >> 2 }
}

/// `i_block` of a device: the old 16-bit number where it fits, else the 32-bit one.
pub(crate) fn device(major: u32, minor: u32) -> [u8; 60] {
    let mut field = [0; 60];
    if major < 256 && minor < 256 {
        put!(field, 0, major << 8 | minor);
    } else {
        put!(field, 4, minor & 0xff | major << 8 | (minor & !0xff) << 12);
    }
    field
}

/// The file type code of directory entries for a mode; `None` for types that this builder does not make.
pub(crate) fn type_code(mode: u16) -> Option<u8> {
    match mode & 0o170_000 {
        0o100_000 => Some(1),
        0o040_000 => Some(2),
        0o020_000 => Some(3),
        0o060_000 => Some(4),
        0o010_000 => Some(5),
        0o120_000 => Some(7),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times equal those that `touch -d @TIME` leaves on an ext4 of Linux 6.18.
    #[test]
    fn times_are_clamped_as_by_the_kernel() {
        for (seconds, nanoseconds, expected) in [
            (15_032_385_534, 5, (15_032_385_534, 5)),
            (15_032_385_535, 500_000_000, (15_032_385_535, 0)),
            (15_032_385_536, 1, (15_032_385_535, 0)),
            (-2_147_483_647, 7, (-2_147_483_647, 7)),
            (-2_147_483_649, 750_000_000, (-2_147_483_648, 0)),
            (i64::MIN, 0, (-2_147_483_648, 0)),
            (0, 999_999_999, (0, 999_999_999)),
            (4_294_967_296, 1, (4_294_967_296, 1)),
        ] {
            let (low, extra) = encode_time(Timestamp { seconds, nanoseconds });
            let decoded = decode_time(low, extra);
            assert_eq!((decoded.seconds, decoded.nanoseconds), expected);
        }
    }
}
