//! The image file: blocks appended in order through one large buffer, metadata written in place.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};

use super::extents::{self, FileExtent};
use super::space::BlockSpace;
use super::{BLOCK, Geometry};
use crate::BuildProgress;

/// Bytes collected before they are written.
const BUFFER: usize = 1 << 20;
/// Bytes written between two calls of the observer, at most (and one buffer).
const REPORT_EVERY: u64 = 4 << 20;

/// The caller's look at a build under way.
pub(crate) type BuildObserver<'a> = &'a mut dyn FnMut(&BuildProgress) -> ControlFlow<()>;

#[derive(Debug)]
pub(crate) enum ImageWriteError {
    /// The virtual size is used up.
    Full,
    Write {
        offset: u64,
        source: io::Error,
    },
    Aborted,
}

/// An image being written.
pub(crate) struct ImageWriter<'a> {
    file: &'a File,
    space: BlockSpace,
    buffer: Vec<u8>,
    /// Block at which the buffer belongs.
    buffer_at: u64,
    reported: u64,
    observer: BuildObserver<'a>,
    pub(crate) progress: BuildProgress,
}

impl<'a> ImageWriter<'a> {
    pub(crate) fn new(file: &'a File, geometry: &Geometry, observer: BuildObserver<'a>) -> Self {
        Self {
            file,
            space: BlockSpace::new(geometry),
            buffer: Vec::with_capacity(BUFFER),
            buffer_at: 0,
            reported: 0,
            observer,
            progress: BuildProgress::default(),
        }
    }

    pub(crate) fn space(&self) -> &BlockSpace {
        &self.space
    }

    pub(crate) fn space_mut(&mut self) -> &mut BlockSpace {
        &mut self.space
    }

    /// Writes whole blocks to newly taken places and adds those to `extents` from a logical block on.
    pub(crate) fn append(
        &mut self,
        mut blocks: &[u8],
        mut logical: u32,
        extents: &mut Vec<FileExtent>,
    ) -> Result<(), ImageWriteError> {
        while !blocks.is_empty() {
            let want = (blocks.len() / BLOCK) as u64;
            let (start, count) = self.space.take(want).ok_or(ImageWriteError::Full)?;
            let (now, later) = blocks.split_at(count as usize * BLOCK);
            self.buffered(start, now)?;
            extents::push(extents, logical, start, count as u32);
            logical += count as u32;
            blocks = later;
        }
        Ok(())
    }

    /// Writes one block of metadata to a newly taken place; returns where.
    pub(crate) fn append_one(&mut self, block: &[u8]) -> Result<u64, ImageWriteError> {
        let place = self.reserve_one()?;
        self.buffered(place, block)?;
        Ok(place)
    }

    /// Takes a block whose number goes into its own checksum; [`Self::buffered`] writes it.
    pub(crate) fn reserve_one(&mut self) -> Result<u64, ImageWriteError> {
        Ok(self.space.take(1).ok_or(ImageWriteError::Full)?.0)
    }

    /// Writes blocks that were taken before, through the buffer.
    pub(crate) fn buffered(&mut self, start: u64, mut blocks: &[u8]) -> Result<(), ImageWriteError> {
        let mut at = start;
        while !blocks.is_empty() {
            let follows = self.buffer_at + (self.buffer.len() / BLOCK) as u64 == at;
            if !follows || self.buffer.len() == BUFFER {
                self.flush()?;
                self.buffer_at = at;
            }
            let (now, later) = blocks.split_at(blocks.len().min(BUFFER - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            at += (now.len() / BLOCK) as u64;
            blocks = later;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), ImageWriteError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.write_at(self.buffer_at * BLOCK as u64, &buffer);
        self.buffer = buffer;
        self.buffer.clear();
        written
    }

    /// Writes bytes in place.
    pub(crate) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ImageWriteError> {
        self.file.write_all_at(bytes, offset).map_err(|source| ImageWriteError::Write { offset, source })?;
        self.progress.written += bytes.len() as u64;
        if self.progress.written - self.reported >= REPORT_EVERY {
            self.report()?;
        }
        Ok(())
    }

    /// Calls the observer.
    pub(crate) fn report(&mut self) -> Result<(), ImageWriteError> {
        self.reported = self.progress.written;
        match (self.observer)(&self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ImageWriteError::Aborted),
        }
    }

    /// Gives extents back, to the allocator and as holes to the file's own file system.
    pub(crate) fn give_back(&mut self, extents: &[FileExtent]) -> Result<(), ImageWriteError> {
        let buffered = self.buffer_at..self.buffer_at + (self.buffer.len() / BLOCK) as u64;
        for extent in extents {
            let end = extent.physical + u64::from(extent.length);
            if extent.physical < buffered.end && end > buffered.start {
                self.flush()?;
            }
            self.space.give_back(extent.physical, u64::from(extent.length));
            self.clear(extent.physical * BLOCK as u64, u64::from(extent.length) * BLOCK as u64)?;
        }
        Ok(())
    }

    /// Zeroes a stretch: free blocks must not depend on what once was in them.
    fn clear(&mut self, offset: u64, length: u64) -> Result<(), ImageWriteError> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if fallocate(self.file, punch, offset, length).is_ok() {
            return Ok(());
        }
        let zeros = vec![0; BUFFER.min(length as usize)];
        let mut done = 0;
        while done < length {
            let count = (length - done).min(zeros.len() as u64);
            self.write_at(offset + done, &zeros[..count as usize])?;
            done += count;
        }
        Ok(())
    }
}
