//! Damage of the filesystem below.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

use boxlite_ext4::{BLOCK_SIZE, BelowError, BlockSource, BuildError, DeltaOptions, build_delta};

use crate::archive::Archive;
use crate::chain::{Chain, Delta, identity};
use crate::delta::{blob, lower};

/// Damage below is refused, or lies where nothing is read; the result never depends on it silently.
///
/// Mutation tried: descriptors, bitmaps, leaves, indexes or records taken without looking at their checksums; each fails.
#[test]
fn damage_below_is_refused_or_not_read() {
    let scratch = tempfile::tempdir().unwrap();
    let mut base = lower();
    for number in 0..600 {
        base.file(&format!("wide/{number:->100}"), b"");
    }
    let mut upper = Archive::new();
    upper.file("a/.wh.sub", b"").file(".wh.large", b"").file("b/.wh..wh..opq", b"").file("new", b"new");
    upper.file(&format!("wide/{:->100}", 7), b"replaced").hardlink("a/linked", "a/two").file("rich", b"");
    upper.file(&format!("wide/.wh.{:->100}", 8), b"").file("link/through", b"");
    let upper = [blob(&upper)];
    let (mut chain, _) = Chain::build(&scratch.path().join("image"), &[&[blob(&base)]], 64 << 20).unwrap();
    chain.add(&upper).unwrap();
    let expected = chain.deltas.pop().unwrap();
    // Every block of metadata that is read, and some that are not.
    let reads = Reads { chain: &chain, seen: RefCell::default() };
    let options = DeltaOptions::new(identity(1), identity(2));
    let build = |source: &dyn BlockSource| {
        let layers = upper.iter().map(|blob| blob.layer(0)).collect();
        let mut delta = Delta::default();
        build_delta(source, layers, &mut delta, &options, &mut |_| ControlFlow::Continue(())).map(|_| delta)
    };
    assert!(build(&reads).unwrap() == expected);
    let read: Vec<u64> = reads.seen.borrow().iter().copied().collect();
    assert!(read.len() < 60, "{} blocks were read of a filesystem of 16384", read.len());
    let (mut refused, mut same) = (0, 0);
    for &block in &read {
        // Every byte of the superblock and of the only descriptor; of other blocks, some.
        let all = match block {
            0 => 1024..2048,
            1 => 0..64,
            _ => 4088..4096,
        };
        for byte in (0..4096).step_by(61).chain(all) {
            let damaged = Damaged { chain: &chain, block, byte };
            match build(&damaged) {
                Err(BuildError::Below(_)) => refused += 1,
                Ok(delta) => {
                    // The byte belongs to nothing that a checksum covers or this build asks for: an inode of somebody
                    // else, the end of an index. It is passed on or mended, and changes nothing besides.
                    same += 1;
                    let mut honest = vec![0; BLOCK_SIZE];
                    for (number, bytes) in &delta.blocks {
                        chain.read_blocks(*number, &mut honest).unwrap();
                        let honest = expected.blocks.get(number).unwrap_or(&honest);
                        let differ = bytes.iter().zip(honest).filter(|(a, b)| a != b).count();
                        assert!(differ <= usize::from(*number == block), "block {block} byte {byte}");
                    }
                }
                Err(other) => panic!("block {block} byte {byte}: {other}"),
            }
        }
    }
    assert!(refused > same, "{refused} refused, {same} not read");
    let other = DeltaOptions::new(identity(9), identity(2));
    let error =
        build_delta(&chain, Vec::new(), &mut Delta::default(), &other, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(error, Err(BuildError::Below(BelowError::OtherIdentity { .. }))), "{error:?}");
}

/// Remembers which blocks are read.
struct Reads<'a> {
    chain: &'a Chain,
    seen: RefCell<BTreeSet<u64>>,
}

impl BlockSource for Reads<'_> {
    fn read_blocks(&self, first: u64, blocks: &mut [u8]) -> std::io::Result<()> {
        self.seen.borrow_mut().extend(first..first + (blocks.len() / BLOCK_SIZE) as u64);
        self.chain.read_blocks(first, blocks)
    }
}

/// A filesystem with one flipped bit.
struct Damaged<'a> {
    chain: &'a Chain,
    block: u64,
    byte: usize,
}

impl BlockSource for Damaged<'_> {
    fn read_blocks(&self, first: u64, blocks: &mut [u8]) -> std::io::Result<()> {
        self.chain.read_blocks(first, blocks)?;
        if let Some(at) = self.block.checked_sub(first)
            && let Some(byte) = blocks.get_mut(at as usize * BLOCK_SIZE + self.byte)
        {
            *byte ^= 0x10;
        }
        Ok(())
    }
}
