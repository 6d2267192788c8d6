//! Reading deltas, and the filesystem that a chain of them makes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use boxlite_ext4::BlockSource;
use rustix::fs::SeekFrom;

use super::contents;
use super::{CLUSTER, MAX_VIRTUAL, OFFSET, PER_TABLE, SEAL_AT, SUM_AT, Seal, ZERO, l1_entries};
use crate::disk::content_state::{self, ContentState, Remembered};
use crate::disk::damage_sum::DamageSum;
use crate::disk::qcow2::header::Qcow2Header;

/// The most metadata that is read, in bytes: that of a delta which holds 64 GiB, and more.
const MAX_METADATA: u64 = 256 << 20;

/// The header and tables of a delta, verified or just made; about a 400th of what the delta holds.
#[derive(Debug)]
pub(crate) struct DeltaTables {
    pub(super) metadata: Vec<u8>,
    pub(super) metadata_at: u64,
    /// Offset of the L1 table in the metadata.
    pub(super) l1_at: usize,
    pub(super) blocks: u64,
    /// Of the header and of the metadata.
    pub(super) sum: DamageSum,
    /// Of the contents; the first deltas have none.
    pub(super) content_sum: Option<DamageSum>,
}

/// A delta whose header and metadata were verified.
#[derive(Debug)]
pub(crate) struct Delta<'a> {
    file: &'a File,
    tables: Arc<DeltaTables>,
}

/// A delta's entry for a block.
enum BlockPlace {
    Below,
    Zero,
    At(u64),
}

impl DeltaTables {
    /// Reads and verifies the header and the metadata of `file`; as [`Delta::open`].
    fn read(file: &File) -> io::Result<Self> {
        let mut head = vec![0; CLUSTER as usize];
        match file.read_exact_at(&mut head, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged("it is truncated"));
            }
            other => other?,
        }
        let header = Qcow2Header::parse(&head).map_err(|bad| damaged(&bad.to_string()))?;
        let word = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let is_ours = header.cluster == CLUSTER && header.virtual_size <= MAX_VIRTUAL;
        let seal = Seal::of(&head).filter(|_| is_ours);
        let seal = seal.ok_or_else(|| damaged("it is no delta of this boxlite's making"))?;
        let (metadata_at, length) = (word(SEAL_AT), word(SEAL_AT + 8));
        if file.metadata()?.len() != length {
            return Err(damaged("it has another length than it says"));
        }
        let metadata_bytes = length.checked_sub(metadata_at).filter(|bytes| *bytes <= MAX_METADATA);
        let mut metadata =
            vec![0; metadata_bytes.ok_or_else(|| damaged("its metadata is too long"))? as usize];
        file.read_exact_at(&mut metadata, metadata_at)?;
        let sum_at = |at: usize| DamageSum::read(seal.kind(), &head[at..]);
        let sum = seal.sum(&head, &metadata);
        if sum_at(SUM_AT) != Some(sum) {
            return Err(damaged("the checksum of its metadata is wrong"));
        }
        let l1_at = word(40).checked_sub(metadata_at).ok_or_else(|| damaged("its L1 table is misplaced"))?;
        let blocks = header.virtual_size / CLUSTER;
        let content_sum = seal.content_sum_at().and_then(sum_at);
        Ok(Self { metadata, metadata_at, l1_at: l1_at as usize, blocks, sum, content_sum })
    }

    fn entry(&self, at: usize) -> io::Result<u64> {
        let bytes = self.metadata.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_be_bytes).ok_or_else(|| damaged("an entry points out of its metadata"))
    }

    fn place(&self, block: u64) -> io::Result<BlockPlace> {
        if block / PER_TABLE >= l1_entries(self.blocks) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the block lies behind the end of the disk",
            ));
        }
        let table = self.entry(self.l1_at + (block / PER_TABLE) as usize * 8)? & OFFSET;
        if table == 0 {
            return Ok(BlockPlace::Below);
        }
        let table = table.checked_sub(self.metadata_at).ok_or_else(|| damaged("an L2 table is misplaced"))?;
        let entry = self.entry(table as usize + (block % PER_TABLE) as usize * 8)?;
        Ok(match entry & OFFSET {
            _ if entry & ZERO != 0 => BlockPlace::Zero,
            0 => BlockPlace::Below,
            offset => BlockPlace::At(offset),
        })
    }
}

impl<'a> Delta<'a> {
    /// Verifies the header and the metadata of `file`.
    ///
    /// # Errors
    /// `InvalidData`, with the reason, for what is damaged or was not written by [`DeltaWriter`](super::DeltaWriter);
    /// others when it cannot be read.
    pub(crate) fn open(file: &'a File) -> io::Result<Self> {
        Ok(Self::of(file, Arc::new(DeltaTables::read(file)?)))
    }

    /// The delta in `file`, which has these tables.
    pub(crate) fn of(file: &'a File, tables: Arc<DeltaTables>) -> Self {
        Self { file, tables }
    }

    /// The tables, which do not borrow the file.
    pub(crate) fn into_tables(self) -> Arc<DeltaTables> {
        self.tables
    }

    /// Reads the contents and compares them with their sum, if the file is not in the state in which they were right
    /// the last time. Does nothing on a filesystem that cannot remember that, and where there is no sum.
    ///
    /// # Errors
    /// `InvalidData` when they are damaged; others when they cannot be read.
    pub(crate) fn verify_contents(&self) -> io::Result<()> {
        if self.tables.content_sum.is_none() {
            return Ok(());
        }
        let state = ContentState::of(self.file, self.tables.sum.bytes())?;
        match content_state::remembered(self.file)? {
            Remembered::Unsupported => return Ok(()),
            Remembered::Bytes(found) if found == state.bytes() => return Ok(()),
            _ => {}
        }
        if !self.are_contents_right()? {
            return Err(damaged("the checksum of its contents is wrong"));
        }
        content_state::remember(self.file, state.bytes());
        Ok(())
    }

    /// Reads the contents and compares them with their sum.
    pub(super) fn are_contents_right(&self) -> io::Result<bool> {
        let Some(sum) = self.tables.content_sum else { return Ok(true) };
        Ok(contents::sum(sum.kind(), self.file, self.tables.metadata_at)? == sum)
    }

    /// Whether the contents were right in the state in which the file is.
    #[cfg(test)]
    pub(super) fn are_contents_known(&self) -> io::Result<bool> {
        let state = ContentState::of(self.file, self.tables.sum.bytes())?;
        let found = content_state::remembered(self.file)?;
        Ok(matches!(found, Remembered::Bytes(found) if found == state.bytes()))
    }
}

/// The blocks of the delta alone; those that it leaves to the file below cannot be read.
impl BlockSource for Delta<'_> {
    fn read_blocks(&self, first: u64, blocks: &mut [u8]) -> io::Result<()> {
        for (block, bytes) in (first..).zip(blocks.chunks_exact_mut(CLUSTER as usize)) {
            match self.tables.place(block)? {
                BlockPlace::Below => return Err(damaged("the delta does not hold the block")),
                BlockPlace::Zero => bytes.fill(0),
                BlockPlace::At(offset) => self.file.read_exact_at(bytes, offset)?,
            }
        }
        Ok(())
    }
}

/// A whole disk image with the deltas over it.
#[derive(Debug)]
pub(crate) struct ChainSource<'a> {
    /// The topmost first.
    pub(crate) deltas: Vec<Delta<'a>>,
    pub(crate) disk_image: &'a File,
}

impl<'a> ChainSource<'a> {
    /// The file, and the offset in it, that holds the block; `None` for zeros.
    fn place(&self, block: u64) -> io::Result<Option<(&'a File, u64)>> {
        for delta in &self.deltas {
            match delta.tables.place(block)? {
                BlockPlace::Below => {}
                BlockPlace::Zero => return Ok(None),
                BlockPlace::At(offset) => return Ok(Some((delta.file, offset))),
            }
        }
        Ok(Some((self.disk_image, block * CLUSTER)))
    }
}

/// Where a file holds bytes, for questions in ascending order.
#[derive(Debug, Default)]
pub(crate) struct DataCursor {
    /// Nothing lies between this and `run`.
    asked: u64,
    run: Range<u64>,
}

impl DataCursor {
    /// Whether `file` holds anything but holes in `wanted`.
    fn holds(&mut self, file: &File, wanted: Range<u64>) -> io::Result<bool> {
        if wanted.start < self.asked || wanted.start >= self.run.end {
            self.asked = wanted.start;
            self.run = match rustix::fs::seek(file, SeekFrom::Data(wanted.start)) {
                Ok(start) => start..rustix::fs::seek(file, SeekFrom::Hole(start))?,
                Err(rustix::io::Errno::NXIO) => u64::MAX..u64::MAX,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(self.run.start < wanted.end)
    }
}

impl ChainSource<'_> {
    /// Whether any of the blocks is held by a file, and is not a hole of it.
    pub(crate) fn holds(&self, blocks: Range<u64>, data: &mut DataCursor) -> io::Result<bool> {
        for block in blocks {
            let held = match self.place(block)? {
                None => false,
                Some((file, offset)) if std::ptr::eq(file, self.disk_image) => {
                    data.holds(file, offset..offset + CLUSTER)?
                }
                Some(_) => true,
            };
            if held {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl BlockSource for ChainSource<'_> {
    fn read_blocks(&self, first: u64, blocks: &mut [u8]) -> io::Result<()> {
        let count = blocks.len() as u64 / CLUSTER;
        let mut done = 0;
        while done < count {
            let place = self.place(first + done)?;
            let mut run = 1;
            // One read for blocks that lie beside each other.
            while done + run < count && follows(place, self.place(first + done + run)?, run) {
                run += 1;
            }
            let bytes = &mut blocks[(done * CLUSTER) as usize..((done + run) * CLUSTER) as usize];
            match place {
                Some((file, offset)) => file.read_exact_at(bytes, offset)?,
                None => bytes.fill(0),
            }
            done += run;
        }
        Ok(())
    }
}

fn follows(place: Option<(&File, u64)>, next: Option<(&File, u64)>, after: u64) -> bool {
    match (place, next) {
        (Some((file, offset)), Some((other, next))) => {
            std::ptr::eq(file, other) && next == offset + after * CLUSTER
        }
        (None, None) => true,
        _ => false,
    }
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}
