//! Reading a header: pure, bounded, without allocation.

/// Bytes at the start of the file in which everything that is read here must lie.
pub const BOUND: usize = 4096;

/// The longest backing file name that the format allows, in bytes.
pub const LONGEST_NAME: usize = 1023;

const MAGIC: u32 = 0x5146_49fb;
const V2_LENGTH: usize = 72;
const V3_LENGTH: usize = 104;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

/// Incompatible features that change nothing about the backing chain: dirty, corrupt, compression type,
/// extended L2 entries. The external data file (bit 2) is deliberately not among them.
const HARMLESS_FEATURES: u64 = 0b1_1011;
const EXTERNAL_DATA: u64 = 0b100;

/// Why a file's header says nothing that can be relied upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The magic number is missing.
    #[error("it is not a qcow2 file")]
    NotQcow2,
    /// The file ends inside its header.
    #[error("its header is truncated")]
    Truncated,
    /// A version other than 2 and 3.
    #[error("its version {0} is not known")]
    Version(u32),
    /// A cluster size outside 512 B to 2 MiB.
    #[error("its cluster size 2^{0} is impossible")]
    ClusterBits(u32),
    /// A header length that is too small, not a multiple of 8 or beyond the first cluster.
    #[error("its header length {0} is impossible")]
    HeaderLength(u32),
    /// Incompatible features that this reader does not know.
    #[error("it needs unknown features {0:#x}")]
    UnknownFeatures(u64),
    /// Its clusters live in another file.
    #[error("its data lies in an external file")]
    ExternalData,
    /// The backing name is longer than the format allows or leaves the first cluster.
    #[error("its backing file name of {0} bytes does not fit")]
    NameLength(u32),
    /// The backing name or an extension lies beyond [`BOUND`].
    #[error("its header extends beyond {BOUND} bytes")]
    BeyondBound,
    /// An extension overruns the space that extensions have.
    #[error("its header extensions overrun")]
    Extensions,
    /// The backing name contains a NUL byte.
    #[error("its backing file name contains a NUL byte")]
    NulInName,
}

/// How the backing file is to be read, as the overlay names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackingFormat {
    /// `raw`: the end of the chain.
    Raw,
    /// `qcow2`: it has a header of its own.
    Qcow2,
    /// Not named.
    Unnamed,
    /// Named, but neither of these.
    Other,
}

/// The backing file that a header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backing<'a> {
    /// The name, byte for byte; not resolved, not trusted.
    pub name: &'a [u8],
    /// Its format.
    pub format: BackingFormat,
}

/// A parsed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qcow2Header<'a> {
    /// 2 or 3.
    pub version: u32,
    /// Bytes per cluster.
    pub cluster: u64,
    /// Virtual size in bytes.
    pub virtual_size: u64,
    /// The backing file, if it names one.
    pub backing: Option<Backing<'a>>,
}

/// Whether `start`, the first bytes of a file, has the qcow2 magic.
pub fn is_qcow2(start: &[u8]) -> bool {
    be32(start, 0) == Some(MAGIC)
}

impl<'a> Qcow2Header<'a> {
    /// Parses `start`: the first [`BOUND`] bytes of the file, or all of a shorter one.
    pub fn parse(start: &'a [u8]) -> Result<Self, HeaderError> {
        let start = &start[..start.len().min(BOUND)];
        if !is_qcow2(start) {
            return Err(HeaderError::NotQcow2);
        }
        let u32_at = |offset| be32(start, offset).ok_or(HeaderError::Truncated);
        let u64_at = |offset| be64(start, offset).ok_or(HeaderError::Truncated);
        let version = u32_at(4)?;
        let header_length = match version {
            2 => V2_LENGTH,
            3 => {
                let features = u64_at(72)?;
                if features & EXTERNAL_DATA != 0 {
                    return Err(HeaderError::ExternalData);
                }
                if features & !HARMLESS_FEATURES != 0 {
                    return Err(HeaderError::UnknownFeatures(features & !HARMLESS_FEATURES));
                }
                let length = u32_at(100)?;
                if (length as usize) < V3_LENGTH || !length.is_multiple_of(8) {
                    return Err(HeaderError::HeaderLength(length));
                }
                length as usize
            }
            other => return Err(HeaderError::Version(other)),
        };
        let cluster_bits = u32_at(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(HeaderError::ClusterBits(cluster_bits));
        }
        let cluster = 1_u64 << cluster_bits;
        if header_length as u64 > cluster {
            return Err(HeaderError::HeaderLength(header_length as u32));
        }
        let (name_offset, name_length) = (u64_at(8)?, u32_at(16)?);
        let virtual_size = u64_at(24)?;
        if start.len() < header_length {
            return Err(if start.len() < BOUND { HeaderError::Truncated } else { HeaderError::BeyondBound });
        }
        let extensions_end = if name_offset == 0 { cluster } else { name_offset.min(cluster) };
        let format = backing_format(start, header_length, extensions_end)?;
        let name = name_of(start, name_offset, name_length, cluster)?;
        let backing = name.map(|name| Backing { name, format });
        Ok(Self { version, cluster, virtual_size, backing })
    }
}

fn name_of(start: &[u8], offset: u64, length: u32, cluster: u64) -> Result<Option<&[u8]>, HeaderError> {
    if offset == 0 || length == 0 {
        return Ok(None);
    }
    let end = offset.checked_add(u64::from(length)).filter(|end| *end <= cluster);
    let Some(end) = end.filter(|_| length as usize <= LONGEST_NAME) else {
        return Err(HeaderError::NameLength(length));
    };
    if end > BOUND as u64 {
        return Err(HeaderError::BeyondBound);
    }
    let name = start.get(offset as usize..end as usize).ok_or(HeaderError::Truncated)?;
    if name.contains(&0) {
        return Err(HeaderError::NulInName);
    }
    Ok(Some(name))
}

/// Walks the header extensions between the header and `end`.
fn backing_format(start: &[u8], header_length: usize, end: u64) -> Result<BackingFormat, HeaderError> {
    let mut format = BackingFormat::Unnamed;
    let mut at = header_length;
    while (at as u64) + 8 <= end {
        if at + 8 > BOUND {
            return Err(HeaderError::BeyondBound);
        }
        // A file that ends right here has no more extensions; one made by hand may be that short.
        let (Some(kind), Some(length)) = (be32(start, at), be32(start, at + 4)) else { break };
        if kind == EXTENSION_END {
            break;
        }
        let data = at + 8;
        let next = (data as u64) + u64::from(length);
        if next > end {
            return Err(HeaderError::Extensions);
        }
        match kind {
            EXTENSION_DATA_FILE => return Err(HeaderError::ExternalData),
            EXTENSION_BACKING_FORMAT => {
                if next > BOUND as u64 {
                    return Err(HeaderError::BeyondBound);
                }
                let named = start.get(data..next as usize).ok_or(HeaderError::Truncated)?;
                format = match named {
                    b"raw" => BackingFormat::Raw,
                    b"qcow2" => BackingFormat::Qcow2,
                    b"" => BackingFormat::Unnamed,
                    _ => BackingFormat::Other,
                };
            }
            _ => {}
        }
        at = next.next_multiple_of(8) as usize;
    }
    Ok(format)
}

fn be32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn be64(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..offset + 8)?.try_into().ok().map(u64::from_be_bytes)
}
