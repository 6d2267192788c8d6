//! Extended attributes: what fits behind the inode's fields stays there, the rest takes one block.

use std::ffi::CStr;

use super::checksum::Checksum;
use super::{BLOCK, INODE, put};
use crate::error::EntryRefusal;

const MAGIC: u32 = 0xea02_0000;
/// First byte of the space behind the fixed fields and 32 bytes of extra ones.
pub(crate) const IN_INODE: usize = 160;
const HEADER: usize = 32;
/// Bytes of an entry before its name.
const ENTRY: usize = 16;

/// Name prefixes that are stored as a number.
const PREFIXES: [(&[u8], u8); 4] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6), (b"system.", 7)];

struct XattrEntry<'a> {
    index: u8,
    name: &'a [u8],
    value: Vec<u8>,
}

impl XattrEntry<'_> {
    fn entry_length(&self) -> usize {
        (ENTRY + self.name.len()).next_multiple_of(4)
    }

    fn length(&self) -> usize {
        self.entry_length() + self.value.len().next_multiple_of(4)
    }
}

/// The attributes of one inode as they are stored.
#[derive(Debug, Default)]
pub(crate) struct StoredAttributes {
    /// Bytes for the record from [`IN_INODE`] on; empty if there are none.
    pub(crate) inline: Vec<u8>,
    /// The attribute block, its checksum not yet set.
    pub(crate) block: Option<Vec<u8>>,
}

/// Refuses attributes that ext4 cannot hold.
pub(crate) fn fit(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), EntryRefusal> {
    store(xattrs).map(|_| ())
}

/// Distributes attributes, given by full name, over inode and block.
pub(crate) fn store(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<StoredAttributes, EntryRefusal> {
    if xattrs.is_empty() {
        return Ok(StoredAttributes::default());
    }
    let mut all = xattrs.iter().map(|(name, value)| parse(name, value)).collect::<Result<Vec<_>, _>>()?;
    all.sort_by(|a, b| (a.index, a.name.len(), a.name).cmp(&(b.index, b.name.len(), b.name)));
    // The end of each list is a zero word; the one in the inode has its magic before it.
    let mut left = INODE - IN_INODE - 4 - 4;
    let (inside, outside): (Vec<_>, Vec<_>) = all.into_iter().partition(|attribute| {
        let fits = attribute.length() <= left;
        if fits {
            left -= attribute.length();
        }
        fits
    });
    let mut stored = StoredAttributes::default();
    if !inside.is_empty() {
        let mut area = vec![0; INODE - IN_INODE];
        put!(area, 0, MAGIC);
        write(&mut area[4..], 0, &inside, false);
        stored.inline = area;
    }
    if !outside.is_empty() {
        let need = HEADER + 4 + outside.iter().map(XattrEntry::length).sum::<usize>();
        if need > BLOCK {
            return Err(EntryRefusal::TooLarge {
                what: "the size of the extended attributes in bytes",
                need: need as u64,
                limit: BLOCK as u64,
            });
        }
        let mut block = vec![0; BLOCK];
        put!(block, 0, MAGIC);
        put!(block, 4, 1_u32);
        put!(block, 8, 1_u32);
        let hash = write(&mut block, HEADER, &outside, true);
        put!(block, 12, hash);
        stored.block = Some(block);
    }
    Ok(stored)
}

/// Sets the checksum of an attribute block, which covers its place.
pub(crate) fn seal(block: &mut [u8], place: u64, seed: Checksum) {
    let checksum = seed.over(&place.to_le_bytes()).over(block).value();
    put!(block, 16, checksum);
}

fn parse<'a>(name: &'a [u8], value: &[u8]) -> Result<XattrEntry<'a>, EntryRefusal> {
    for (full, index) in [(c"system.posix_acl_access", 2), (c"system.posix_acl_default", 3)] {
        if name == CStr::to_bytes(full) {
            return Ok(XattrEntry { index, name: &[], value: acl(value)? });
        }
    }
    for (prefix, index) in PREFIXES {
        if let Some(rest) = name.strip_prefix(prefix) {
            if rest.is_empty() || rest.len() > 255 - prefix.len() || rest.contains(&0) {
                break;
            }
            return Ok(XattrEntry { index, name: rest, value: value.to_vec() });
        }
    }
    let name = String::from_utf8_lossy(name).into_owned();
    Err(EntryRefusal::Unsupported(format!(
        "the name of its extended attribute {name:?} has no place on ext4"
    )))
}

/// From the form of `setxattr` (version 2, ids everywhere) to ext4's own (version 1, ids where they mean something).
fn acl(value: &[u8]) -> Result<Vec<u8>, EntryRefusal> {
    let malformed = || EntryRefusal::Unsupported("its access control list is malformed".to_owned());
    let entries = value.strip_prefix(&2_u32.to_le_bytes()).ok_or_else(malformed)?;
    if entries.len() % 8 != 0 {
        return Err(malformed());
    }
    let mut stored = 1_u32.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(8) {
        match u16::from_le_bytes([entry[0], entry[1]]) {
            0x02 | 0x08 => stored.extend_from_slice(entry),
            0x01 | 0x04 | 0x10 | 0x20 => stored.extend_from_slice(&entry[..4]),
            _ => return Err(malformed()),
        }
    }
    Ok(stored)
}

/// Writes entries upwards from `start` and values downwards from the end; offsets count from the area's start.
fn write(area: &mut [u8], start: usize, attributes: &[XattrEntry<'_>], hashed: bool) -> u32 {
    let mut at = start;
    let mut value_at = area.len();
    let mut all = 0_u32;
    for attribute in attributes {
        let size = attribute.value.len();
        value_at -= size.next_multiple_of(4);
        area[value_at..value_at + size].copy_from_slice(&attribute.value);
        area[at] = attribute.name.len() as u8;
        area[at + 1] = attribute.index;
        put!(area, at + 2, if size == 0 { 0 } else { value_at as u16 });
        put!(area, at + 8, size as u32);
        if hashed {
            let hash = hash(attribute.name, &area[value_at..value_at + size.next_multiple_of(4)]);
            put!(area, at + 12, hash);
            all = all.rotate_left(16) ^ hash;
        }
        area[at + ENTRY..at + ENTRY + attribute.name.len()].copy_from_slice(attribute.name);
        at += attribute.entry_length();
    }
    all
}

fn hash(name: &[u8], value: &[u8]) -> u32 {
    let over_name = name.iter().fold(0_u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
    value.chunks_exact(4).fold(over_name, |hash, word| {
        hash.rotate_left(16) ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]])
    })
}
