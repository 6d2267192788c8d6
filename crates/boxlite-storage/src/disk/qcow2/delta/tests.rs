use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use boxlite_ext4::{BlockSink, BlockSource};
use boxlite_testkit::oracle;
use proptest::prelude::*;

use super::*;
use crate::disk::qcow2::BackingFormat;

const BLOCKS: u64 = 3000;

/// One call of the sink: blocks, and the byte they are filled with, or `None` to discard.
type Call = (Range<u64>, Option<u8>);

fn call() -> impl Strategy<Value = Call> {
    let fill = prop_oneof![3 => any::<u8>().prop_map(Some), 1 => Just(Some(0)), 1 => Just(None)];
    (0..BLOCKS, 1_u64..40, fill).prop_map(|(first, count, fill)| (first..(first + count).min(BLOCKS), fill))
}

fn apply(sink: &mut DeltaWriter<'_>, calls: &[Call]) {
    for (blocks, fill) in calls {
        let count = blocks.end - blocks.start;
        match fill {
            Some(byte) => {
                sink.write_blocks(blocks.start, &vec![*byte; (count * CLUSTER) as usize]).unwrap();
            }
            None => sink.discard_blocks(blocks.start, count).unwrap(),
        }
    }
}

/// A disk image full of `0xaa`, and deltas over it, each made by some calls.
struct Made {
    directory: tempfile::TempDir,
    deltas: Vec<PathBuf>,
}

fn make(deltas: &[Vec<Call>]) -> Made {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("base.ext4"), vec![0xaa; (BLOCKS * CLUSTER) as usize]).unwrap();
    let mut made = Made { directory, deltas: Vec::new() };
    let mut below = ("base.ext4".to_owned(), BackingFormat::Raw);
    for (number, calls) in deltas.iter().enumerate() {
        let name = format!("{number}.qcow2");
        made.deltas.push(made.directory.path().join(&name));
        write(made.deltas.last().unwrap(), calls, &below.0, below.1);
        below = (name, BackingFormat::Qcow2);
    }
    made
}

fn write(path: &Path, calls: &[Call], below: &str, format: BackingFormat) {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    let mut sink = DeltaWriter::new(&file, BLOCKS * CLUSTER);
    apply(&mut sink, calls);
    sink.finish(below, format).unwrap();
}

/// The bytes that the disk must hold: one per block.
fn model(deltas: &[Vec<Call>]) -> Vec<u8> {
    let mut disk = vec![0xaa; BLOCKS as usize];
    for calls in deltas {
        let below = disk.clone();
        for (blocks, fill) in calls {
            for block in blocks.clone().map(|block| block as usize) {
                disk[block] = fill.unwrap_or(below[block]);
            }
        }
    }
    disk
}

fn read(made: &Made) -> Vec<u8> {
    let files: Vec<File> = made.deltas.iter().rev().map(|path| File::open(path).unwrap()).collect();
    let base = File::open(made.directory.path().join("base.ext4")).unwrap();
    let deltas: Vec<_> = files.iter().map(|file| Delta::open(file).unwrap()).collect();
    assert!(deltas.iter().all(|delta| delta.are_contents_right().unwrap()));
    let source = ChainSource { deltas, disk_image: &base };
    let mut disk = vec![0; (BLOCKS * CLUSTER) as usize];
    source.read_blocks(0, &mut disk).unwrap();
    assert!(source.read_blocks(BLOCKS, &mut vec![0; CLUSTER as usize]).is_err());
    disk
}

fn expand(model: &[u8]) -> Vec<u8> {
    model.iter().flat_map(|byte| std::iter::repeat_n(*byte, CLUSTER as usize)).collect()
}

fn qemu_img(arguments: &[&std::ffi::OsStr]) {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(output.status.success(), "qemu-img {arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Our reader and `qemu-img` read from a chain what was written to it. Mutation tried: a running sum that forgets
    /// that a cluster was dropped.
    #[test]
    fn a_chain_reads_as_it_was_written(
        deltas in proptest::collection::vec(proptest::collection::vec(call(), 0..30), 1..4)
    ) {
        let made = make(&deltas);
        let expected = expand(&model(&deltas));
        prop_assert!(read(&made) == expected);
        if !oracle::require("qemu-img") {
            return Ok(());
        }
        for path in &made.deltas {
            qemu_img(&["check".as_ref(), path.as_os_str()]);
        }
        let (top, flat) = (made.deltas.last().unwrap(), made.directory.path().join("flat"));
        qemu_img(&["convert".as_ref(), "-Oraw".as_ref(), top.as_os_str(), flat.as_os_str()]);
        prop_assert!(std::fs::read(flat).unwrap() == expected);
    }
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let calls =
        vec![(0..5, Some(1)), (700..900, Some(2)), (720..730, None), (2..4, Some(0)), (2900..2905, Some(9))];
    let [one, two] = [0, 1].map(|_| make(std::slice::from_ref(&calls)));
    assert_eq!(std::fs::read(&one.deltas[0]).unwrap(), std::fs::read(&two.deltas[0]).unwrap());
}

/// Mutations tried: `finish` without discarding the free clusters; `release` that keeps the cluster.
#[test]
fn what_was_discarded_is_not_in_the_file() {
    let made = make(&[vec![(10..20, Some(0x5e)), (10..20, None), (11..13, Some(0))]]);
    let bytes = std::fs::read(&made.deltas[0]).unwrap();
    assert!(!bytes.chunks(64).any(|chunk| chunk == [0x5e; 64]));
}

#[test]
fn zeros_and_small_changes_take_little() {
    let made = make(&[vec![(0..2000, Some(0)), (2500..2501, Some(1))]]);
    // Header, one cluster of data, five L2 tables, L1 table, refcount table and block.
    assert!(std::fs::metadata(&made.deltas[0]).unwrap().len() <= 10 * CLUSTER);
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

fn verify(path: &Path) -> std::io::Result<()> {
    let file = File::open(path).unwrap();
    Delta::open(&file).unwrap().verify_contents()
}

/// Mutation tried: a state without the modification time, in a `verify_contents` that does not record it.
#[test]
fn damage_in_contents_is_found_once_the_file_was_written_to() {
    let made = make(&[vec![(0..5, Some(1)), (700..900, Some(2)), (10..20, Some(3)), (12..14, None)]]);
    let path = &made.deltas[0];
    verify(path).unwrap();
    for at in [CLUSTER, 100 * CLUSTER + 7, 214 * CLUSTER] {
        flip(path, at);
        for _ in 0..2 {
            assert_eq!(verify(path).unwrap_err().kind(), std::io::ErrorKind::InvalidData, "byte {at}");
        }
        flip(path, at);
        verify(path).unwrap();
    }
}

/// Mutation tried: a state without inode and birth.
#[test]
fn a_copy_is_verified_once() {
    let made = make(&[vec![(0..5, Some(1)), (700..900, Some(2))]]);
    let (path, copy) = (&made.deltas[0], made.directory.path().join("copy.qcow2"));
    let copy_all = |damaged: bool| {
        let _ = std::fs::remove_file(&copy);
        let copied = Command::new("cp").arg("-a").args([path, &copy]).status().unwrap();
        assert!(copied.success());
        if damaged {
            let modified = std::fs::metadata(&copy).unwrap().modified().unwrap();
            flip(&copy, CLUSTER + 9);
            File::options().write(true).open(&copy).unwrap().set_modified(modified).unwrap();
        }
    };
    copy_all(true);
    assert_eq!(verify(&copy).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    copy_all(false);
    verify(&copy).unwrap();
    let file = File::open(&copy).unwrap();
    let delta = Delta::open(&file).unwrap();
    assert!(delta.are_contents_known().unwrap(), "the copy was not read again");
    // As the documentation says: not found, as long as the file is in the state in which it was right.
    let modified = file.metadata().unwrap().modified().unwrap();
    flip(&copy, CLUSTER + 9);
    File::options().write(true).open(&copy).unwrap().set_modified(modified).unwrap();
    assert!(delta.are_contents_known().unwrap());
}

/// Gives the delta the seal that an earlier boxlite would have given it.
fn seal_as(path: &Path, seal: Seal) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut head = vec![0; CLUSTER as usize];
    file.read_exact_at(&mut head, 0).unwrap();
    let metadata_at = u64::from_be_bytes(head[SEAL_AT..SEAL_AT + 8].try_into().unwrap());
    let mut metadata = vec![0; (file.metadata().unwrap().len() - metadata_at) as usize];
    file.read_exact_at(&mut metadata, metadata_at).unwrap();
    // The name below lies behind the extensions.
    let name_at = u64::from_be_bytes(head[8..16].try_into().unwrap()) as usize;
    let name_length = u32::from_be_bytes(head[16..20].try_into().unwrap()) as usize;
    let name = head[name_at..name_at + name_length].to_vec();
    let name_at = SEAL_AT + seal.length() + 8;
    head[8..16].copy_from_slice(&(name_at as u64).to_be_bytes());
    head[SEAL_AT - 8..SEAL_AT - 4].copy_from_slice(&seal.extension().to_be_bytes());
    head[SEAL_AT - 4..SEAL_AT].copy_from_slice(&(seal.length() as u32).to_be_bytes());
    head[SUM_AT..].fill(0);
    head[name_at..name_at + name_length].copy_from_slice(&name);
    if let Some(at) = seal.content_sum_at() {
        let sum = contents::sum(seal.kind(), &file, metadata_at).unwrap();
        head[at..at + seal.kind().length()].copy_from_slice(sum.bytes());
    }
    let sum = seal.sum(&head, &metadata);
    head[SUM_AT..SUM_AT + seal.kind().length()].copy_from_slice(sum.bytes());
    file.write_all_at(&head, 0).unwrap();
}

/// A home that an earlier boxlite made goes on with its deltas.
#[test]
fn a_delta_with_an_earlier_seal_is_read_and_compared_with_it() {
    let made = make(&[vec![(3..4, Some(7)), (10..400, Some(8))], vec![(3..4, Some(9))]]);
    let bytes = read(&made);
    let path = &made.deltas[0];
    for seal in [Seal::Sha256, Seal::WithoutContents] {
        seal_as(path, seal);
        verify(path).unwrap();
        assert!(read(&made) == bytes);
        qemu_img(&["check".as_ref(), path.as_os_str()]);
        flip(path, CLUSTER);
        assert_eq!(verify(path).is_err(), seal == Seal::Sha256);
        flip(path, CLUSTER);
        let file = File::open(path).unwrap();
        let metadata_at = Delta::open(&file).unwrap().into_tables().metadata_at;
        flip(path, metadata_at);
        assert!(Delta::open(&file).is_err());
        flip(path, metadata_at);
        verify(path).unwrap();
    }
}

/// Mutation tried: `Delta::open` without the comparison of the sum; without that of the length.
#[test]
fn damage_in_header_or_metadata_is_found() {
    let made = make(&[vec![(0..5, Some(1)), (700..900, Some(2))]]);
    let path = &made.deltas[0];
    let good = std::fs::read(path).unwrap();
    let metadata_at = u64::from_be_bytes(good[SEAL_AT..SEAL_AT + 8].try_into().unwrap()) as usize;
    let places = (0..CLUSTER as usize).chain(metadata_at..good.len()).step_by(97);
    for at in places {
        let file = File::options().read(true).write(true).open(path).unwrap();
        file.write_all_at(&[good[at] ^ 0x40], at as u64).unwrap();
        let error = Delta::open(&file).map(drop).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "byte {at}: {error}");
        file.write_all_at(&[good[at]], at as u64).unwrap();
    }
    Delta::open(&File::open(path).unwrap()).unwrap();
    for length in [0, 100, CLUSTER, good.len() as u64 - CLUSTER, good.len() as u64 + 1] {
        let file = File::options().read(true).write(true).open(path).unwrap();
        file.set_len(length).unwrap();
        assert!(Delta::open(&file).is_err(), "{length} bytes");
        std::fs::write(path, &good).unwrap();
    }
}
