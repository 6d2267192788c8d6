//! The writing end of a build: new blocks appended through one large buffer, metadata written in place.

mod extent_tree;
mod space;

use std::io;
use std::ops::ControlFlow;

use crate::BuildProgress;
use crate::error::BelowError;
use crate::format::{BLOCK, FileExtent, extents};
use crate::source::BlockSink;

pub(crate) use extent_tree::write_extents;
pub(crate) use space::BlockSpace;

/// Bytes collected before they are written: few enough that the second-level cache still holds them when they are.
const BUFFER: usize = 256 << 10;
/// Bytes written between two calls of the observer, at most (and one buffer).
const REPORT_EVERY: u64 = 4 << 20;

/// The caller's callback, told of the progress of a build.
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
    Below(BelowError),
}

impl From<BelowError> for ImageWriteError {
    fn from(error: BelowError) -> Self {
        Self::Below(error)
    }
}

/// Gives out blocks and takes them back.
pub(crate) trait Allocate {
    /// Takes up to `want` blocks in one stretch: the first block, and how many; `None` if no block is free.
    fn take(&mut self, want: u64) -> Result<Option<(u64, u64)>, BelowError>;

    /// Makes taken blocks free again.
    fn give_back(&mut self, start: u64, length: u64) -> Result<(), BelowError>;

    /// True if a block in use belongs to the file system below, with the content it has there.
    fn lies_below(&self, block: u64) -> bool;
}

/// An image, or the changes to one, being written.
pub(crate) struct ImageWriter<'a, S> {
    sink: &'a mut dyn BlockSink,
    pub(crate) space: S,
    buffer: Vec<u8>,
    /// Block at which the buffer belongs.
    buffer_at: u64,
    reported: u64,
    observer: BuildObserver<'a>,
    pub(crate) progress: BuildProgress,
}

impl<'a, S: Allocate> ImageWriter<'a, S> {
    pub(crate) fn new(sink: &'a mut dyn BlockSink, space: S, observer: BuildObserver<'a>) -> Self {
        Self {
            sink,
            space,
            buffer: Vec::with_capacity(BUFFER),
            buffer_at: 0,
            reported: 0,
            observer,
            progress: BuildProgress::default(),
        }
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
            let (start, count) = self.space.take(want)?.ok_or(ImageWriteError::Full)?;
            let (now, later) = blocks.split_at(count as usize * BLOCK);
            self.buffered(start, now)?;
            extents::push(extents, logical, start, count as u32);
            logical += count as u32;
            blocks = later;
        }
        Ok(())
    }

    /// Writes one block of metadata to a newly taken place; returns its number.
    pub(crate) fn append_one(&mut self, block: &[u8]) -> Result<u64, ImageWriteError> {
        let place = self.reserve_one()?;
        self.buffered(place, block)?;
        Ok(place)
    }

    /// Takes a block whose number is part of its own checksum; [`Self::buffered`] writes it.
    pub(crate) fn reserve_one(&mut self) -> Result<u64, ImageWriteError> {
        Ok(self.space.take(1)?.ok_or(ImageWriteError::Full)?.0)
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

    /// Passes the buffer on.
    pub(crate) fn flush(&mut self) -> Result<(), ImageWriteError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.write(self.buffer_at, &buffer);
        self.buffer = buffer;
        self.buffer.clear();
        written
    }

    /// Writes blocks that were taken before, past the buffer.
    pub(crate) fn write(&mut self, start: u64, blocks: &[u8]) -> Result<(), ImageWriteError> {
        let offset = start * BLOCK as u64;
        self.sink.write_blocks(start, blocks).map_err(|source| ImageWriteError::Write { offset, source })?;
        self.progress.written += blocks.len() as u64;
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

    /// Gives extents back to the allocator and discards what was written to them.
    pub(crate) fn give_back(&mut self, extents: &[FileExtent]) -> Result<(), ImageWriteError> {
        let buffered = self.buffer_at..self.buffer_at + (self.buffer.len() / BLOCK) as u64;
        for extent in extents {
            let (start, count) = (extent.physical, u64::from(extent.length));
            if start < buffered.end && start + count > buffered.start {
                self.flush()?;
            }
            let below = self.space.lies_below(start);
            self.space.give_back(start, count)?;
            if !below {
                self.sink
                    .discard_blocks(start, count)
                    .map_err(|source| ImageWriteError::Write { offset: start * BLOCK as u64, source })?;
            }
        }
        Ok(())
    }
}
