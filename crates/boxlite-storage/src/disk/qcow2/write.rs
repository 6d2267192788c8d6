//! The bytes of a header, and of a new, empty overlay.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use boxlite_types::{Error, Result};

use super::header::{BackingFormat, LONGEST_NAME};

/// Bytes per cluster of the overlays that boxlite makes.
pub(crate) const CLUSTER: u64 = 64 << 10;

/// One L1 entry points to an L2 table of `CLUSTER / 8` clusters.
pub(crate) const PER_L1_ENTRY: u64 = CLUSTER * (CLUSTER / 8);

/// The largest disk, in bytes.
pub(crate) const MAX_VIRTUAL_SIZE: u64 = 16 << 40;

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
    let (name, format) = backing_name(backing, format)?;
    if virtual_size == 0 || virtual_size > MAX_VIRTUAL_SIZE {
        return Err(Error::invalid(format!(
            "an overlay's virtual size must be from 1 byte to 16 TiB, not {virtual_size} bytes"
        )));
    }
    let virtual_size = virtual_size.next_multiple_of(512);
    let l1_entries = virtual_size.div_ceil(PER_L1_ENTRY);
    let clusters = 3 + (l1_entries * 8).div_ceil(CLUSTER);

    let place = HeaderPlace { virtual_size, l1_entries, l1_at: 3 * CLUSTER, refcount_tables: 1 };
    let head = header_bytes(&place, Some((name, format)));
    let refcount_block = 1_u16.to_be_bytes().repeat(clusters as usize);
    Ok(OverlayHeader {
        head,
        refcount_table: (2 * CLUSTER).to_be_bytes(),
        refcount_block,
        length: clusters * CLUSTER,
    })
}

/// The name and format of the file below, as a header has them.
///
/// # Errors
/// `InvalidInput` when the path is relative, longer than 1 023 bytes or contains NUL.
pub(crate) fn backing_name(backing: &Path, format: BackingFormat) -> Result<(&[u8], &'static [u8])> {
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
    let format: &'static [u8] = match format {
        BackingFormat::Raw => b"raw",
        BackingFormat::Qcow2 => b"qcow2",
        BackingFormat::Unnamed | BackingFormat::Other => {
            return Err(Error::bug("an overlay's backing format must be raw or qcow2"));
        }
    };
    Ok((name, format))
}

/// Where a header says that things are.
#[derive(Debug)]
pub(crate) struct HeaderPlace {
    /// Bytes, a multiple of 512.
    pub(crate) virtual_size: u64,
    pub(crate) l1_entries: u64,
    /// Offset of the L1 table.
    pub(crate) l1_at: u64,
    /// Clusters of the refcount table, which begins at offset [`CLUSTER`].
    pub(crate) refcount_tables: u64,
}

/// The start of a version 3 file: header, extensions, and the name of the file below and its format, if there is one.
pub(crate) fn header_bytes(place: &HeaderPlace, backing: Option<(&[u8], &[u8])>) -> Vec<u8> {
    let mut head = Vec::with_capacity(1280);
    let put32 = |head: &mut Vec<u8>, value: u32| head.extend_from_slice(&value.to_be_bytes());
    let put64 = |head: &mut Vec<u8>, value: u64| head.extend_from_slice(&value.to_be_bytes());
    head.extend_from_slice(b"QFI\xfb");
    put32(&mut head, 3);
    let name_offset_at = head.len();
    put64(&mut head, 0);
    put32(&mut head, backing.map_or(0, |(name, _)| name.len() as u32));
    put32(&mut head, CLUSTER.trailing_zeros());
    put64(&mut head, place.virtual_size);
    put32(&mut head, 0); // no encryption
    put32(&mut head, place.l1_entries as u32);
    put64(&mut head, place.l1_at);
    put64(&mut head, CLUSTER);
    put32(&mut head, place.refcount_tables as u32);
    put32(&mut head, 0); // snapshots
    put64(&mut head, 0);
    for _features in ["incompatible", "compatible", "autoclear"] {
        put64(&mut head, 0);
    }
    put32(&mut head, 4); // refcounts of 2^4 bits
    put32(&mut head, 104); // header length
    if let Some((_, format)) = backing {
        put32(&mut head, 0xe279_2aca); // extension: backing format
        put32(&mut head, format.len() as u32);
        head.extend_from_slice(format);
        head.resize(head.len().next_multiple_of(8), 0);
    }
    put64(&mut head, 0); // end of extensions
    if let Some((name, _)) = backing {
        let name_offset = head.len() as u64;
        head[name_offset_at..name_offset_at + 8].copy_from_slice(&name_offset.to_be_bytes());
        head.extend_from_slice(name);
    }
    head
}
