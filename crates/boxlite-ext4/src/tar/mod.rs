//! A bounded tar reader, exact to the byte: names, links and attributes are bytes throughout.
//!
//! Formats: POSIX.1-2001 pax, ustar, GNU (long names, sparse), star prefixes, V7. Where readers in the field
//! disagree, this one follows Go's `archive/tar`, since that is what layers are written for: the pax size governs
//! the position of the next header, links, devices and directories carry no data whatever their size field says,
//! global headers have no effect, two zero blocks end the archive, and so does a stream that ends between two entries or
//! in what fills up the last block of one.

mod entry;
mod header;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;
mod value;

use std::io::{self, BufRead};

pub(crate) use entry::{TarEntry, TarEntryKind};
use header::{BLOCK, TarHeader};
pub(crate) use value::{SparseSegment, Timestamp};

/// Longest pax header, long name or sparse map in bytes, as in Go.
const MAX_SPECIAL: u64 = 1 << 20;

/// Reason why an archive cannot be read further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    /// The stream itself failed.
    #[error("the stream failed")]
    Io(#[from] io::Error),
    /// The stream ended inside something.
    #[error("the archive ends at byte {0}, inside an entry")]
    Truncated(u64),
    /// The bytes are not a tar archive.
    #[error("{reason} (header at byte {position})")]
    Corrupt { position: u64, reason: String },
    /// A well-formed entry of a kind that has no meaning in a layer.
    #[error("{reason}")]
    Unsupported { name: Vec<u8>, reason: String },
}

/// Reads entries one after the other from an uncompressed stream.
pub(crate) struct TarReader<R> {
    stream: R,
    position: u64,
    /// Stored bytes of the current entry not yet consumed.
    remaining: u64,
    padding: u64,
    ended: bool,
}

impl<R: BufRead> TarReader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, position: 0, remaining: 0, padding: 0, ended: false }
    }

    /// The stream, for whatever follows the archive.
    pub(crate) fn into_inner(self) -> R {
        self.stream
    }

    /// The stream as it stands, to ask it how far it is or why it failed.
    pub(crate) fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// The next entry, skipping what is left of the one before; `None` at the end of the archive.
    pub(crate) fn next_entry(&mut self) -> Result<Option<TarEntry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let mut records = pax::PaxRecords::default();
        let mut long_name = None;
        let mut long_link = None;
        let mut extended = false;
        loop {
            self.skip(self.remaining)?;
            self.remaining = 0;
            self.skip_padding()?;
            let start = self.position;
            let corrupt = |reason: &str| TarError::Corrupt { position: start, reason: reason.to_owned() };
            let Some(block) = self.header_block()? else {
                self.ended = true;
                return if extended { Err(TarError::Truncated(self.position)) } else { Ok(None) };
            };
            let header = TarHeader::parse(&block).map_err(corrupt)?;
            match header.typeflag {
                b'x' | b'g' => {
                    let bytes = self.special(&header, start)?;
                    let parsed = pax::PaxRecords::parse(&bytes).map_err(corrupt)?;
                    if header.typeflag == b'x' {
                        records = parsed;
                        extended = true;
                    }
                }
                b'L' => {
                    long_name = Some(until_nul(self.special(&header, start)?));
                    extended = true;
                }
                b'K' => {
                    long_link = Some(until_nul(self.special(&header, start)?));
                    extended = true;
                }
                _ => {
                    let (mut entry, stored) = TarEntry::assemble(&header, &records, long_name, long_link)
                        .map_err(|refused| match refused {
                            entry::AssembleError::Corrupt(reason) => corrupt(&reason),
                            entry::AssembleError::Unsupported { name, reason } => {
                                TarError::Unsupported { name, reason }
                            }
                        })?;
                    self.remaining = stored;
                    self.padding = padding(stored);
                    if entry.kind == TarEntryKind::File {
                        self.sparse_map(&header, &records, &mut entry, start)?;
                    }
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Some of the stored data of the current entry, empty at its end. Follow it by [`Self::consume`].
    pub(crate) fn data(&mut self) -> Result<&[u8], TarError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let position = self.position;
        let available = self.stream.fill_buf()?;
        if available.is_empty() {
            return Err(TarError::Truncated(position));
        }
        let count = usize::try_from(self.remaining).map_or(available.len(), |left| left.min(available.len()));
        Ok(&available[..count])
    }

    /// Marks bytes of [`Self::data`] as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.stream.consume(count);
        self.position += count as u64;
        self.remaining -= count as u64;
    }

    fn skip(&mut self, mut count: u64) -> Result<(), TarError> {
        while count > 0 {
            let available = self.stream.fill_buf()?.len();
            if available == 0 {
                return Err(TarError::Truncated(self.position));
            }
            let step = usize::try_from(count).map_or(available, |count| count.min(available));
            self.stream.consume(step);
            self.position += step as u64;
            count -= step as u64;
        }
        Ok(())
    }

    /// Skips what fills up the last block of an entry. `umoci insert` leaves it out after the last entry of an archive,
    /// which then ends there.
    fn skip_padding(&mut self) -> Result<(), TarError> {
        while self.padding > 0 {
            let available = self.stream.fill_buf()?.len() as u64;
            if available == 0 {
                self.padding = 0;
                break;
            }
            let step = self.padding.min(available);
            self.stream.consume(step as usize);
            self.position += step;
            self.padding -= step;
        }
        Ok(())
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let available = self.stream.fill_buf()?;
            if available.is_empty() {
                return Err(TarError::Truncated(self.position));
            }
            let step = available.len().min(buffer.len() - filled);
            buffer[filled..filled + step].copy_from_slice(&available[..step]);
            self.stream.consume(step);
            self.position += step as u64;
            filled += step;
        }
        Ok(())
    }

    /// The next header block; `None` at the end mark, or where the stream ends between entries.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.stream.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let start = self.position;
        let mut block = [0; BLOCK];
        self.exact(&mut block)?;
        if block.iter().any(|&byte| byte != 0) {
            return Ok(Some(block));
        }
        if self.stream.fill_buf()?.is_empty() {
            return Ok(None);
        }
        self.exact(&mut block)?;
        if block.iter().any(|&byte| byte != 0) {
            let reason = "a single zero block is followed by more".to_owned();
            return Err(TarError::Corrupt { position: start, reason });
        }
        Ok(None)
    }

    /// The body of a header that describes the next one.
    fn special(&mut self, header: &TarHeader<'_>, start: u64) -> Result<Vec<u8>, TarError> {
        if header.size > MAX_SPECIAL {
            let reason =
                format!("an extended header of {} bytes, at most {MAX_SPECIAL} are read", header.size);
            return Err(TarError::Corrupt { position: start, reason });
        }
        let mut body = vec![0; header.size as usize];
        self.exact(&mut body)?;
        self.skip(padding(header.size))?;
        Ok(body)
    }

    fn sparse_map(
        &mut self,
        header: &TarHeader<'_>,
        records: &pax::PaxRecords,
        entry: &mut TarEntry,
        start: u64,
    ) -> Result<(), TarError> {
        let corrupt = |reason: String| TarError::Corrupt { position: start, reason };
        let segments = if header.typeflag == b'S' {
            let (mut segments, mut more) =
                header.sparse_entries().map_err(|reason| corrupt(reason.to_owned()))?;
            while more {
                let mut block = [0; BLOCK];
                self.exact(&mut block)?;
                more = header::sparse_extension(&block, &mut segments)
                    .map_err(|reason| corrupt(reason.to_owned()))?;
                if segments.len() as u64 > MAX_SPECIAL / 24 {
                    return Err(corrupt("a sparse map beyond any honest size".to_owned()));
                }
            }
            segments
        } else if let Some(inline) = records.sparse_inline().map_err(|reason| corrupt(reason.to_owned()))? {
            inline
        } else if records.sparse_map_in_data() {
            self.sparse_map_from_data().map_err(|error| match error {
                TarError::Corrupt { reason, .. } => corrupt(reason),
                other => other,
            })?
        } else {
            entry.size = self.remaining;
            return Ok(());
        };
        let segments = sparse::validated(segments, entry.size, self.remaining).map_err(corrupt)?;
        entry.segments = Some(segments);
        Ok(())
    }

    /// The map of GNU sparse format 1.0: decimal lines at the start of the data, padded to a block.
    fn sparse_map_from_data(&mut self) -> Result<Vec<SparseSegment>, TarError> {
        let start = self.position;
        let corrupt = |reason: &str| TarError::Corrupt { position: start, reason: reason.to_owned() };
        let mut map = sparse::MapParser::default();
        loop {
            if self.remaining < BLOCK as u64 {
                return Err(corrupt("the sparse map is longer than its data"));
            }
            if self.position - start >= MAX_SPECIAL {
                return Err(corrupt("a sparse map beyond any honest size"));
            }
            let mut block = [0; BLOCK];
            self.exact(&mut block)?;
            self.remaining -= BLOCK as u64;
            if map.feed(&block).map_err(corrupt)? {
                return Ok(map.into_segments());
            }
        }
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
        bytes.truncate(end);
    }
    bytes
}
