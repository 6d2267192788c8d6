//! Where everything is in a disk of a box file: a function of four figures.

use std::path::Path;

use boxlite_types::{BoxFileDisk, Error, Result};

use crate::disk::qcow2::{
    BackingFormat, CLUSTER, HeaderPlace, MAX_VIRTUAL_SIZE, PER_L1_ENTRY, backing_name, header_bytes,
};

/// Entries of an L2 table: clusters in a part of the disk that one table describes.
pub(super) const PER_TABLE: u64 = CLUSTER / 8;
/// Refcounts in one block of them.
const PER_REFCOUNT_BLOCK: u64 = CLUSTER / 2;

/// The cluster or table is reached through this entry alone (refcount 1).
pub(super) const COPIED: u64 = 1 << 63;
/// The cluster reads as zeros, whatever is below.
pub(super) const ZEROS: u64 = 1;

/// The layout of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DiskLayout {
    disk: BoxFileDisk,
    refcount_tables: u64,
    refcount_blocks: u64,
}

impl DiskLayout {
    /// # Errors
    /// `Corrupt` for figures that no disk has.
    pub(super) fn of(disk: BoxFileDisk) -> Result<Self> {
        let BoxFileDisk { virtual_size, tables, clusters, .. } = disk;
        let is_size =
            virtual_size > 0 && virtual_size <= MAX_VIRTUAL_SIZE && virtual_size.is_multiple_of(512);
        if !is_size || tables > virtual_size.div_ceil(PER_L1_ENTRY) || clusters > tables * PER_TABLE {
            return Err(Error::corrupt(format!(
                "no disk has {virtual_size} bytes in {clusters} clusters and {tables} tables"
            )));
        }
        let mut layout = Self { disk, refcount_tables: 1, refcount_blocks: 1 };
        // Refcounts count themselves, so that what they need is found by trying.
        loop {
            let blocks = layout.all_clusters().div_ceil(PER_REFCOUNT_BLOCK);
            let refcount_tables = blocks.div_ceil(CLUSTER / 8);
            if (blocks, refcount_tables) == (layout.refcount_blocks, layout.refcount_tables) {
                return Ok(layout);
            }
            layout = Self { refcount_blocks: blocks, refcount_tables, ..layout };
        }
    }

    pub(super) fn l1_entries(&self) -> u64 {
        self.disk.virtual_size.div_ceil(PER_L1_ENTRY)
    }

    /// Clusters of the L1 table.
    pub(super) fn l1_clusters(&self) -> u64 {
        self.l1_entries().div_ceil(CLUSTER / 8)
    }

    fn l1_at(&self) -> u64 {
        (1 + self.refcount_tables + self.refcount_blocks) * CLUSTER
    }

    /// Offset of the L2 table `number`, counted from 0.
    pub(super) fn table_at(&self, number: u64) -> u64 {
        self.l1_at() + (self.l1_clusters() + number) * CLUSTER
    }

    /// Offset of the cluster of data `number`, counted from 0.
    pub(super) fn cluster_at(&self, number: u64) -> u64 {
        self.table_at(self.disk.tables) + number * CLUSTER
    }

    /// Whether the disk is long enough for the cluster `number` of it.
    pub(super) fn has_cluster(&self, number: u64) -> bool {
        number < self.disk.virtual_size.div_ceil(CLUSTER)
    }

    /// Whether the disk has so many tables and clusters.
    pub(super) fn has_counts(&self, tables: u64, clusters: u64) -> bool {
        (self.disk.tables, self.disk.clusters) == (tables, clusters)
    }

    fn all_clusters(&self) -> u64 {
        self.cluster_at(self.disk.clusters) / CLUSTER
    }

    /// Bytes of the file.
    pub(super) fn length(&self) -> u64 {
        self.all_clusters() * CLUSTER
    }

    /// The first cluster, with the name of the file below if there is to be one.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is too long.
    pub(super) fn head(&self, backing: Option<(&Path, BackingFormat)>) -> Result<Vec<u8>> {
        let place = HeaderPlace {
            virtual_size: self.disk.virtual_size,
            l1_entries: self.l1_entries(),
            l1_at: self.l1_at(),
            refcount_tables: self.refcount_tables,
        };
        let backing = backing.map(|(path, format)| backing_name(path, format)).transpose()?;
        let mut head = header_bytes(&place, backing);
        head.resize(CLUSTER as usize, 0);
        Ok(head)
    }

    /// The clusters between the first one and the L1 table: refcount tables, and blocks of refcounts.
    pub(super) fn refcounts(&self) -> impl Iterator<Item = Vec<u8>> + use<> {
        let Self { refcount_tables, refcount_blocks, .. } = *self;
        let total = self.all_clusters();
        let table = move |number: u64| {
            let first = number * (CLUSTER / 8);
            let entries = (first..(first + CLUSTER / 8).min(refcount_blocks))
                .flat_map(move |block| ((1 + refcount_tables + block) * CLUSTER).to_be_bytes());
            filled(entries.collect())
        };
        let block = move |number: u64| {
            let counted = (total - number * PER_REFCOUNT_BLOCK).min(PER_REFCOUNT_BLOCK);
            filled(1_u16.to_be_bytes().repeat(counted as usize))
        };
        (0..refcount_tables).map(table).chain((0..refcount_blocks).map(block))
    }
}

/// A cluster that begins with `bytes`.
pub(super) fn filled(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(CLUSTER as usize, 0);
    bytes
}
