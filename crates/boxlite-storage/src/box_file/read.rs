//! Reading a box file: everything but the contents is compared with what it must be.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use boxlite_types::{BoxFileHead, Doing, Error, Result};
use sha2::{Digest as _, Sha256};

use super::layout::{COPIED, DiskLayout, PER_TABLE, ZEROS};
use super::{BLOCK, DISK, HEAD, MAX_HEAD, SUMS, entry_header, padding, sums};
use crate::disk::qcow2::{BackingFormat, CLUSTER};

/// A box file of which the first part was read.
pub struct BoxFileReader<R> {
    input: R,
    head: BoxFileHead,
    layout: DiskLayout,
    head_sum: Vec<u8>,
}

impl<R: Read> BoxFileReader<R> {
    /// Reads what the file says of its box.
    ///
    /// # Errors
    /// `Corrupt` for what is no box file; `Unsupported` for one of another format.
    pub fn open(mut input: R) -> Result<Self> {
        let mut header = [0; BLOCK];
        fill(&mut input, &mut header)?;
        let size = tar::Header::from_byte_slice(&header).entry_size().ok();
        let size = size.filter(|size| *size <= MAX_HEAD && entry_header(HEAD, *size) == header);
        let size = size.ok_or_else(|| {
            Error::corrupt(
                "this is not a box file, as `boxlite box export` writes them; `boxlite import` makes an image of an \
                 archive of files, and `boxlite load` takes in archives of images",
            )
        })?;
        let mut described = vec![0; size as usize];
        fill(&mut input, &mut described)?;
        expect(&mut input, &vec![0; padding(size)], "the end of box.json")?;
        // Before the rest is understood: another format may have other fields.
        let format: FileFormat = parse(&described)?;
        if format.format != BoxFileHead::FORMAT {
            return Err(Error::unsupported(format!(
                "the box file has format {}, and this boxlite reads format {}",
                format.format,
                BoxFileHead::FORMAT
            )));
        }
        let head: BoxFileHead = parse(&described)?;
        let layout = DiskLayout::of(head.disk)?;
        Ok(Self { input, head, layout, head_sum: Sha256::digest(&described).to_vec() })
    }

    /// Returns the file's description of its box.
    pub fn head(&self) -> &BoxFileHead {
        &self.head
    }

    /// Bytes of the disk as a file.
    pub fn disk_length(&self) -> u64 {
        self.layout.length()
    }

    /// Writes the disk to `file`, which is empty, above `backing` where it is relative, and reads the file to its end.
    /// `admit` is asked with the bytes that have been read of the disk so far. Nothing is durable, and nothing of it is right
    /// unless this succeeds.
    ///
    /// # Errors
    /// `Corrupt` for what is not as it must be, cut off, or goes on behind its end; what `admit` and writing fail with.
    pub fn receive(
        mut self,
        file: &File,
        path: &Path,
        backing: Option<(&Path, BackingFormat)>,
        admit: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        expect(&mut self.input, &entry_header(DISK, self.layout.length()), "the header of disk.qcow2")?;
        let mut disk = Receiver { input: self.input, file, path, at: 0, hasher: Sha256::new(), admit };
        disk.metadata(&self.layout, self.head.disk.relative)?;
        for _ in 0..self.head.disk.clusters {
            disk.cluster()?;
        }
        let disk_sum = disk.hasher.finalize();
        let Receiver { mut input, .. } = disk;
        file.set_len(self.layout.length()).doing("writing the disk", path)?;
        file.write_all_at(&self.layout.head(backing)?, 0).doing("writing the disk", path)?;
        let sums = sums(&self.head_sum, &disk_sum);
        let size = sums.len() as u64;
        expect(&mut input, &entry_header(SUMS, size), "the header of sums.json")?;
        expect(&mut input, &sums, "sums.json: its contents were damaged")?;
        expect(&mut input, &vec![0; padding(size) + 2 * BLOCK], "its end")?;
        match input.read(&mut [0]).map_err(broken)? {
            0 => Ok(()),
            _ => Err(Error::corrupt("the box file goes on behind its end")),
        }
    }
}

#[derive(serde::Deserialize)]
struct FileFormat {
    format: u32,
}

fn parse<T: serde::de::DeserializeOwned>(described: &[u8]) -> Result<T> {
    serde_json::from_slice(described).map_err(|error| {
        Error::corrupt(format!("the box file's {HEAD} cannot be understood: {error}")).because(error)
    })
}

/// A disk on its way into a file.
struct Receiver<'a, R, A> {
    input: R,
    file: &'a File,
    path: &'a Path,
    /// Bytes so far.
    at: u64,
    hasher: Sha256,
    admit: A,
}

impl<R: Read, A: FnMut(u64) -> Result<()>> Receiver<'_, R, A> {
    /// Takes over the next cluster. One of zeros stays a hole.
    fn cluster(&mut self) -> Result<Vec<u8>> {
        let mut cluster = vec![0; CLUSTER as usize];
        fill(&mut self.input, &mut cluster)?;
        self.hasher.update(&cluster);
        if cluster.iter().any(|byte| *byte != 0) {
            (self.admit)(self.at + CLUSTER)?;
            self.file.write_all_at(&cluster, self.at).doing("writing the disk", self.path)?;
        }
        self.at += CLUSTER;
        Ok(cluster)
    }

    /// Takes over everything in front of the contents, none of which the file has a choice about but which clusters there
    /// are.
    fn metadata(&mut self, layout: &DiskLayout, relative: bool) -> Result<()> {
        self.must_be(&layout.head(None)?, "qcow2 header")?;
        for cluster in layout.refcounts() {
            self.must_be(&cluster, "refcount")?;
        }
        let (mut parts, mut tables) = (Vec::new(), 0);
        for first in (0..layout.l1_clusters()).map(|cluster| cluster * PER_TABLE) {
            for (part, entry) in (first..).zip(entries(&self.cluster()?)) {
                if entry == layout.table_at(tables) | COPIED && part < layout.l1_entries() {
                    tables += 1;
                    parts.push(part);
                } else if entry != 0 {
                    return Err(damaged("L1 table"));
                }
            }
        }
        let mut clusters = 0;
        for part in parts {
            let table = self.cluster()?;
            let first = part * PER_TABLE;
            for (cluster, entry) in (first..).zip(entries(&table)) {
                let is_of_disk = layout.has_cluster(cluster);
                if entry == layout.cluster_at(clusters) | COPIED && is_of_disk {
                    clusters += 1;
                } else if entry != 0 && !(entry == ZEROS && relative && is_of_disk) {
                    return Err(damaged("L2 table"));
                }
            }
            if table.iter().all(|byte| *byte == 0) {
                return Err(damaged("L2 table"));
            }
        }
        if !layout.has_counts(tables, clusters) {
            return Err(damaged("number of clusters"));
        }
        Ok(())
    }

    fn must_be(&mut self, expected: &[u8], what: &str) -> Result<()> {
        if self.cluster()? == expected { Ok(()) } else { Err(damaged(what)) }
    }
}

fn entries(table: &[u8]) -> impl Iterator<Item = u64> + '_ {
    table.chunks_exact(8).map(|entry| u64::from_be_bytes(entry.try_into().expect("8 bytes")))
}

fn damaged(what: &str) -> Error {
    Error::corrupt(format!("the box file's disk has a {what} that no export writes"))
}

/// Reads what must be there.
fn expect(input: &mut impl Read, expected: &[u8], what: &str) -> Result<()> {
    let mut found = vec![0; expected.len()];
    fill(input, &mut found)?;
    if found == expected { Ok(()) } else { Err(Error::corrupt(format!("the box file is wrong at {what}"))) }
}

fn fill(input: &mut impl Read, bytes: &mut [u8]) -> Result<()> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::corrupt("the box file is cut off"),
        _ => broken(error),
    })
}

fn broken(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::io("reading", "the box file", error),
    }
}
