//! The contents of a whole disk image: their sum, and when they must be compared with it again.
//!
//! A raw file has no room for a sum, and nothing but disk images belongs into their directory. So the sum is in an
//! attribute of the file, together with the state in which the contents were right ([`ContentState`]). A file without
//! the attribute (an earlier boxlite made it, or it was copied without attributes) is believed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::content_state::{self, ContentState, Remembered, STATE_LENGTH};
use super::damage_sum::{DamageSum, SumKind, Summer};

const BLOCK: usize = boxlite_ext4::BLOCK_SIZE;
/// Bytes that are read at a time.
const PIECE: u64 = 256 << 10;

/// Has the finished disk image remember the sum of its contents, where files have attributes.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    if content_state::remembered(file)? != Remembered::Unsupported {
        note(file, &sum(SumKind::Xxh3, file)?)?;
    }
    Ok(())
}

/// Reads the contents and compares them with their sum, if the file is not in the state in which they were right the last
/// time, and has a sum.
///
/// # Errors
/// `InvalidData` when they are damaged; others when they cannot be read.
pub(crate) fn verify(file: &File) -> io::Result<()> {
    let Remembered::Bytes(found) = content_state::remembered(file)? else { return Ok(()) };
    let Some((expected, state)) = parse(&found) else { return Ok(()) };
    if ContentState::of(file, expected.bytes())?.bytes() == state {
        return Ok(());
    }
    if sum(expected.kind(), file)? != expected {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of its contents is wrong"));
    }
    note(file, &expected)
}

/// The sum of the contents, whose function its length tells, and the state in which they were right.
fn parse(attribute: &[u8]) -> Option<(DamageSum, &[u8])> {
    let kinds = [SumKind::Xxh3, SumKind::Sha256];
    let kind = kinds.into_iter().find(|kind| attribute.len() == kind.length() + STATE_LENGTH)?;
    Some((DamageSum::read(kind, attribute)?, &attribute[kind.length()..]))
}

fn note(file: &File, sum: &DamageSum) -> io::Result<()> {
    let state = ContentState::of(file, sum.bytes())?;
    content_state::remember(file, &[sum.bytes(), state.bytes()].concat());
    Ok(())
}

/// The sum of all blocks that are not zero, each behind its number. So holes are not read, and a copy without holes
/// has the same sum.
fn sum(kind: SumKind, file: &File) -> io::Result<DamageSum> {
    let (mut summer, mut piece) = (Summer::new(kind), vec![0; PIECE as usize]);
    let mut at = 0;
    while let Some((start, end)) = data_from(file, at)? {
        at = start;
        while at < end {
            let count = (end - at).min(PIECE) as usize;
            file.read_exact_at(&mut piece[..count], at)?;
            for (number, block) in (at / BLOCK as u64..).zip(piece[..count].chunks(BLOCK)) {
                if block.iter().any(|byte| *byte != 0) {
                    summer.update(&number.to_le_bytes());
                    summer.update(block);
                }
            }
            at += count as u64;
        }
    }
    Ok(summer.finish())
}

/// The blocks of the next stretch, from `at` on, that is not a hole.
fn data_from(file: &File, at: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    let length = file.metadata()?.len();
    let block = BLOCK as u64;
    Ok(Some((start / block * block, end.next_multiple_of(block).min(length))))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// A sealed file with a stretch of data, a hole and more data.
    fn sealed(path: &Path) -> File {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        file.write_all_at(&vec![7; 300 << 10], 64 << 10).unwrap();
        file.write_all_at(&[9; 5000], 3 << 20).unwrap();
        file.set_len(8 << 20).unwrap();
        seal(&file).unwrap();
        file
    }

    fn flip(file: &File, at: u64) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    }

    fn is_damaged(file: &File) -> bool {
        verify(file).is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
    }

    /// Mutations tried: a sum without the numbers of the blocks; a state without the modification time.
    #[test]
    fn a_file_that_was_written_to_is_found_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let file = sealed(&directory.path().join("image.ext4"));
        verify(&file).unwrap();
        for at in [64 << 10, (3 << 20) + 4999, 6 << 20] {
            flip(&file, at);
            assert!(is_damaged(&file) && is_damaged(&file), "byte {at}");
            flip(&file, at);
            verify(&file).unwrap();
        }
        // The same block at another place.
        let mut block = vec![0; BLOCK];
        file.read_exact_at(&mut block, (3 << 20) + BLOCK as u64).unwrap();
        file.write_all_at(&[0; BLOCK], (3 << 20) + BLOCK as u64).unwrap();
        file.write_all_at(&block, (3 << 20) + 2 * BLOCK as u64).unwrap();
        assert!(is_damaged(&file));
    }

    /// Mutations tried: a sum in which blocks of zeros count; a state without inode and birth.
    #[test]
    fn a_copy_is_right_with_and_without_holes_and_its_damage_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.ext4");
        drop(sealed(&path));
        for sparse in ["--sparse=always", "--sparse=never"] {
            let copy = directory.path().join(sparse);
            let copied = Command::new("cp").args(["-a", sparse]).args([&path, &copy]).status().unwrap();
            assert!(copied.success());
            let copy = File::options().read(true).write(true).open(&copy).unwrap();
            // Damaged on its way: all that says so is that it is another file.
            let modified = copy.metadata().unwrap().modified().unwrap();
            flip(&copy, 100 << 10);
            copy.set_modified(modified).unwrap();
            assert!(is_damaged(&copy), "{sparse}");
            flip(&copy, 100 << 10);
            verify(&copy).unwrap();
        }
    }

    /// As an earlier boxlite left it.
    #[test]
    fn a_file_with_a_sha_256_is_compared_with_that() {
        let directory = tempfile::tempdir().unwrap();
        let file = sealed(&directory.path().join("image.ext4"));
        note(&file, &sum(SumKind::Sha256, &file).unwrap()).unwrap();
        for _ in 0..2 {
            flip(&file, 70 << 10);
            assert!(is_damaged(&file));
            flip(&file, 70 << 10);
            verify(&file).unwrap();
            let Remembered::Bytes(found) = content_state::remembered(&file).unwrap() else {
                panic!("no sum")
            };
            assert_eq!(parse(&found).unwrap().0.kind(), SumKind::Sha256);
        }
    }

    #[test]
    fn a_file_without_a_sum_is_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.ext4");
        std::fs::write(&path, vec![1; 10_000]).unwrap();
        verify(&File::open(&path).unwrap()).unwrap();
    }
}
