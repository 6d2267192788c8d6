//! A segment's file as a compressed blob, and back.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use boxlite_home::durable::Staged;
use boxlite_home::lease::Leased;
use boxlite_types::{Digest, Doing, Error, Result};
use sha2::{Digest as _, Sha256};

use super::document::SegmentEntry;
use super::stream;
use crate::image::{Images, WriteSpace};

/// How hard the blob is compressed. The same level of the same library gives the same bytes.
const LEVEL: i32 = 3;
/// Bytes of an expanded piece, and how many of them may wait.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 4;

/// The blob of a segment, which the home holds as long as this lives.
#[derive(Debug)]
pub(super) struct PackedSegment {
    pub(super) content: Digest,
    pub(super) stream_length: u64,
    pub(super) blob: Digest,
    pub(super) blob_length: u64,
    pub(super) leased: Arc<Leased>,
}

/// Packs a segment's file into a blob of the home; blocks.
///
/// # Errors
/// `ResourceExhausted` where the disk is too full.
pub(super) fn pack(images: &Images, segment: &Leased, keep: Vec<String>) -> Result<PackedSegment> {
    let (file, path) = (segment.file(), segment.path());
    let length = file.metadata().doing("examining", path)?.len();
    let room = images.room(keep)?;
    room.reserve(0)?;
    let staged = Staged::create(&images.home().tmp(), "artifact")?;
    let packing = |error: io::Error| own(error).unwrap_or_else(|error| Error::io("packing", path, error));
    let blob = HashingWriter::new(PackedWriter { staged, room, written: 0 });
    let mut out = HashingWriter::new(zstd::Encoder::new(blob, LEVEL).map_err(packing)?);
    stream::write(file, length, &mut out).map_err(packing)?;
    let (encoder, content, stream_length) = out.finish();
    let (PackedWriter { staged, .. }, blob, blob_length) = encoder.finish().map_err(packing)?.finish();
    let at = images.blobs().path(blob);
    let leased = if let Some(leased) = images.blobs().lease(blob, Some(blob_length))? {
        leased
    } else {
        drop(staged.publish(&at)?);
        let gone = || Error::conflict("a packed disk image was removed as soon as it was there").at(&at);
        images.blobs().lease(blob, Some(blob_length))?.ok_or_else(gone)?
    };
    Ok(PackedSegment { content, stream_length, blob, blob_length, leased: Arc::new(leased) })
}

/// Writes the file of a segment from its blob, whose bytes are those of its digest, into `staged`; blocks. Another thread
/// expands the blob meanwhile.
///
/// # Errors
/// `Corrupt` when the contents are not those that `entry` promises; `ResourceExhausted` where the disk is too full.
pub(super) fn unpack(entry: &SegmentEntry, blob: &Leased, room: &WriteSpace, staged: &Staged) -> Result<()> {
    let unpacking = |error: io::Error| match own(error) {
        Ok(own) => own,
        // Faults that the decoder and the reader find are no errors of the system's.
        Err(error) if error.raw_os_error().is_none() => {
            Error::corrupt(format!("the segment {} of a built disk image is malformed", entry.name))
                .because(error)
        }
        Err(error) => Error::io("unpacking", staged.path(), error),
    };
    staged.file().set_len(0).doing("emptying the unfinished file", staged.path())?;
    room.reserve(entry.stream_length)?;
    let packed = PackedReader { blob: blob.file(), at: 0 };
    // One byte more than there may be is enough to see that there are too many.
    let most = entry.stream_length.saturating_add(1);
    let (content, length) = thread::scope(|scope| {
        let (pieces_in, pieces) = sync_channel(AHEAD);
        scope.spawn(move || expand(packed, most, &pieces_in));
        // It is dropped with the closure, which ends the thread.
        let mut source = HashingReader::new(ExpandedReader { pieces, piece: Vec::new(), used: 0 });
        let before = |bytes| room.about_to_write(bytes).map_err(io::Error::from);
        stream::read(&mut source, entry.length, staged.file(), before)?;
        Ok((Digest::finish(source.hasher), source.length))
    })
    .map_err(unpacking)?;
    if (content, length) == (entry.content, entry.stream_length) {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the segment {} of a built disk image has other contents than its description says",
        entry.name
    )))
}

/// The error of ours that the other one carries, if it does.
fn own(error: io::Error) -> Result<Error, io::Error> {
    error.downcast::<Error>()
}

/// Sends at most `most` bytes of what the blob expands to, until they end or nobody listens.
fn expand(packed: PackedReader<'_>, most: u64, pieces: &SyncSender<io::Result<Vec<u8>>>) {
    let reader = BufReader::with_capacity(128 << 10, packed);
    let mut expanded = match zstd::Decoder::with_buffer(reader) {
        Ok(decoder) => decoder.take(most),
        Err(error) => return drop(pieces.send(Err(error))),
    };
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = expanded.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let is_last = read.as_ref().map_or(true, |count| *count == 0);
        if pieces.send(read.map(|_| piece)).is_err() || is_last {
            return;
        }
    }
}

/// What [`expand`] sends.
struct ExpandedReader {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    used: usize,
}

impl Read for ExpandedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.piece.len() {
            let ended = || Err(io::Error::other("the expanding thread ended early"));
            (self.piece, self.used) = (self.pieces.recv().unwrap_or_else(|_| ended())?, 0);
        }
        let available = &self.piece[self.used..];
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.used += count;
        Ok(count)
    }
}

/// Hashes and counts what passes through it.
struct HashingWriter<W> {
    inner: W,
    hasher: Sha256,
    length: u64,
}

impl<W: Write> HashingWriter<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), length: 0 }
    }

    fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest::finish(self.hasher), self.length)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The same for what is read.
struct HashingReader<R> {
    inner: R,
    hasher: Sha256,
    length: u64,
}

impl<R: Read> HashingReader<R> {
    fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new(), length: 0 }
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }
}

/// The staged file of a blob.
struct PackedWriter {
    staged: Staged,
    room: WriteSpace,
    written: u64,
}

impl Write for PackedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room.about_to_write(bytes.len() as u64)?;
        self.staged.file().write_all_at(bytes, self.written).doing("writing", self.staged.path())?;
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a blob from its start.
struct PackedReader<'a> {
    blob: &'a File,
    at: u64,
}

impl Read for PackedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
