//! Writing a box file as a stream.

use std::io::Write;

use boxlite_types::{BoxFileDisk, BoxFileHead, Doing, Error, Result};
use sha2::{Digest as _, Sha256};

use super::layout::{COPIED, DiskLayout, ZEROS, filled};
use super::places::{ClusterPlace, DiskReader, DiskSource};
use super::{DISK, HEAD, MAX_HEAD, SUMS, entry_header, padding, sums};
use crate::disk::qcow2::{CLUSTER, PER_L1_ENTRY};

/// Writes the box of `head` with the disk of `source` to `out`. The figures of the disk in `head` are found here, but for
/// `relative`.
///
/// # Errors
/// `Corrupt` for a disk that cannot be read, or that changes meanwhile; what writing fails with.
pub fn write(mut head: BoxFileHead, source: &DiskSource, out: &mut dyn Write) -> Result<()> {
    let relative = head.disk.relative;
    let virtual_size = source.virtual_size();
    let mut disk = source.reader(relative)?;
    let parts = (0..virtual_size.div_ceil(PER_L1_ENTRY))
        .map(|number| DiskPart::of(&mut disk, number))
        .collect::<Result<Vec<_>>>()?;
    head.disk = BoxFileDisk {
        virtual_size,
        relative,
        tables: parts.iter().filter(|part| part.has_table).count() as u64,
        clusters: parts.iter().map(|part| part.clusters).sum(),
    };
    let layout = DiskLayout::of(head.disk)?;
    let described = serde_json::to_vec_pretty(&head)
        .map_err(|error| Error::bug("a box cannot be written down").because(error))?;
    if described.len() as u64 > MAX_HEAD {
        return Err(Error::invalid(format!(
            "what box {} was asked for has more than {MAX_HEAD} bytes",
            head.name
        )));
    }
    let head_sum = entry(out, HEAD, &described)?;
    put(out, &entry_header(DISK, layout.length()))?;
    let mut out = SummedWriter { out, hasher: Sha256::new() };
    out.put(&layout.head(None)?)?;
    for cluster in layout.refcounts() {
        out.put(&cluster)?;
    }
    put_tables(&mut out, &layout, &parts, &mut disk)?;
    // A source that has changed in length would shift everything after it.
    drop(disk);
    put_clusters(&mut out, &parts, &mut source.reader(relative)?)?;
    let disk_sum = out.hasher.finalize();
    let out = out.out;
    entry(out, SUMS, &sums(&head_sum, &disk_sum))?;
    put(out, &[0; 1024])
}

/// How much a part of the disk holds.
struct DiskPart {
    has_table: bool,
    clusters: u64,
}

impl DiskPart {
    fn of(disk: &mut DiskReader<'_>, number: u64) -> Result<Self> {
        let places = disk.part(number)?;
        let clusters = places.iter().filter(|place| place.has_bytes()).count() as u64;
        Ok(Self { has_table: places.iter().any(|place| *place != ClusterPlace::Nowhere), clusters })
    }
}

fn put_tables(
    out: &mut SummedWriter<'_>,
    layout: &DiskLayout,
    parts: &[DiskPart],
    disk: &mut DiskReader<'_>,
) -> Result<()> {
    let mut tables = 0..;
    let l1 = parts.iter().flat_map(|part| {
        let table = part.has_table.then(|| tables.next()).flatten();
        table.map_or(0, |number| layout.table_at(number) | COPIED).to_be_bytes()
    });
    let mut l1: Vec<u8> = l1.collect();
    l1.resize((layout.l1_clusters() * CLUSTER) as usize, 0);
    out.put(&l1)?;
    let mut clusters = 0;
    for (number, part) in parts.iter().enumerate().filter(|(_, part)| part.has_table) {
        let places = disk.part(number as u64)?;
        let first = clusters;
        let table = places.iter().flat_map(|place| {
            let entry = match place {
                ClusterPlace::Nowhere => 0,
                ClusterPlace::Zeros => ZEROS,
                ClusterPlace::Overlay { .. } | ClusterPlace::Image => {
                    clusters += 1;
                    layout.cluster_at(clusters - 1) | COPIED
                }
            };
            entry.to_be_bytes()
        });
        out.put(&filled(table.collect()))?;
        unchanged(clusters - first, part)?;
    }
    Ok(())
}

fn put_clusters(out: &mut SummedWriter<'_>, parts: &[DiskPart], disk: &mut DiskReader<'_>) -> Result<()> {
    let mut cluster = vec![0; CLUSTER as usize];
    for (number, part) in parts.iter().enumerate().filter(|(_, part)| part.clusters > 0) {
        let places = disk.part(number as u64)?;
        let first = number as u64 * (PER_L1_ENTRY / CLUSTER);
        let mut clusters = 0;
        for (at, place) in (first..).zip(&places).filter(|(_, place)| place.has_bytes()) {
            disk.read(at, *place, &mut cluster)?;
            out.put(&cluster)?;
            clusters += 1;
        }
        unchanged(clusters, part)?;
    }
    Ok(())
}

fn unchanged(clusters: u64, part: &DiskPart) -> Result<()> {
    if clusters == part.clusters {
        return Ok(());
    }
    Err(Error::corrupt("the disk changed while it was read"))
}

/// Writes a whole small entry; returns its SHA-256.
fn entry(out: &mut dyn Write, name: &str, contents: &[u8]) -> Result<Vec<u8>> {
    let size = contents.len() as u64;
    put(out, &entry_header(name, size))?;
    put(out, contents)?;
    put(out, &vec![0; padding(size)])?;
    Ok(Sha256::digest(contents).to_vec())
}

fn put(out: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).doing("writing", "the box file")
}

/// A writer that sums up what passes.
struct SummedWriter<'a> {
    out: &'a mut dyn Write,
    hasher: Sha256,
}

impl SummedWriter<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        put(self.out, bytes)
    }
}
