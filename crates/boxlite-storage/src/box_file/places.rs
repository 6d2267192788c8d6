//! Where the bytes of a box's disk are: in which of its overlays and bases, or in its disk image.
//!
//! Overlays and bases were written by QEMU, which a guest may have taken over, so reads are bounded: a table that is no
//! table makes the disk corrupt, and an offset can only lead to bytes of the same file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use boxlite_ext4::BlockSource;
use boxlite_types::{Doing, Error, Result};

use super::layout::{PER_TABLE, ZEROS};
use crate::disk::image_chain::ImageChain;
use crate::disk::qcow2::delta::{CLUSTER as BLOCK_SIZE, ChainSource, DataCursor};
use crate::disk::qcow2::{CLUSTER, MAX_VIRTUAL_SIZE, PER_L1_ENTRY, Qcow2Header, header};

/// The bits of an entry that are an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;

/// Where the header keeps the encryption, the length and offset of the L1 table, and the incompatible features.
const ENCRYPTION_AT: usize = 32;
const L1_ENTRIES_AT: usize = 36;
const L1_AT: usize = 40;
const FEATURES_AT: usize = 72;
/// Incompatible features with which a file can be read as one without them: its refcounts need not be right.
const DIRTY: u64 = 1;

/// The disk of a box, opened: what becomes of its names after that does not matter.
#[derive(Debug)]
pub struct DiskSource {
    /// The topmost first.
    overlays: Vec<OverlayTables>,
    /// Below them; none of a disk that stands on nothing.
    image: Option<ImageChain>,
    virtual_size: u64,
}

/// The place of a cluster of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClusterPlace {
    /// No file holds it.
    Nowhere,
    /// It was cleared.
    Zeros,
    /// In an overlay, at that offset.
    Overlay { index: usize, offset: u64 },
    /// In the disk image.
    Image,
}

impl ClusterPlace {
    /// Whether there is something to read.
    pub(super) fn has_bytes(self) -> bool {
        matches!(self, Self::Overlay { .. } | Self::Image)
    }
}

impl DiskSource {
    /// Opens the disk whose overlay and bases are `paths`, the topmost first; `None` for what stands on nothing of its own.
    /// A disk without any has the image's `virtual_size`.
    ///
    /// # Errors
    /// `Corrupt` for a header that this reader does not know.
    pub fn open(paths: &[PathBuf], image: Option<ImageChain>, virtual_size: u64) -> Result<Self> {
        let overlays: Vec<_> = paths.iter().map(|path| OverlayTables::open(path)).collect::<Result<_>>()?;
        let virtual_size = overlays.first().map_or(virtual_size, |top| top.virtual_size);
        Ok(Self { overlays, image, virtual_size })
    }

    /// Bytes of the disk as the guest sees it.
    pub fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Returns a reader of the disk; with `relative` only of what it holds beyond its disk image.
    pub(super) fn reader(&self, relative: bool) -> Result<DiskReader<'_>> {
        let image = self.image.as_ref().filter(|_| !relative).map(ImageBlocks::of).transpose()?;
        Ok(DiskReader { overlays: &self.overlays, image, virtual_size: self.virtual_size, relative })
    }
}

/// Looks at the clusters of a disk, in ascending order.
pub(super) struct DiskReader<'a> {
    overlays: &'a [OverlayTables],
    image: Option<ImageBlocks<'a>>,
    virtual_size: u64,
    relative: bool,
}

impl DiskReader<'_> {
    /// Returns the places of the clusters of the part `number` of the disk, of 512 MiB each.
    pub(super) fn part(&mut self, number: u64) -> Result<Vec<ClusterPlace>> {
        let first = number * PER_TABLE;
        let count = self.virtual_size.div_ceil(CLUSTER).saturating_sub(first).min(PER_TABLE);
        let mut places = vec![ClusterPlace::Nowhere; count as usize];
        for (index, overlay) in self.overlays.iter().enumerate() {
            let Some(table) = overlay.table(number)? else { continue };
            for (place, entry) in places.iter_mut().zip(table) {
                if *place == ClusterPlace::Nowhere {
                    *place = overlay.place(index, entry)?;
                }
            }
        }
        for (at, place) in (first..).zip(&mut places) {
            *place = match (*place, &mut self.image) {
                (ClusterPlace::Nowhere, Some(image)) => image.place(at)?,
                // A cleared cluster must hide the one below, and in a whole file nothing lies below.
                (ClusterPlace::Zeros, _) if !self.relative => ClusterPlace::Nowhere,
                (place, _) => place,
            };
        }
        Ok(places)
    }

    /// Reads the cluster `number`, which is at `place`; what lies behind the end of a file is zeros.
    pub(super) fn read(&self, number: u64, place: ClusterPlace, cluster: &mut [u8]) -> Result<()> {
        cluster.fill(0);
        match (place, &self.image) {
            (ClusterPlace::Overlay { index, offset }, _) => {
                let overlay = &self.overlays[index];
                // A disk that was made larger later reads as zeros there.
                let end = overlay.virtual_size.saturating_sub(number * CLUSTER).min(CLUSTER) as usize;
                read_as_far(&overlay.file, &mut cluster[..end], offset)
                    .doing("reading the disk", &overlay.path)
            }
            (ClusterPlace::Image, Some(image)) => image.read(number, cluster),
            _ => Ok(()),
        }
    }
}

/// The filesystem of a disk image.
struct ImageBlocks<'a> {
    chain: ChainSource<'a>,
    /// Bytes of it.
    length: u64,
    data: DataCursor,
    path: &'a Path,
}

impl<'a> ImageBlocks<'a> {
    fn of(image: &'a ImageChain) -> Result<Self> {
        let path = image.disk_image().path();
        let length = image.disk_image().file().metadata().doing("examining", path)?.len();
        Ok(Self { chain: image.source(), length, data: DataCursor::default(), path })
    }

    /// The blocks of the cluster `number`, as far as there are any.
    fn blocks(&self, number: u64) -> Range<u64> {
        let all = self.length / BLOCK_SIZE;
        let first = number * CLUSTER / BLOCK_SIZE;
        first.min(all)..(first + CLUSTER / BLOCK_SIZE).min(all)
    }

    fn place(&mut self, number: u64) -> Result<ClusterPlace> {
        let blocks = self.blocks(number);
        let holds = self.chain.holds(blocks, &mut self.data).doing("reading the disk image", self.path)?;
        Ok(if holds { ClusterPlace::Image } else { ClusterPlace::Nowhere })
    }

    fn read(&self, number: u64, cluster: &mut [u8]) -> Result<()> {
        let blocks = self.blocks(number);
        let bytes = ((blocks.end - blocks.start) * BLOCK_SIZE) as usize;
        self.chain.read_blocks(blocks.start, &mut cluster[..bytes]).doing("reading the disk image", self.path)
    }
}

/// An overlay or base: an open file, and its L1 table.
#[derive(Debug)]
struct OverlayTables {
    file: File,
    path: PathBuf,
    virtual_size: u64,
    /// Offsets of the L2 tables, 0 for none.
    tables: Vec<u64>,
}

impl OverlayTables {
    fn open(path: &Path) -> Result<Self> {
        let corrupt = |why: &str| unreadable(path, why);
        let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
        let file = file.doing("opening the disk", path)?;
        let mut start = [0; header::BOUND];
        read_as_far(&file, &mut start, 0).doing("reading the disk", path)?;
        let parsed = Qcow2Header::parse(&start).map_err(|bad| corrupt(&bad.to_string()))?;
        let word = |at: usize| u32::from_be_bytes(start[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_be_bytes(start[at..at + 8].try_into().expect("8 bytes"));
        if parsed.version != 3
            || parsed.cluster != CLUSTER
            || word(ENCRYPTION_AT) != 0
            || long(FEATURES_AT) & !DIRTY != 0
        {
            return Err(corrupt("it is not of boxlite's making"));
        }
        let virtual_size = parsed.virtual_size;
        let entries = u64::from(word(L1_ENTRIES_AT));
        // A table longer than the disk is one of a disk that QEMU has made larger in advance.
        if virtual_size > MAX_VIRTUAL_SIZE
            || entries < virtual_size.div_ceil(PER_L1_ENTRY)
            || entries > MAX_VIRTUAL_SIZE / PER_L1_ENTRY
        {
            return Err(corrupt("its tables do not fit its size"));
        }
        let mut table = vec![0; entries as usize * 8];
        read_as_far(&file, &mut table, long(L1_AT)).doing("reading the disk", path)?;
        let tables = table
            .chunks_exact(8)
            .map(|entry| u64::from_be_bytes(entry.try_into().expect("8 bytes")) & OFFSET);
        Ok(Self { file, path: path.to_owned(), virtual_size, tables: tables.collect() })
    }

    /// The entries of the part `number`; none where the file holds nothing of it.
    fn table(&self, number: u64) -> Result<Option<impl Iterator<Item = u64> + use<>>> {
        let Some(&offset) = self.tables.get(number as usize).filter(|offset| **offset != 0) else {
            return Ok(None);
        };
        let mut table = vec![0; CLUSTER as usize];
        read_as_far(&self.file, &mut table, offset).doing("reading the disk", &self.path)?;
        Ok(Some(
            (0..PER_TABLE as usize)
                .map(move |at| u64::from_be_bytes(table[at * 8..at * 8 + 8].try_into().expect("8 bytes"))),
        ))
    }

    fn place(&self, index: usize, entry: u64) -> Result<ClusterPlace> {
        if entry & COMPRESSED != 0 {
            return Err(unreadable(&self.path, "it has compressed clusters"));
        }
        Ok(match entry & OFFSET {
            _ if entry & ZEROS != 0 => ClusterPlace::Zeros,
            0 => ClusterPlace::Nowhere,
            offset => ClusterPlace::Overlay { index, offset },
        })
    }
}

/// Fills `bytes` from `offset` on as far as the file goes.
fn read_as_far(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn unreadable(path: &Path, why: &str) -> Error {
    Error::corrupt(format!("the disk {} cannot be read: {why}", path.display())).at(path)
}
