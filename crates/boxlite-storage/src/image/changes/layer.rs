//! A layer that is being written: an archive that is hashed and compressed on its way into `images/tmp`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use boxlite_archive::tree::TreeFile;
use boxlite_home::durable::Staged;
use boxlite_home::lease::Leased;
use boxlite_types::{ChangeKind, Digest, Doing, Error, Result};
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::BoxChanges;
use super::archive::{write_files, write_whiteout, writing};
use crate::image::{Blobs, Images, WriteSpace};

/// A layer that is whole, durable and leased.
#[derive(Debug)]
pub(crate) struct FinishedLayer {
    pub(crate) digest: Digest,
    pub(crate) diff_id: Digest,
    pub(crate) length: u64,
    pub(crate) leased: Leased,
}

/// A layer on its way into the store. Dropping it removes what was written.
pub(crate) struct LayerWriter {
    out: HashedWriter<EvenWriter<GzEncoder<HashedWriter<StagedWriter>>>>,
    blobs: Blobs,
}

impl LayerWriter {
    /// Begins a layer in the home of `images`.
    ///
    /// # Errors
    /// `ResourceExhausted` where the disk is too full already.
    pub(crate) fn begin(images: &Images) -> Result<Self> {
        let room = images.room(Vec::new())?;
        room.reserve(0)?;
        let staged = Staged::create(&images.home().tmp(), "layer")?;
        let stored = HashedWriter::new(StagedWriter { staged, room, written: 0 });
        let packed = flate2::GzBuilder::new().write(stored, flate2::Compression::default());
        Ok(Self {
            out: HashedWriter::new(EvenWriter { inner: packed, piece: Vec::new() }),
            blobs: images.blobs().clone(),
        })
    }

    /// Writes the changed files of a box, which its guest sends through `from` in the order of the selection, and
    /// whiteouts for what is gone. `most` bounds the bytes of the files, holes included.
    pub(crate) fn changes(
        &mut self,
        files: &[TreeFile],
        changes: &BoxChanges,
        from: &mut impl Read,
        most: u64,
    ) -> Result<()> {
        for (path, _) in changes.all.iter().filter(|(_, kind)| **kind == ChangeKind::Deleted) {
            write_whiteout(&mut self.out, path)?;
        }
        let selected: Vec<&TreeFile> = changes.selected.iter().map(|place| &files[*place as usize]).collect();
        write_files(&mut self.out, &selected, from, most, Some(changes))
    }

    /// Copies a whole tar stream.
    pub(crate) fn copy(&mut self, mut from: impl Read) -> Result<()> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(got) => self.out.write_all(&buffer[..got]).map_err(writing)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(super::super::load::unreadable(error)),
            }
        }
    }

    /// Ends a layer of files.
    pub(crate) fn finish(mut self) -> Result<FinishedLayer> {
        self.out.write_all(&[0; 1024]).map_err(writing)?;
        self.finish_as_it_is()
    }

    /// Ends a layer that has its end, and publishes its blob.
    pub(crate) fn finish_as_it_is(self) -> Result<FinishedLayer> {
        let (even, diff_id) = self.out.finish();
        let (stored, digest) = even.finish().and_then(GzEncoder::finish).map_err(writing)?.finish();
        let StagedWriter { staged, written, .. } = stored;
        let path = self.blobs.path(digest);
        // One that is there has the same bytes.
        let leased = if let Some(leased) = self.blobs.lease(digest, Some(written))? {
            leased
        } else {
            drop(staged.publish(&path)?);
            let gone = || Error::conflict("the new layer was removed as soon as it was there").at(&path);
            self.blobs.lease(digest, Some(written))?.ok_or_else(gone)?
        };
        Ok(FinishedLayer { digest, diff_id, length: written, leased })
    }
}

/// Hashes what passes through it.
struct HashedWriter<W> {
    inner: W,
    hasher: Sha256,
}

impl<W: Write> HashedWriter<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    fn finish(self) -> (W, Digest) {
        (self.inner, Digest::finish(self.hasher))
    }
}

impl<W: Write> Write for HashedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Passes on pieces of one size, because what a compressor makes of its input depends on how that is cut.
struct EvenWriter<W> {
    inner: W,
    piece: Vec<u8>,
}

impl<W: Write> EvenWriter<W> {
    const PIECE: usize = 256 << 10;

    fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&self.piece)?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for EvenWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(Self::PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == Self::PIECE {
            self.inner.write_all(&self.piece)?;
            self.piece.clear();
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a staged file as far as there is room.
struct StagedWriter {
    staged: Staged,
    room: WriteSpace,
    written: u64,
}

impl Write for StagedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room.about_to_write(bytes.len() as u64)?;
        let file: &File = self.staged.file();
        file.write_all_at(bytes, self.written).doing("writing", self.staged.path())?;
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
