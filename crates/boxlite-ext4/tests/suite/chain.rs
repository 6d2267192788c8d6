//! Chains of deltas in memory, flattened for the oracles.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use boxlite_ext4::{
    BLOCK_SIZE, BlockSink, BlockSource, BuildError, BuildOptions, DeltaOptions, DeltaReport, LayerLimits,
    build_delta,
};

use boxlite_testkit::program::run;

use crate::archive::{Blob, sha256};
use crate::oracle::{Mount, able, assert_same, build_at, check, now, unpack};

/// The blocks that a delta holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Delta {
    pub(crate) blocks: BTreeMap<u64, Vec<u8>>,
    /// Every call: first block, count, and whether it wrote.
    pub(crate) calls: Vec<(u64, u64, bool)>,
}

impl BlockSink for Delta {
    fn write_blocks(&mut self, first: u64, blocks: &[u8]) -> io::Result<()> {
        self.calls.push((first, (blocks.len() / BLOCK_SIZE) as u64, true));
        self.blocks.extend((first..).zip(blocks.chunks_exact(BLOCK_SIZE).map(<[u8]>::to_vec)));
        Ok(())
    }

    fn discard_blocks(&mut self, first: u64, count: u64) -> io::Result<()> {
        self.calls.push((first, count, false));
        for block in first..first + count {
            self.blocks.remove(&block);
        }
        Ok(())
    }
}

/// A whole image with deltas over it.
pub(crate) struct Chain {
    pub(crate) base: File,
    pub(crate) deltas: Vec<Delta>,
}

impl BlockSource for Chain {
    fn read_blocks(&self, first: u64, blocks: &mut [u8]) -> io::Result<()> {
        self.base.read_blocks(first, blocks)?;
        for (number, block) in (first..).zip(blocks.chunks_exact_mut(BLOCK_SIZE)) {
            if let Some(found) = self.deltas.iter().rev().find_map(|delta| delta.blocks.get(&number)) {
                block.copy_from_slice(found);
            }
        }
        Ok(())
    }
}

/// The identity of the filesystem that some segments make.
pub(crate) fn identity(segments: usize) -> [u8; 32] {
    sha256(format!("{segments} segments").as_bytes())
}

impl Chain {
    /// Builds the lowest segment whole and each further one as a delta.
    pub(crate) fn build(
        image: &Path,
        segments: &[&[Blob]],
        virtual_size: u64,
    ) -> Result<(Self, Vec<DeltaReport>), BuildError> {
        let options = BuildOptions { virtual_size, ..BuildOptions::new(identity(1)) };
        build_at(image, segments[0], &options)?;
        let mut chain = Self { base: File::open(image).unwrap(), deltas: Vec::new() };
        let mut reports = Vec::new();
        for segment in &segments[1..] {
            reports.push(chain.add(segment)?);
        }
        Ok((chain, reports))
    }

    /// Adds a delta.
    pub(crate) fn add(&mut self, segment: &[Blob]) -> Result<DeltaReport, BuildError> {
        self.add_limited(segment, LayerLimits::default())
    }

    pub(crate) fn add_limited(
        &mut self,
        segment: &[Blob],
        limits: LayerLimits,
    ) -> Result<DeltaReport, BuildError> {
        let height = self.deltas.len() + 1;
        let options = DeltaOptions { limits, ..DeltaOptions::new(identity(height), identity(height + 1)) };
        let layers = segment.iter().enumerate().map(|(number, blob)| blob.layer(number)).collect();
        let mut delta = Delta::default();
        let report = build_delta(self, layers, &mut delta, &options, &mut |_| ControlFlow::Continue(()))?;
        self.deltas.push(delta);
        Ok(report)
    }

    /// Writes the chain as one raw image.
    pub(crate) fn flatten(&self, base: &Path, to: &Path) {
        let _ = std::fs::remove_file(to);
        run(Command::new("cp").arg("--sparse=always").args([base, to]));
        let file = File::options().write(true).open(to).unwrap();
        for delta in &self.deltas {
            for (&number, block) in &delta.blocks {
                (&file).write_blocks(number, block).unwrap();
            }
        }
    }
}

/// The whole check of a chain: flattens and checks after every delta; mounts the result and compares it with what
/// umoci unpacks, and with a whole build of all layers.
pub(crate) fn verify_chain(
    test: &str,
    segments: &[&[Blob]],
    virtual_size: u64,
    umoci: bool,
) -> Vec<DeltaReport> {
    if !able(test) {
        return Vec::new();
    }
    let started = now();
    let scratch = tempfile::tempdir().unwrap();
    let (base, flat, whole) =
        (scratch.path().join("base"), scratch.path().join("flat"), scratch.path().join("whole"));
    let (mut chain, _) = Chain::build(&base, &segments[..1], virtual_size).unwrap();
    let mut reports = Vec::new();
    for segment in &segments[1..] {
        reports.push(chain.add(segment).unwrap());
        chain.flatten(&base, &flat);
        check(&flat);
    }
    let all = segments.concat();
    let options = BuildOptions { virtual_size, ..BuildOptions::new(identity(1)) };
    build_at(&whole, &all, &options).unwrap();
    let delta = Mount::new(&flat, &scratch.path().join("delta-mount"), "ro,loop");
    let reference = Mount::new(&whole, &scratch.path().join("whole-mount"), "ro,loop");
    assert_same(&delta.at, &reference.at, i64::MAX - 1);
    if umoci {
        assert_same(&delta.at, &unpack(scratch.path(), &all), started);
    }
    reports
}
