//! Copies into files before the program starts.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::seal;
use crate::error::{JailDoing, JailResult as Result};
use crate::spec::Filling;

/// Bytes that are copied in one go: few enough to stay in a processor's cache between the two copies of each.
const STRETCH: usize = 64 << 10;

/// Fills the files, in this process.
///
/// # Errors
/// When a descriptor is not open, or the bytes cannot be read or written.
pub fn fill(fillings: &[Filling]) -> Result<()> {
    fillings.iter().try_for_each(|filling| {
        let (from, into) = (seal::borrow(filling.from)?, seal::borrow(filling.into)?);
        copy(from, into, filling.length).doing("filling a file for the program")
    })
}

/// Copies what is not a hole among the first `length` bytes to the same place of `into`.
fn copy(from: BorrowedFd<'_>, into: BorrowedFd<'_>, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; STRETCH];
    let mut at = 0;
    while let Some((begin, end)) = data_after(from, at)?.filter(|(begin, _)| *begin < length) {
        at = begin;
        while at < end.min(length) {
            let wanted = STRETCH.min((end.min(length) - at) as usize);
            let read = rustix::io::pread(from, &mut buffer[..wanted], at)?;
            if read == 0 {
                return Ok(());
            }
            let mut left = &buffer[..read];
            while !left.is_empty() {
                let written = rustix::io::pwrite(into, left, at)?;
                left = &left[written..];
                at += written as u64;
            }
        }
    }
    Ok(())
}

/// The first range at or after `at` that is not a hole.
fn data_after(file: BorrowedFd<'_>, at: u64) -> io::Result<Option<(u64, u64)>> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(begin) => Ok(Some((begin, rustix::fs::seek(file, SeekFrom::Hole(begin))?))),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    /// Mutations tried: what lies behind the length is copied too; a hole is copied as zeros.
    #[test]
    fn the_beginning_is_copied_without_its_holes() {
        let scratch = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(true);
            file.open(scratch.path().join(name)).unwrap()
        };
        let (from, into) = (file("from"), file("into"));
        into.set_len(3 << 20).unwrap();
        let data = vec![7; STRETCH + 10];
        for at in [4096, 2 << 20, (3 << 20) - 4096] {
            from.write_all_at(&data, at).unwrap();
        }
        copy(from.as_fd(), into.as_fd(), 3 << 20).unwrap();
        let mut found = vec![0; 3 << 20];
        into.read_exact_at(&mut found, 0).unwrap();
        let mut expected = vec![0; (3 << 20) + STRETCH];
        from.read_at(&mut expected, 0).unwrap();
        assert!(found == expected[..3 << 20]);
        assert_eq!(into.metadata().unwrap().len(), 3 << 20);
        assert!(into.metadata().unwrap().blocks() * 512 < 1 << 20);
    }
}
