//! The bytes of a new, empty overlay.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use boxlite_types::{Error, Result};

use super::header::{BackingFormat, LONGEST_NAME};

/// Bytes per cluster of the overlays that boxlite makes.
pub(crate) const CLUSTER: u64 = 64 << 10;

/// One L1 entry points to an L2 table of `CLUSTER / 8` clusters.
const PER_L1_ENTRY: u64 = CLUSTER * (CLUSTER / 8);

/// The metadata of an empty overlay. Cluster 0 holds the header, 1 the refcount table, 2 the only refcount
/// block, 3 and on the L1 table, which is all zeros.
#[derive(Debug)]
pub(crate) struct OverlayHeader {
    /// Bytes for the start of the file: header, extensions, backing name.
    pub head: Vec<u8>,
    /// Bytes for offset [`CLUSTER`]: the refcount table's one entry.
    pub refcount_table: [u8; 8],
    /// Bytes for offset `2 * CLUSTER`: a refcount of 1 for every cluster in use.
    pub refcount_block: Vec<u8>,
    /// The file's length in bytes; what is not written stays a hole.
    pub length: u64,
}

/// Lays out a version 3 overlay of `virtual_size` bytes (rounded up to 512) above `backing`.
///
/// # Errors
/// `InvalidInput` when the backing path is relative, longer than 1 023 bytes or contains NUL, when
/// its format is neither raw nor qcow2, or when the size is 0 or above 16 TiB.
pub(crate) fn overlay_header(
    backing: &Path,
    format: BackingFormat,
    virtual_size: u64,
) -> Result<OverlayHeader> {
    let name = backing.as_os_str().as_bytes();
    if !backing.is_absolute() || name.len() > LONGEST_NAME || name.contains(&0) {
        let shown = backing.display();
        let message = format!(
            "an overlay's backing path must be absolute and at most {LONGEST_NAME} bytes, not the {} bytes of {shown}; \
             use a home with a shorter path",
            name.len()
        );
        return Err(Error::invalid(message).at(backing));
    }
    let format: &[u8] = match format {
        BackingFormat::Raw => b"raw",
        BackingFormat::Qcow2 => b"qcow2",
        BackingFormat::Unnamed | BackingFormat::Other => {
            return Err(Error::bug("an overlay's backing format must be raw or qcow2"));
        }
    };
    if virtual_size == 0 || virtual_size > 16 << 40 {
        return Err(Error::invalid(format!(
            "an overlay's virtual size must be from 1 byte to 16 TiB, not {virtual_size} bytes"
        )));
    }
    let virtual_size = virtual_size.next_multiple_of(512);
    let l1_entries = virtual_size.div_ceil(PER_L1_ENTRY);
    let clusters = 3 + (l1_entries * 8).div_ceil(CLUSTER);

    let mut head = Vec::with_capacity(1280);
    let put32 = |head: &mut Vec<u8>, value: u32| head.extend_from_slice(&value.to_be_bytes());
    let put64 = |head: &mut Vec<u8>, value: u64| head.extend_from_slice(&value.to_be_bytes());
    head.extend_from_slice(b"QFI\xfb");
    put32(&mut head, 3);
    let name_offset_at = head.len();
    put64(&mut head, 0);
    put32(&mut head, name.len() as u32);
    put32(&mut head, CLUSTER.trailing_zeros());
    put64(&mut head, virtual_size);
    put32(&mut head, 0); // no encryption
    put32(&mut head, l1_entries as u32);
    put64(&mut head, 3 * CLUSTER);
    put64(&mut head, CLUSTER);
    put32(&mut head, 1); // clusters of the refcount table
    put32(&mut head, 0); // snapshots
    put64(&mut head, 0);
    for _features in ["incompatible", "compatible", "autoclear"] {
        put64(&mut head, 0);
    }
    put32(&mut head, 4); // refcounts of 2^4 bits
    put32(&mut head, 104); // header length
    put32(&mut head, 0xe279_2aca); // extension: backing format
    put32(&mut head, format.len() as u32);
    head.extend_from_slice(format);
    head.resize(head.len().next_multiple_of(8), 0);
    put64(&mut head, 0); // end of extensions
    let name_offset = head.len() as u64;
    head[name_offset_at..name_offset_at + 8].copy_from_slice(&name_offset.to_be_bytes());
    head.extend_from_slice(name);

    let refcount_block = 1_u16.to_be_bytes().repeat(clusters as usize);
    Ok(OverlayHeader {
        head,
        refcount_table: (2 * CLUSTER).to_be_bytes(),
        refcount_block,
        length: clusters * CLUSTER,
    })
}
