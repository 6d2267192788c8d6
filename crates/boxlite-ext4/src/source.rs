//! The two ends of a build: blocks that can be read, and blocks that are written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};

use crate::BLOCK_SIZE;

/// A file system that can be read block by block: a disk image, or a chain of deltas over one, flattened.
pub trait BlockSource {
    /// Reads whole blocks from block number `first` on; the length of `blocks` is a multiple of [`BLOCK_SIZE`].
    ///
    /// The bytes must not change while a build reads them.
    ///
    /// # Errors
    ///
    /// Blocks that cannot be read, those past the end of the device included.
    fn read_blocks(&self, first: u64, blocks: &mut [u8]) -> io::Result<()>;
}

/// The blocks that a build writes.
///
/// The sequence of calls depends on the layers and the file system below alone, so a sink that is a function of its
/// calls is deterministic, too.
pub trait BlockSink {
    /// Writes whole blocks from block number `first` on; a later call for the same block wins.
    ///
    /// Many blocks are zero, those of removed inodes for example; a sink that can say so need not store them.
    ///
    /// # Errors
    ///
    /// Blocks that cannot be written; the build ends with them.
    fn write_blocks(&mut self, first: u64, blocks: &[u8]) -> io::Result<()>;

    /// Forgets what was written to some blocks: the content of free blocks does not matter, but the content of
    /// removed files must not stay. Blocks may be discarded that were never written.
    ///
    /// # Errors
    ///
    /// Blocks that cannot be cleared; the build ends with them.
    fn discard_blocks(&mut self, first: u64, count: u64) -> io::Result<()>;
}

impl BlockSource for File {
    fn read_blocks(&self, first: u64, blocks: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(blocks, first * BLOCK_SIZE as u64)
    }
}

/// Writes blocks to their place in a raw image; discarding punches holes.
impl BlockSink for &File {
    fn write_blocks(&mut self, first: u64, blocks: &[u8]) -> io::Result<()> {
        self.write_all_at(blocks, first * BLOCK_SIZE as u64)
    }

    fn discard_blocks(&mut self, first: u64, count: u64) -> io::Result<()> {
        const ZEROS: &[u8] = &[0; 64 * BLOCK_SIZE];
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let (offset, length) = (first * BLOCK_SIZE as u64, count * BLOCK_SIZE as u64);
        if fallocate(&**self, punch, offset, length).is_ok() {
            return Ok(());
        }
        let mut done = 0;
        while done < length {
            let count = (length - done).min(ZEROS.len() as u64);
            self.write_all_at(&ZEROS[..count as usize], offset + done)?;
            done += count;
        }
        Ok(())
    }
}
