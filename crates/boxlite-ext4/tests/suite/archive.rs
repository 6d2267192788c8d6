//! Tar archives written field by field, so that tests can also write wrong ones.

use std::io::Write;

use boxlite_ext4::LayerSource;
use sha2::{Digest, Sha256};

/// A header block with all fields settable; `bytes` computes the checksum.
#[derive(Clone)]
pub(crate) struct Header {
    pub(crate) block: [u8; 512],
}

impl Header {
    pub(crate) fn new(typeflag: u8, name: &[u8]) -> Self {
        let mut header = Self { block: [0; 512] };
        let count = name.len().min(100);
        header.block[..count].copy_from_slice(&name[..count]);
        header.block[156] = typeflag;
        header.block[257..265].copy_from_slice(b"ustar\x0000");
        header.octal(100..108, 0o644);
        header.octal(108..116, 0);
        header.octal(116..124, 0);
        header.octal(124..136, 0);
        header.octal(136..148, 1_600_000_000);
        header.octal(329..337, 0);
        header.octal(337..345, 0);
        header
    }

    pub(crate) fn octal(&mut self, range: std::ops::Range<usize>, value: u64) {
        let digits = format!("{value:0width$o}\0", width = range.len() - 1);
        self.block[range].copy_from_slice(digits.as_bytes());
    }

    pub(crate) fn bytes(mut self) -> [u8; 512] {
        self.block[148..156].copy_from_slice(b"        ");
        let sum: u32 = self.block.iter().map(|&byte| u32::from(byte)).sum();
        self.block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.block
    }
}

/// Metadata of an entry.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: String,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Default for Meta {
    fn default() -> Self {
        Self { mode: 0o644, uid: 0, gid: 0, mtime: "1600000000".to_owned(), xattrs: Vec::new() }
    }
}

pub(crate) fn meta(mode: u32) -> Meta {
    Meta { mode, ..Meta::default() }
}

/// An archive in the making.
#[derive(Default, Clone)]
pub(crate) struct Archive {
    pub(crate) bytes: Vec<u8>,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn padded(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn pax(&mut self, records: &[(&[u8], &[u8])]) -> &mut Self {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        let mut header = Header::new(b'x', b"PaxHeaders/x");
        header.octal(124..136, body.len() as u64);
        self.raw(&header.bytes()).padded(&body)
    }

    /// Any entry, with a pax header where a field does not fit.
    pub(crate) fn entry(
        &mut self,
        typeflag: u8,
        name: &[u8],
        link: &[u8],
        meta: &Meta,
        data: &[u8],
    ) -> &mut Self {
        self.entry_with(typeflag, name, link, meta, data, &[], |_| {})
    }

    pub(crate) fn entry_with(
        &mut self,
        typeflag: u8,
        name: &[u8],
        link: &[u8],
        meta: &Meta,
        data: &[u8],
        more: &[(&[u8], &[u8])],
        change: impl FnOnce(&mut Header),
    ) -> &mut Self {
        let (uid, gid) = (meta.uid.to_string(), meta.gid.to_string());
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut add = |key: &[u8], value: &[u8]| records.push((key.to_vec(), value.to_vec()));
        if name.len() > 100 || !name.is_ascii() {
            add(b"path", name);
        }
        if link.len() > 100 || !link.is_ascii() {
            add(b"linkpath", link);
        }
        if meta.uid > 0o777_7777 {
            add(b"uid", uid.as_bytes());
        }
        if meta.gid > 0o777_7777 {
            add(b"gid", gid.as_bytes());
        }
        if meta.mtime.parse::<u32>().is_err() {
            add(b"mtime", meta.mtime.as_bytes());
        }
        for (key, value) in &meta.xattrs {
            add(&[b"SCHILY.xattr.", key.as_slice()].concat(), value);
        }
        for (key, value) in more {
            add(key, value);
        }
        if !records.is_empty() {
            let records: Vec<_> =
                records.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
            self.pax(&records);
        }
        let mut header = Header::new(typeflag, name);
        let count = link.len().min(100);
        header.block[157..157 + count].copy_from_slice(&link[..count]);
        header.octal(100..108, u64::from(meta.mode));
        header.octal(108..116, meta.uid & 0o777_7777);
        header.octal(116..124, meta.gid & 0o777_7777);
        header.octal(124..136, data.len() as u64);
        header.octal(136..148, meta.mtime.parse::<u32>().unwrap_or(0).into());
        change(&mut header);
        self.raw(&header.bytes()).padded(data)
    }

    pub(crate) fn file(&mut self, name: &str, data: &[u8]) -> &mut Self {
        self.entry(b'0', name.as_bytes(), b"", &meta(0o644), data)
    }

    pub(crate) fn dir(&mut self, name: &str) -> &mut Self {
        self.entry(b'5', name.as_bytes(), b"", &meta(0o755), b"")
    }

    pub(crate) fn symlink(&mut self, name: &str, target: &str) -> &mut Self {
        self.entry(b'2', name.as_bytes(), target.as_bytes(), &meta(0o777), b"")
    }

    pub(crate) fn hardlink(&mut self, name: &str, target: &str) -> &mut Self {
        self.entry(b'1', name.as_bytes(), target.as_bytes(), &meta(0o644), b"")
    }

    pub(crate) fn device(&mut self, typeflag: u8, name: &str, major: u64, minor: u64) -> &mut Self {
        self.entry_with(typeflag, name.as_bytes(), b"", &meta(0o600), b"", &[], |header| {
            header.octal(329..337, major);
            header.octal(337..345, minor);
        })
    }

    /// The archive with its end mark.
    pub(crate) fn finish(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

pub(crate) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + body.to_string().len();
    if length.to_string().len() + body != length {
        length = body + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A layer's blob together with what it promises.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) bytes: Vec<u8>,
    pub(crate) diff_id: [u8; 32],
    pub(crate) compression: Compression,
}

impl Blob {
    pub(crate) fn new(tar: &[u8], compression: Compression) -> Self {
        let bytes = match compression {
            Compression::None => tar.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(tar, 1).unwrap(),
        };
        Self { bytes, diff_id: sha256(tar), compression }
    }

    pub(crate) fn layer(&self, number: usize) -> LayerSource {
        LayerSource {
            reader: Box::new(std::io::Cursor::new(self.bytes.clone())),
            label: format!("{number} (sha256:{})", hex::encode(sha256(&self.bytes))),
            diff_id: self.diff_id,
            blob_digest: Some(sha256(&self.bytes)),
        }
    }
}
