//! An entry put together from its header and the extended headers before it.

use super::header::{Dialect, TarHeader};
use super::pax::PaxRecords;
use super::value::{SparseSegment, Timestamp};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TarEntryKind {
    File,
    Hardlink,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
}

/// One entry of an archive: a path with its metadata.
#[derive(Debug)]
pub(crate) struct TarEntry {
    pub(crate) name: Vec<u8>,
    /// Target of a hard or symbolic link.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: TarEntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    /// Major and minor of a device.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Length of the file in bytes, holes included.
    pub(crate) size: u64,
    /// Places of the stored bytes in a sparse file.
    pub(crate) segments: Option<Vec<SparseSegment>>,
}

#[derive(Debug)]
pub(super) enum AssembleError {
    Corrupt(String),
    Unsupported { name: Vec<u8>, reason: String },
}

impl From<&'static str> for AssembleError {
    fn from(reason: &'static str) -> Self {
        Self::Corrupt(reason.to_owned())
    }
}

impl TarEntry {
    /// The entry, and how many bytes of data follow it in the archive.
    pub(super) fn assemble(
        header: &TarHeader<'_>,
        records: &PaxRecords,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<(Self, u64), AssembleError> {
        let name = records.get(b"path").map_or_else(|| header.name(), <[u8]>::to_vec);
        let name = long_name.unwrap_or(name);
        let link = records.get(b"linkpath").map_or_else(|| header.link(), <[u8]>::to_vec);
        let link = long_link.unwrap_or(link);
        let unsupported = |reason: String| AssembleError::Unsupported { name: name.clone(), reason };
        let kind = match header.typeflag {
            0 if name.ends_with(b"/") => TarEntryKind::Directory,
            b'0' | 0 | b'7' => TarEntryKind::File,
            b'S' if header.dialect == Dialect::Gnu => TarEntryKind::File,
            b'1' => TarEntryKind::Hardlink,
            b'2' => TarEntryKind::Symlink,
            b'3' => TarEntryKind::Char,
            b'4' => TarEntryKind::Block,
            b'5' => TarEntryKind::Directory,
            b'6' => TarEntryKind::Fifo,
            other => return Err(unsupported(format!("its type is {:?}", char::from(other)))),
        };
        let id = |what: &str, field: i64, record: Option<u64>| match record {
            Some(id) => u32::try_from(id).map_err(|_| unsupported(format!("its {what} is {id}"))),
            None => u32::try_from(field).map_err(|_| unsupported(format!("its {what} is {field}"))),
        };
        let uid = id("uid", header.uid, records.number(b"uid")?)?;
        let gid = id("gid", header.gid, records.number(b"gid")?)?;
        let device = if matches!(kind, TarEntryKind::Char | TarEntryKind::Block) {
            let (major, minor) = header.device;
            // Linux device numbers: 12 bits of major, 20 of minor.
            if !(0..1 << 12).contains(&major) || !(0..1 << 20).contains(&minor) {
                return Err(unsupported(format!("its device number is {major}:{minor}")));
            }
            (major as u32, minor as u32)
        } else {
            (0, 0)
        };
        let mtime = records.mtime()?.unwrap_or(Timestamp { seconds: header.mtime, nanoseconds: 0 });
        let mut entry = Self {
            link,
            kind,
            mode: (header.mode & 0o7777) as u16,
            uid,
            gid,
            mtime,
            device,
            xattrs: records.xattrs(),
            size: 0,
            segments: None,
            name: Vec::new(),
        };
        let mut stored = records.number(b"size")?.unwrap_or(header.size);
        if kind == TarEntryKind::File {
            // Positions up to here must not wrap, whatever a hostile size says.
            if stored > i64::MAX as u64 - 1024 {
                return Err(AssembleError::Corrupt(format!("a size of {stored} bytes")));
            }
            entry.size = stored;
            let logical = if header.typeflag == b'S' {
                Some(header.sparse_size().ok_or("the real size of a sparse file is not a number")?)
            } else if records.sparse_map_in_data() {
                records.number(b"GNU.sparse.realsize")?.or(records.number(b"GNU.sparse.size")?)
            } else {
                records.number(b"GNU.sparse.size")?
            };
            entry.size = logical.unwrap_or(stored);
        } else {
            stored = 0;
        }
        entry.name = match records.get(b"GNU.sparse.name") {
            Some(real) if kind == TarEntryKind::File => real.to_vec(),
            _ => name,
        };
        Ok((entry, stored))
    }
}
