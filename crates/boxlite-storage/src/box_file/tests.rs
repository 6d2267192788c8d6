use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use boxlite_testkit::oracle;
use boxlite_types::{BoxFileDisk, BoxFileHead, BoxOptions, Error, ErrorKind, ImageConfig, Platform, Result};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::layout::{COPIED, DiskLayout, ZEROS};
use super::*;
use crate::disk::qcow2::{BackingFormat, CLUSTER, MAX_VIRTUAL_SIZE};

fn head(relative: bool) -> BoxFileHead {
    BoxFileHead {
        format: BoxFileHead::FORMAT,
        exported_at: Timestamp::UNIX_EPOCH,
        platform: Platform::host(),
        name: "web".into(),
        image: format!("sha256:{}", "a".repeat(64)),
        image_reference: "alpine".into(),
        image_config: ImageConfig::default(),
        disk_digest: "b".repeat(64),
        disk_image_size: 1 << 20,
        options: BoxOptions::default(),
        disk: BoxFileDisk { virtual_size: 0, relative, tables: 0, clusters: 0 },
    }
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{program} {arguments:?}: {said}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A raw file of 700 MiB, a base above it and an overlay above that, which was cleared in part.
fn chain(directory: &Path) -> (PathBuf, Vec<PathBuf>) {
    let [raw, base, top] = ["raw", "base", "top"].map(|name| directory.join(name));
    run("qemu-img", &["create", "-q", "-f", "raw", text(&raw), "700M"]);
    run(
        "qemu-io",
        &["-f", "raw", "-c", "write -q -P 0xee 0 3M", "-c", "write -q -P 0xdd 600M 1M", text(&raw)],
    );
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", text(&raw), text(&base), "700M"]);
    let writes = ["-c", "write -q -P 1 64k 192k", "-c", "write -q -P 2 650M 128k"];
    run("qemu-io", &[&["-f", "qcow2"][..], &writes, &[text(&base)]].concat());
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", text(&base), text(&top), "700M"]);
    let writes = ["-c", "write -q -P 3 128k 5k", "-c", "write -q -z 192k 128k", "-c", "write -q -z 1M 64k"];
    run("qemu-io", &[&["-f", "qcow2"][..], &writes, &[text(&top)]].concat());
    (raw, vec![top, base])
}

fn exported(paths: &[PathBuf], relative: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(head(relative), &DiskSource::open(paths, None, 700 << 20).unwrap(), &mut bytes).unwrap();
    bytes
}

fn import(bytes: impl Read, to: &Path, backing: Option<&Path>) -> Result<BoxFileHead> {
    let reader = BoxFileReader::open(bytes)?;
    let head = reader.head().clone();
    let backing = backing.map(|path| (path, BackingFormat::Raw));
    reader.receive(&File::create(to).unwrap(), to, backing, |_| Ok(()))?;
    Ok(head)
}

#[test]
fn what_is_imported_is_the_disk_that_was_exported() {
    if !oracle::require("qemu-img") || !oracle::require("qemu-io") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (raw, paths) = chain(directory.path());
    let [inside, whole, relative] = ["inside", "whole", "relative"].map(|name| directory.path().join(name));

    let bytes = exported(&paths, true);
    let imported = import(&bytes[..], &relative, Some(&raw)).unwrap();
    // 64 and 128 KiB, 650 MiB and the one behind it; 192 KiB of the base is hidden.
    assert_eq!((imported.disk.virtual_size, imported.disk.clusters, imported.disk.tables), (700 << 20, 4, 2));
    run("qemu-img", &["check", "-q", text(&relative)]);
    run("qemu-img", &["compare", "-q", text(&relative), text(&paths[0])]);

    // Without the raw file below, on which nothing of these two stands.
    for (from, onto) in [(&paths[1], ""), (&paths[0], text(&paths[1]))] {
        let format: &[&str] = if onto.is_empty() { &[] } else { &["-F", "qcow2"] };
        run("qemu-img", &[&["rebase", "-q", "-u", "-b", onto][..], format, &[text(from)]].concat());
    }
    let bytes = exported(&paths, false);
    assert!(bytes.len() < 1 << 20, "{} bytes of a sparse disk", bytes.len());
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        names.push(entry.path().unwrap().to_str().unwrap().to_owned());
        if names.len() == 2 {
            std::io::copy(&mut entry, &mut File::create(&inside).unwrap()).unwrap();
        }
    }
    assert_eq!(names, [HEAD, DISK, SUMS]);
    import(&bytes[..], &whole, None).unwrap();
    for disk in [&inside, &whole] {
        run("qemu-img", &["check", "-q", text(disk)]);
        run("qemu-img", &["compare", "-q", text(disk), text(&paths[0])]);
    }
}

/// A disk of 1 MiB whose clusters 1 and 3 hold bytes.
fn small() -> (BoxFileHead, DiskLayout, Vec<u8>) {
    let mut head = head(false);
    head.disk = BoxFileDisk { virtual_size: 1 << 20, relative: false, tables: 1, clusters: 2 };
    let layout = DiskLayout::of(head.disk).unwrap();
    let mut disk = layout.head(None).unwrap();
    layout.refcounts().for_each(|cluster| disk.extend(cluster));
    disk.resize(layout.length() as usize, 0);
    put(&mut disk, layout.table_at(0) - CLUSTER, layout.table_at(0) | COPIED);
    put(&mut disk, layout.table_at(0) + 8, layout.cluster_at(0) | COPIED);
    put(&mut disk, layout.table_at(0) + 24, layout.cluster_at(1) | COPIED);
    disk[layout.cluster_at(0) as usize..].fill(7);
    (head, layout, disk)
}

fn put(disk: &mut [u8], at: u64, entry: u64) {
    disk[at as usize..at as usize + 8].copy_from_slice(&entry.to_be_bytes());
}

/// A box file with sums that are right, whatever is in it.
fn packed(head: &BoxFileHead, disk: &[u8]) -> Vec<u8> {
    let head = serde_json::to_vec(head).unwrap();
    let sums = sums(&Sha256::digest(&head), &Sha256::digest(disk));
    let mut bytes = Vec::new();
    for (name, contents) in [(HEAD, &head[..]), (DISK, disk), (SUMS, &sums)] {
        bytes.extend(entry_header(name, contents.len() as u64));
        bytes.extend(contents);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.extend([0; 2 * BLOCK]);
    bytes
}

fn refused(bytes: &[u8]) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let error = import(bytes, &directory.path().join("disk"), None).expect_err("a hostile file was taken");
    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{}", error.chain());
    error
}

#[test]
fn no_byte_of_a_file_can_be_changed_cut_off_or_added() {
    let (head, layout, disk) = small();
    let right = packed(&head, &disk);
    let directory = tempfile::tempdir().unwrap();
    import(&right[..], &directory.path().join("disk"), None).unwrap();
    let disk_at = right.len() - 4 * BLOCK - disk.len();
    let interesting = (0..disk_at + BLOCK)
        .step_by(61)
        .chain((disk_at..right.len()).step_by(65_521))
        .chain([layout.cluster_at(0) as usize + disk_at + 5])
        .chain((right.len() - 4 * BLOCK..right.len()).step_by(37));
    for at in interesting {
        let mut changed = right.clone();
        changed[at] ^= 1;
        refused(&changed);
    }
    for length in (0..right.len()).step_by(65_521).chain([right.len() - 1]) {
        refused(&right[..length]);
    }
    for more in [&[0; 1][..], &[0; 1024], b"more"] {
        let error = refused(&[&right, more].concat());
        assert!(error.to_string().contains("behind its end"), "{error}");
    }
}

/// Each cluster that takes up room is admitted before it is written, and one of zeros takes up none: not even at the end, where
/// the file is as long as it says. Mutations tried: nobody is asked; the length is left to the last write.
#[test]
fn an_import_asks_for_what_it_writes_and_has_its_length() {
    let (head, layout, mut disk) = small();
    disk[layout.cluster_at(1) as usize..].fill(0);
    let bytes = packed(&head, &disk);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let receive = |admit: &mut dyn FnMut(u64) -> Result<()>| {
        let reader = BoxFileReader::open(&bytes[..]).unwrap();
        reader.receive(&File::create(&path).unwrap(), &path, None, admit)
    };
    let mut asked = Vec::new();
    receive(&mut |so_far| {
        asked.push(so_far);
        Ok(())
    })
    .unwrap();
    assert!(asked.is_sorted() && asked.last() == Some(&(layout.cluster_at(0) + CLUSTER)), "{asked:?}");
    assert_eq!(path.metadata().unwrap().len(), layout.length());
    let refused = receive(&mut |so_far| {
        if so_far > layout.cluster_at(0) { Err(Error::conflict("no room")) } else { Ok(()) }
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(path.metadata().unwrap().len(), layout.cluster_at(0), "no byte of what was refused");
}

/// A change of a file and its description, with the name of the change.
type Lie<'a> = (&'a str, &'a dyn Fn(&mut BoxFileHead, &mut Vec<u8>));

/// Sums are no seal: whoever writes a file writes its sums.
#[test]
fn a_file_whose_sums_are_right_is_refused_for_every_lie() {
    let (head, layout, disk) = small();
    let (l1, l2) = (layout.table_at(0) - CLUSTER, layout.table_at(0));
    let lies: [Lie<'_>; 20] = [
        ("a cluster is the header", &|_, disk| put(disk, l2 + 8, COPIED)),
        ("a cluster is another's", &|_, disk| put(disk, l2 + 24, layout.cluster_at(0) | COPIED)),
        ("a cluster is the table itself", &|_, disk| put(disk, l2 + 8, l2 | COPIED)),
        ("a cluster lies behind the end", &|_, disk| put(disk, l2 + 24, layout.length() | COPIED)),
        ("a cluster is compressed", &|_, disk| put(disk, l2 + 8, layout.cluster_at(0) | COPIED | 1 << 62)),
        ("a cluster is not ours alone", &|_, disk| put(disk, l2 + 8, layout.cluster_at(0))),
        ("a cluster is cleared without need", &|_, disk| put(disk, l2, ZEROS)),
        ("a table is another's", &|_, disk| put(disk, l1, layout.cluster_at(0) | COPIED)),
        ("a cluster behind the disk's end", &|_, disk| {
            put(disk, l2 + 24, 0);
            put(disk, l2 + 16 * 8, layout.cluster_at(1) | COPIED);
        }),
        ("a table behind the disk's end", &|_, disk| {
            put(disk, l1, 0);
            put(disk, l1 + 8, l2 | COPIED);
        }),
        ("a backing file", &|_, disk| {
            put(disk, 8, 512);
            disk[16..20].copy_from_slice(&11_u32.to_be_bytes());
            disk[512..523].copy_from_slice(b"/etc/shadow");
        }),
        ("an external data file", &|_, disk| put(disk, 72, 4)),
        ("encryption", &|_, disk| disk[35] = 2),
        ("a snapshot table", &|_, disk| disk[63] = 1),
        ("a huge L1 table", &|_, disk| disk[36..40].fill(0xff)),
        ("another refcount", &|_, disk| disk[2 * CLUSTER as usize + 1] = 2),
        ("another size in the header", &|_, disk| put(disk, 24, 2 << 20)),
        ("a table without an entry", &|head, disk| {
            head.disk = BoxFileDisk { tables: 1, clusters: 0, ..head.disk };
            let layout = DiskLayout::of(head.disk).unwrap();
            let l1 = layout.table_at(0) - CLUSTER;
            *disk = small_with(layout, &vec![0; layout.length() as usize]);
            disk[l1 as usize..].fill(0);
            put(disk, l1, layout.table_at(0) | COPIED);
        }),
        ("fewer clusters than there are", &|_, disk| put(disk, l2 + 24, 0)),
        ("a cluster more than the tables have", &|head, disk| {
            head.disk.clusters = 3;
            let layout = DiskLayout::of(head.disk).unwrap();
            *disk = small_with(layout, disk);
        }),
    ];
    for (what, lie) in lies {
        let (mut head, mut disk) = (head.clone(), disk.clone());
        lie(&mut head, &mut disk);
        let error = refused(&packed(&head, &disk));
        println!("{what}: {}", error.chain());
    }
    let figures = |virtual_size, tables, clusters| BoxFileHead {
        disk: BoxFileDisk { virtual_size, relative: false, tables, clusters },
        ..head.clone()
    };
    for bomb in [
        figures(u64::MAX, 1, 2),
        figures(1 << 50, 1, 2),
        figures(1 << 20, u64::MAX, 2),
        figures(1 << 20, 1, u64::MAX),
        figures(0, 0, 0),
        figures(1000, 1, 1),
    ] {
        refused(&packed(&bomb, &disk));
    }
    // Nothing is reckoned from figures that no disk has. Mutations tried: each of the three bounds left out.
    let is_layout = |virtual_size| {
        DiskLayout::of(BoxFileDisk { virtual_size, relative: false, tables: 0, clusters: 0 }).is_ok()
    };
    assert!(is_layout(512) && is_layout(MAX_VIRTUAL_SIZE));
    assert!(!is_layout(0) && !is_layout(1000) && !is_layout(MAX_VIRTUAL_SIZE + 512));
    let newer = refused(&packed(&BoxFileHead { format: 2, ..head }, &disk));
    assert_eq!(newer.kind(), ErrorKind::Unsupported);
    assert!(newer.to_string().contains("format 2"), "{newer}");
}

/// The small disk under another layout.
fn small_with(layout: DiskLayout, disk: &[u8]) -> Vec<u8> {
    let mut longer = layout.head(None).unwrap();
    layout.refcounts().for_each(|cluster| longer.extend(cluster));
    longer.extend(&disk[longer.len()..]);
    longer.resize(layout.length() as usize, 9);
    longer
}

#[test]
fn what_is_no_box_file_is_told_from_one_that_is_damaged() {
    for other in [&b"PK\x03\x04"[..], &[0x1f, 0x8b, 8, 0]] {
        refused(&other.repeat(400));
    }
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut tar::Header::new_gnu(), "etc/passwd", &b"root"[..]).unwrap();
    let error = refused(&archive.into_inner().unwrap());
    assert!(error.to_string().contains("boxlite import"), "{error}");
}

/// Mutation tried: the bound on `box.json`; without it a reader sets aside whatever a file says.
#[test]
fn a_description_beyond_its_bound_is_not_read() {
    for size in [MAX_HEAD + 1, 1 << 33] {
        let error = refused(&entry_header(HEAD, size));
        assert!(error.to_string().contains("this is not a box file"), "{error}");
    }
}

/// In a relative file a cluster may be cleared, but none that the disk does not have.
#[test]
fn a_cleared_cluster_is_one_of_the_disk() {
    let (mut head, layout, disk) = small();
    head.disk.relative = true;
    let import_with_zeros_at = |cluster: u64| {
        let mut disk = disk.clone();
        put(&mut disk, layout.table_at(0) + cluster * 8, ZEROS);
        let directory = tempfile::tempdir().unwrap();
        import(&packed(&head, &disk)[..], &directory.path().join("disk"), None)
    };
    assert!(import_with_zeros_at(15).is_ok());
    assert_eq!(import_with_zeros_at(16).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Overlays are written by QEMU, which a guest may have taken over. What it may have written is exported or refused, and is never a
/// path, a size or an offset to follow out of the file. Mutations tried: each look at the header and at entries.
#[test]
fn an_overlay_that_was_tampered_with_is_refused() {
    if !oracle::require("qemu-img") || !oracle::require("qemu-io") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    run("qemu-img", &["create", "-q", "-f", "qcow2", text(&disk), "700M"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -q -P 1 64k 64k", text(&disk)]);
    let right = std::fs::read(&disk).unwrap();
    let open = |bytes: &[u8]| {
        std::fs::write(&disk, bytes).unwrap();
        let source = DiskSource::open(std::slice::from_ref(&disk), None, 0)?;
        let mut written = Vec::new();
        write(head(false), &source, &mut written).map(|()| written)
    };
    assert!(open(&right).is_ok());
    let long = |at: usize| u64::from_be_bytes(right[at..at + 8].try_into().unwrap());
    let l1 = long(40) as usize;
    let l2 = (long(l1) & 0x00ff_ffff_ffff_fe00) as usize;
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = right.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    for (what, changed) in [
        ("encryption", with(32, &1_u32.to_be_bytes())),
        ("an external data file", with(72, &4_u64.to_be_bytes())),
        ("corruption", with(72, &2_u64.to_be_bytes())),
        ("tables of another size", with(36, &1_u32.to_be_bytes())),
        ("huge tables", with(36, &u32::MAX.to_be_bytes())),
        ("a huge disk", with(24, &(1_u64 << 60).to_be_bytes())),
        ("other clusters", with(20, &9_u32.to_be_bytes())),
        ("another version", with(4, &2_u32.to_be_bytes())),
        ("a compressed cluster", with(l2 + 8, &(long(l2 + 8) | 1 << 62).to_be_bytes())),
    ] {
        let error = open(&changed).err().unwrap_or_else(|| panic!("{what} was exported"));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {}", error.chain());
    }
    // A table or a cluster behind the end of the file reads as zeros.
    for far in
        [with(l1, &(1_u64 << 50 | COPIED).to_be_bytes()), with(l2 + 8, &(1_u64 << 50 | COPIED).to_be_bytes())]
    {
        let written = open(&far).unwrap();
        assert!(!written.windows(4096).any(|bytes| bytes == [1; 4096]));
    }
    // What the last cluster holds behind the disk's end is none of the disk. Mutation tried: whole clusters are read.
    run("qemu-img", &["create", "-q", "-f", "qcow2", text(&disk), "65k"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -q -P 1 64k 1k", text(&disk)]);
    let mut longer = std::fs::read(&disk).unwrap();
    let long = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let l2 = (long(&longer, long(&longer, 40) as usize) & 0x00ff_ffff_ffff_fe00) as usize;
    let data = (long(&longer, l2 + 8) & 0x00ff_ffff_ffff_fe00) as usize;
    longer.resize(data + CLUSTER as usize, 0);
    longer[data + 1024..].fill(9);
    let written = open(&longer).unwrap();
    assert!(written.windows(1024).any(|bytes| bytes == [1; 1024]));
    assert!(!written.windows(64).any(|bytes| bytes == [9; 64]));
    std::fs::remove_file(&disk).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &disk).unwrap();
    let link = DiskSource::open(std::slice::from_ref(&disk), None, 0).unwrap_err();
    assert!(link.chain().to_string().contains("symbolic links"), "{}", link.chain());
}
