//! Whole boxes as single files.
//!
//! # Format
//! A tar archive of three regular files, in this order, and nothing else:
//!
//! ```text
//! box.json     what the box is (`BoxFileHead`), at most 1 MiB of JSON
//! disk.qcow2   its disk: all of it, or relative to the disk image that `box.json` names
//! sums.json    the SHA-256 of the two
//! ```
//!
//! The sums come last because the archive is written as a stream, and so that a file that was cut off is known to be.
//! `disk.qcow2` has one layout for given contents ([`layout`]): header, refcounts, L1 table, L2 tables, clusters, each in the
//! order of the disk and without gaps. Any tool reads it as the qcow2 file that it is.
//!
//! # Trust
//! None. A reader computes every byte of the archive that is not contents (tar headers, qcow2 header, refcounts, tables, sums)
//! and compares, so there is nothing to parse but the JSON, and one entry of a table can only be the next cluster or none. So
//! no backing file, external data file, encryption, compression, snapshot or loop can be expressed. The contents of
//! clusters are the guest's own filesystem, which nothing on the host ever reads.
//!
//! # Crash safety
//! A reader writes to a file that its caller has staged.

mod layout;
mod places;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use places::DiskSource;
pub use read::BoxFileReader;
pub use write::write;

const HEAD: &str = "box.json";
const DISK: &str = "disk.qcow2";
const SUMS: &str = "sums.json";

/// The most bytes of `box.json`.
const MAX_HEAD: u64 = 1 << 20;

/// Bytes of a block of a tar archive.
const BLOCK: usize = 512;

/// The block in front of the entry `name`: the same for the same name and size.
fn entry_header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).expect("a short name fits");
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_cksum();
    *header.as_bytes()
}

/// Bytes between an entry of that size and the next block.
fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

/// The contents of `sums.json`.
fn sums(head: &[u8], disk: &[u8]) -> Vec<u8> {
    let [head, disk] = [head, disk].map(hex::encode);
    format!("{{\"{HEAD}\":\"sha256:{head}\",\"{DISK}\":\"sha256:{disk}\"}}\n").into_bytes()
}
