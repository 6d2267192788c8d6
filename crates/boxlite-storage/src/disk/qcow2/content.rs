//! The check whether an overlay holds anything of its own.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt;

/// Where version 2 and 3 headers keep the L1 table's entry count and its offset.
const L1_COUNT: u64 = 36;

/// Entries of the longest L1 table that is read: 16 TiB in clusters of 64 KiB.
const MOST_ENTRIES: u32 = 32 << 10;

/// Whether no cluster was ever written: every entry of the L1 table is zero (QEMU's `docs/interop/qcow2`, L1 table).
///
/// The header must have been parsed before. Reads the table, 160 bytes for 10 GiB.
///
/// # Errors
/// `InvalidData` for a table longer than that of 16 TiB; what reading fails with.
pub fn is_pristine(overlay: &File) -> Result<bool> {
    let mut place = [0; 12];
    overlay.read_exact_at(&mut place, L1_COUNT)?;
    let (count, offset) = place.split_at(4);
    let count = u32::from_be_bytes(count.try_into().expect("4 bytes"));
    let offset = u64::from_be_bytes(offset.try_into().expect("8 bytes"));
    if count > MOST_ENTRIES {
        return Err(Error::new(ErrorKind::InvalidData, format!("its L1 table has {count} entries")));
    }
    let mut table = vec![0; count as usize * 8];
    overlay.read_exact_at(&mut table, offset)?;
    Ok(table.iter().all(|byte| *byte == 0))
}
