//! A file with holes as a stream of bytes: always the same stream for the same bytes, wherever a filesystem has its holes.
//!
//! # Layout
//!
//! ```text
//! "BLXSEG01"  length of the file (u64)
//! for each run of blocks that are not all zeros, by ascending offset:
//!             offset (u64)  length (u32)  bytes
//! end:        length of the file (u64)  0 (u32)
//! ```
//!
//! Numbers are little-endian. A run begins at a multiple of 4 KiB, has no block of zeros, ends where one follows, at the
//! file's end or at a multiple of 1 MiB. So the SHA-256 of the stream stands for the bytes of the file.
//!
//! # Limits
//!
//! The reader believes nothing: runs must ascend and lie within the file, whose length it is told by the caller, and the
//! whole has at most as many bytes as the caller says.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use boxlite_home::durable;
use rustix::fs::SeekFrom;

const MAGIC: &[u8; 8] = b"BLXSEG01";
const BLOCK: usize = 4096;
/// The longest run.
const MAX_RUN: usize = 1 << 20;
/// Bytes that are worth sending to the disk before the fsync.
const MIN_WRITEBACK: usize = 256 << 10;
/// The bytes of a run's offset and length.
pub(super) const RUN_HEAD: usize = 12;

/// Writes the first `length` bytes of `file` as a stream.
pub(super) fn write(file: &File, length: u64, out: &mut impl Write) -> io::Result<()> {
    out.write_all(MAGIC)?;
    out.write_all(&length.to_le_bytes())?;
    let mut buffer = vec![0; MAX_RUN];
    let mut at = 0;
    while at < length {
        at = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data / BLOCK as u64 * BLOCK as u64,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        if at >= length {
            break;
        }
        // Where a run is cut off must not depend on the holes.
        let end = (at / MAX_RUN as u64 + 1) * MAX_RUN as u64;
        let wanted = (end.min(length) - at) as usize;
        file.read_exact_at(&mut buffer[..wanted], at)?;
        let runs = Runs { at, rest: &buffer[..wanted] };
        for (offset, run) in runs {
            out.write_all(&offset.to_le_bytes())?;
            out.write_all(&(run.len() as u32).to_le_bytes())?;
            out.write_all(run)?;
        }
        at += wanted as u64;
    }
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&0_u32.to_le_bytes())
}

/// The runs of a piece of the file that begins at `at`.
struct Runs<'a> {
    at: u64,
    rest: &'a [u8],
}

impl<'a> Iterator for Runs<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
        let skipped: usize =
            self.rest.chunks(BLOCK).take_while(|block| is_zero(block)).map(<[u8]>::len).sum();
        let (_, data) = self.rest.split_at(skipped);
        let length: usize = data.chunks(BLOCK).take_while(|block| !is_zero(block)).map(<[u8]>::len).sum();
        let (run, rest) = data.split_at(length);
        let offset = self.at + skipped as u64;
        *self = Self { at: offset + length as u64, rest };
        (!run.is_empty()).then_some((offset, run))
    }
}

/// Writes the file of a stream into the empty `file`, asking `before` for leave to write so many bytes more.
///
/// # Errors
/// `InvalidData` for what is no stream of a file with `length` bytes; what `before`, reading or writing fails with.
pub(super) fn read(
    source: &mut impl Read,
    length: u64,
    file: &File,
    mut before: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut head = [0; 16];
    source.read_exact(&mut head)?;
    if head[..8] != MAGIC[..] || head[8..] != length.to_le_bytes() {
        return Err(broken("it does not begin as a file of this length does"));
    }
    file.set_len(length)?;
    let mut buffer = vec![0; MAX_RUN];
    let mut end = 0;
    loop {
        let mut head = [0; RUN_HEAD];
        source.read_exact(&mut head)?;
        let (offset, run) = head.split_at(8);
        let offset = u64::from_le_bytes(offset.try_into().map_err(|_| broken("a run has no offset"))?);
        let run = u32::from_le_bytes(run.try_into().map_err(|_| broken("a run has no length"))?) as usize;
        if run == 0 && offset == length {
            break;
        }
        let is_within = offset.checked_add(run as u64).is_some_and(|last| last <= length);
        if run == 0 || run > MAX_RUN || offset < end || !is_within {
            return Err(broken("a run lies outside of the file, or over another"));
        }
        source.read_exact(&mut buffer[..run])?;
        before(run as u64)?;
        file.write_all_at(&buffer[..run], offset)?;
        end = offset + run as u64;
        if run >= MIN_WRITEBACK {
            durable::begin_writeback(file, offset..end);
        }
    }
    match source.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(broken("it goes on after its end")),
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn streamed(file: &File) -> Vec<u8> {
        let mut out = Vec::new();
        write(file, file.metadata().unwrap().len(), &mut out).unwrap();
        out
    }

    fn unpacked(stream: &[u8], length: u64) -> io::Result<File> {
        let file = tempfile::tempfile().unwrap();
        read(&mut &*stream, length, &file, |_| Ok(())).map(|()| file)
    }

    fn bytes(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_same_bytes_give_the_same_stream_and_come_back(
            length in 0_u64..3_000_000,
            pieces in prop::collection::vec((0_u64..3_000_000, 1_usize..1_500_000, 0_u8..3), 0..12),
        ) {
            let (sparse, whole) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
            sparse.set_len(length).unwrap();
            for (at, count, byte) in pieces {
                let count = count.min(length.saturating_sub(at) as usize);
                sparse.write_all_at(&vec![byte; count], at).unwrap();
            }
            whole.write_all_at(&bytes(&sparse), 0).unwrap();
            let stream = streamed(&sparse);
            prop_assert_eq!(&stream, &streamed(&whole));
            let back = unpacked(&stream, length).unwrap();
            prop_assert_eq!(bytes(&back), bytes(&sparse));
            prop_assert_eq!(streamed(&back), stream);
        }
    }

    #[test]
    fn a_stream_that_lies_is_refused() {
        let run = |offset: u64, length: u32| {
            [&offset.to_le_bytes()[..], &length.to_le_bytes(), &vec![7; length as usize]].concat()
        };
        let of = |length: u64, runs: &[Vec<u8>]| {
            [&MAGIC[..], &length.to_le_bytes(), &runs.concat(), &run(length, 0)].concat()
        };
        assert!(unpacked(&of(8192, &[run(0, 10), run(4096, 4096)]), 8192).is_ok());
        let cut = of(8192, &[run(0, 10)]);
        for (what, stream) in [
            ("another magic", [&b"BLXSEG02"[..], &cut[8..]].concat()),
            ("another length", of(8193, &[])),
            ("beyond the end", of(8192, &[run(8000, 193)])),
            ("an offset that overflows", of(8192, &[run(u64::MAX, 2)])),
            ("backwards", of(8192, &[run(4096, 10), run(0, 10)])),
            ("over another", of(8192, &[run(0, 10), run(9, 10)])),
            ("an empty run", of(8192, &[run(0, 0)])),
            ("a run that is too long", of(4 << 20, &[run(0, (1 << 20) + 1)])),
            ("more after the end", [&cut[..], &[0]].concat()),
            ("cut off", cut[..cut.len() - 1].to_vec()),
            ("nothing", Vec::new()),
        ] {
            let length = if what.contains("too long") { 4 << 20 } else { 8192 };
            assert!(unpacked(&stream, length).is_err(), "{what}");
        }
    }

    #[test]
    fn nothing_is_written_without_leave() {
        let mut stream = Vec::new();
        let source = tempfile::tempfile().unwrap();
        source.write_all_at(&[1; 100], 0).unwrap();
        write(&source, 100, &mut stream).unwrap();
        let file = tempfile::tempfile().unwrap();
        let refused = read(&mut &*stream, 100, &file, |_| Err(io::Error::other("no room")));
        assert_eq!(refused.unwrap_err().to_string(), "no room");
        assert_eq!(bytes(&file), [0; 100]);
    }
}
