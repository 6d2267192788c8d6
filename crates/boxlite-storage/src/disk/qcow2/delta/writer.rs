//! Writing a delta.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use boxlite_ext4::BlockSink;
use boxlite_home::durable;

use super::contents::RunningSum;
use super::reader::DeltaTables;
use super::{
    BACKING_FORMAT, CLUSTER, COPIED, EXTENSIONS_AT, OFFSET, PER_TABLE, SEAL_AT, SUM_AT, Seal, ZERO,
    l1_entries,
};
use crate::disk::content_state::{self, ContentState};
use crate::disk::damage_sum::DamageSum;
use crate::disk::qcow2::header::BackingFormat;

/// What new deltas are sealed with.
const SEAL: Seal = Seal::Current;

/// Bytes that are worth sending to the disk before the end.
const MIN_WRITEBACK: usize = 256 << 10;

/// Refcounts of 16 bits in one block.
const PER_REFCOUNT_BLOCK: u64 = CLUSTER / 2;

/// A delta that is being written into an empty file.
///
/// Memory: 8 bytes per block that is written, in tables of 4 KiB.
#[derive(Debug)]
pub(crate) struct DeltaWriter<'a> {
    file: &'a File,
    /// Blocks of the disk.
    blocks: u64,
    /// L2 tables by position.
    tables: BTreeMap<u64, Box<[u64; PER_TABLE as usize]>>,
    /// Clusters that were given back, the last one first to be taken again.
    free: Vec<u64>,
    /// The first cluster that was never taken.
    next: u64,
    sum: RunningSum,
}

/// Blocks that lie beside each other in the file.
struct Run {
    cluster: u64,
    first: usize,
    count: usize,
}

impl<'a> DeltaWriter<'a> {
    /// A delta of a disk of `virtual_size` bytes, in the empty `file`.
    pub(crate) fn new(file: &'a File, virtual_size: u64) -> Self {
        Self {
            file,
            blocks: virtual_size / CLUSTER,
            tables: BTreeMap::new(),
            free: Vec::new(),
            next: 1,
            sum: RunningSum::new(SEAL.kind()),
        }
    }

    fn entry(&mut self, block: u64) -> &mut u64 {
        let table = self.tables.entry(block / PER_TABLE).or_insert_with(|| Box::new([0; PER_TABLE as usize]));
        &mut table[(block % PER_TABLE) as usize]
    }

    /// Gives the block's cluster back, if it has one, and leaves `instead` in its place.
    fn release(&mut self, block: u64, instead: u64) {
        let entry = self.entry(block);
        let was = std::mem::replace(entry, instead);
        if was & OFFSET != 0 {
            self.free.push((was & OFFSET) / CLUSTER);
            self.sum.dropped();
        }
    }

    /// The cluster that the block's contents go to.
    fn place(&mut self, block: u64) -> u64 {
        let was = *self.entry(block) & OFFSET;
        if was != 0 {
            return was / CLUSTER;
        }
        let cluster = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        *self.entry(block) = (cluster * CLUSTER) | COPIED;
        cluster
    }

    fn put(&mut self, run: &Run, blocks: &[u8]) -> io::Result<()> {
        let bytes = &blocks[run.first * CLUSTER as usize..(run.first + run.count) * CLUSTER as usize];
        let at = run.cluster * CLUSTER;
        self.file.write_all_at(bytes, at)?;
        if bytes.len() >= MIN_WRITEBACK {
            durable::begin_writeback(self.file, at..at + bytes.len() as u64);
        }
        self.sum.written(run.cluster, bytes);
        Ok(())
    }

    /// About the bytes that [`DeltaWriter::finish`] will write.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        (self.tables.len() as u64 + 4) * CLUSTER + self.next * 2
    }

    /// Writes header and metadata, and returns these tables. `below` names the file below, relative to the delta's
    /// directory.
    pub(crate) fn finish(mut self, below: &str, format: BackingFormat) -> io::Result<DeltaTables> {
        let file = self.file;
        for cluster in std::mem::take(&mut self.free) {
            // Discarded contents must not stay; they leave a hole.
            let mut sink = file;
            sink.discard_blocks(cluster, 1)?;
            self.free.push(cluster);
        }
        self.tables.retain(|_, table| table.iter().any(|entry| *entry != 0));
        let plan = MetadataPlan::of(&self);
        let metadata = self.metadata(&plan);
        file.set_len(plan.clusters * CLUSTER)?;
        let contents = self.sum.finish(SEAL.kind(), file, plan.metadata_at * CLUSTER)?;
        let (head, sum) = head(&plan, self.blocks, below, format, &contents, &metadata);
        file.write_all_at(&head, 0)?;
        // Clusters of zeros stay holes.
        let is_zero = |cluster: &[u8]| cluster.iter().all(|byte| *byte == 0);
        let clusters: Vec<bool> = metadata.chunks(CLUSTER as usize).map(is_zero).collect();
        let mut done = 0;
        for run in clusters.chunk_by(|one, next| one == next) {
            let end = done + run.len() * CLUSTER as usize;
            if !run[0] {
                file.write_all_at(&metadata[done..end], plan.metadata_at * CLUSTER + done as u64)?;
            }
            done = end;
        }
        content_state::remember(file, ContentState::of(file, sum.bytes())?.bytes());
        Ok(DeltaTables {
            metadata,
            metadata_at: plan.metadata_at * CLUSTER,
            l1_at: ((plan.l1_at - plan.metadata_at) * CLUSTER) as usize,
            blocks: self.blocks,
            sum,
            content_sum: Some(contents),
        })
    }

    /// The tables, as they lie at the end of the file.
    fn metadata(&self, plan: &MetadataPlan) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(((plan.clusters - plan.metadata_at) * CLUSTER) as usize);
        for entry in self.tables.values().flat_map(|table| table.iter()) {
            bytes.extend_from_slice(&entry.to_be_bytes());
        }
        let mut l1 = vec![0; (plan.l1_clusters * CLUSTER) as usize];
        for (position, cluster) in self.tables.keys().zip(plan.metadata_at..) {
            let at = *position as usize * 8;
            l1[at..at + 8].copy_from_slice(&((cluster * CLUSTER) | COPIED).to_be_bytes());
        }
        bytes.append(&mut l1);
        let blocks = (plan.refcount_blocks_at..plan.clusters).flat_map(|at| (at * CLUSTER).to_be_bytes());
        bytes.extend(blocks);
        bytes.resize(((plan.refcount_blocks_at - plan.metadata_at) * CLUSTER) as usize, 0);
        let counts = bytes.len();
        bytes.extend((0..plan.clusters).flat_map(|_| 1_u16.to_be_bytes()));
        bytes.resize(((plan.clusters - plan.metadata_at) * CLUSTER) as usize, 0);
        for cluster in &self.free {
            let at = counts + *cluster as usize * 2;
            bytes[at..at + 2].fill(0);
        }
        bytes
    }
}

/// Where the metadata lies, in clusters.
struct MetadataPlan {
    metadata_at: u64,
    l1_at: u64,
    l1_clusters: u64,
    refcount_table_at: u64,
    refcount_blocks_at: u64,
    /// Clusters of the file.
    clusters: u64,
}

impl MetadataPlan {
    fn of(writer: &DeltaWriter<'_>) -> Self {
        let metadata_at = writer.next;
        let l1_at = metadata_at + writer.tables.len() as u64;
        let l1_clusters = (l1_entries(writer.blocks) * 8).div_ceil(CLUSTER);
        let refcount_table_at = l1_at + l1_clusters;
        // The refcounts count themselves as well.
        let (mut table, mut blocks) = (1, 1);
        loop {
            let clusters = refcount_table_at + table + blocks;
            let need = clusters.div_ceil(PER_REFCOUNT_BLOCK);
            let (more_table, more_blocks) = ((need * 8).div_ceil(CLUSTER), need);
            if more_table <= table && more_blocks <= blocks {
                let refcount_blocks_at = refcount_table_at + table;
                return Self {
                    metadata_at,
                    l1_at,
                    l1_clusters,
                    refcount_table_at,
                    refcount_blocks_at,
                    clusters,
                };
            }
            (table, blocks) = (more_table.max(table), more_blocks.max(blocks));
        }
    }
}

/// The first cluster, and the sum of it and of the metadata.
fn head(
    plan: &MetadataPlan,
    blocks: u64,
    below: &str,
    format: BackingFormat,
    contents: &DamageSum,
    metadata: &[u8],
) -> (Vec<u8>, DamageSum) {
    let format: &[u8] = if format == BackingFormat::Raw { b"raw" } else { b"qcow2" };
    let mut head = Vec::with_capacity(CLUSTER as usize);
    let put32 = |head: &mut Vec<u8>, value: u32| head.extend_from_slice(&value.to_be_bytes());
    let put64 = |head: &mut Vec<u8>, value: u64| head.extend_from_slice(&value.to_be_bytes());
    let name_at = SEAL_AT + SEAL.length() + 8;
    head.extend_from_slice(b"QFI\xfb");
    put32(&mut head, 3);
    put64(&mut head, name_at as u64);
    put32(&mut head, below.len() as u32);
    put32(&mut head, CLUSTER.trailing_zeros());
    put64(&mut head, blocks * CLUSTER);
    put32(&mut head, 0); // no encryption
    put32(&mut head, l1_entries(blocks) as u32);
    put64(&mut head, plan.l1_at * CLUSTER);
    put64(&mut head, plan.refcount_table_at * CLUSTER);
    put32(&mut head, (plan.refcount_blocks_at - plan.refcount_table_at) as u32);
    put32(&mut head, 0); // snapshots
    put64(&mut head, 0);
    for _features in ["incompatible", "compatible", "autoclear"] {
        put64(&mut head, 0);
    }
    put32(&mut head, 4); // refcounts of 2^4 bits
    put32(&mut head, EXTENSIONS_AT as u32); // header length
    put32(&mut head, BACKING_FORMAT);
    put32(&mut head, format.len() as u32);
    head.extend_from_slice(format);
    head.resize(EXTENSIONS_AT + 16, 0);
    put32(&mut head, SEAL.extension());
    put32(&mut head, SEAL.length() as u32);
    put64(&mut head, plan.metadata_at * CLUSTER);
    put64(&mut head, plan.clusters * CLUSTER);
    head.resize(SUM_AT + SEAL.kind().length(), 0); // the place of the sum of header and metadata
    head.extend_from_slice(contents.bytes());
    head.resize(name_at, 0); // the end of the extensions
    head.extend_from_slice(below.as_bytes());
    head.resize(CLUSTER as usize, 0);
    let sum = SEAL.sum(&head, metadata);
    head[SUM_AT..SUM_AT + SEAL.kind().length()].copy_from_slice(sum.bytes());
    (head, sum)
}

impl BlockSink for DeltaWriter<'_> {
    fn write_blocks(&mut self, first: u64, blocks: &[u8]) -> io::Result<()> {
        let mut run: Option<Run> = None;
        for (index, bytes) in blocks.chunks_exact(CLUSTER as usize).enumerate() {
            let block = first + index as u64;
            if block >= self.blocks {
                return Err(io::Error::other(format!("block {block} lies behind the end of the disk")));
            }
            if bytes.iter().all(|byte| *byte == 0) {
                self.release(block, ZERO);
                continue;
            }
            let cluster = self.place(block);
            match &mut run {
                Some(run) if run.first + run.count == index && run.cluster + run.count as u64 == cluster => {
                    run.count += 1;
                }
                _ => {
                    let ended = run.replace(Run { cluster, first: index, count: 1 });
                    ended.map_or(Ok(()), |ended| self.put(&ended, blocks))?;
                }
            }
        }
        run.map_or(Ok(()), |run| self.put(&run, blocks))
    }

    fn discard_blocks(&mut self, first: u64, count: u64) -> io::Result<()> {
        for block in first..first + count {
            if self.tables.contains_key(&(block / PER_TABLE)) {
                self.release(block, 0);
            }
        }
        Ok(())
    }
}
