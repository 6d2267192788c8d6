//! Everything a tar entry can say, in every way it can be said.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use boxlite_testkit::program::run;

use crate::archive::{Archive, Blob, Compression, Meta, meta};
use crate::oracle::{Mount, able, assert_same, build_at, check, now, options, verify};

fn one(archive: &Archive) -> Vec<Blob> {
    vec![Blob::new(&archive.finish(), Compression::Gzip)]
}

#[test]
fn names_are_bytes_of_any_length_and_encoding() {
    let mut layer = Archive::new();
    let long = "n".repeat(255);
    let path = format!("{}/{long}", "directory/".repeat(20));
    layer.file(&path, b"pax").symlink("pax-link", &path).hardlink("pax-hard", &path);
    layer.entry(b'0', b"latin-\xe4\xff\xfe", b"", &meta(0o600), b"not UTF-8, pax");
    layer.raw(&{
        let mut header = crate::archive::Header::new(b'0', b"raw-\xf0\x80\n\t");
        header.octal(100..108, 0o600);
        header.bytes()
    });
    for (typeflag, body) in
        [(b'L', format!("{}/gnu\0", "long/".repeat(40))), (b'K', format!("{}\0", "to/".repeat(50)))]
    {
        let mut header = crate::archive::Header::new(typeflag, b"././@LongLink");
        header.block[257..265].copy_from_slice(b"ustar  \0");
        header.octal(124..136, body.len() as u64);
        layer.raw(&header.bytes()).padded(body.as_bytes());
    }
    layer.symlink("short", "short");
    let mut prefixed = crate::archive::Header::new(b'5', b"with-prefix");
    prefixed.block[345..356].copy_from_slice(b"some/prefix");
    layer.raw(&prefixed.bytes());
    let mut old = crate::archive::Header::new(0, b"v7-directory/");
    old.block[257..265].fill(0);
    layer.raw(&old.bytes());
    verify("names", &one(&layer), &options());
}

#[test]
fn times_owners_and_modes_keep_all_bits() {
    let mut layer = Archive::new();
    // Later times make umoci's nanoseconds overflow.
    let times = ["0", "1.000000001", "-1.5", "-2147483648.25", "4294967296.999999999", "9223372036"];
    for (number, time) in times.into_iter().enumerate() {
        let with = Meta { mtime: time.to_owned(), ..meta(0o7777) };
        layer.entry(b'0', format!("time-{number}").as_bytes(), b"", &with, b"");
        layer.entry(b'2', format!("link-{number}").as_bytes(), b"t", &with, b"");
    }
    for (number, id) in [0, 65_535, 65_536, 2_097_151, 2_097_152, 0xffff_fffe].into_iter().enumerate() {
        let with = Meta { uid: id, gid: id / 2, ..meta(0o1711) };
        layer.entry(b'5', format!("id-{number}").as_bytes(), b"", &with, b"");
        layer.entry(b'2', format!("id-link-{number}").as_bytes(), b"t", &with, b"");
    }
    layer.entry_with(b'0', b"base256", b"", &meta(0o640), b"", &[], |header| {
        header.block[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xee, 0x6b, 0x28, 0]);
        header.block[136..148]
            .copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    });
    layer.device(b'3', "c", 255, 255).device(b'4', "d", 256, 0).device(
        b'3',
        "e",
        4095,
        0o377_7777 & 0xf_ffff,
    );
    verify("times and owners", &one(&layer), &options());
}

/// Mutation tried: the block's checksum without its number; e2fsck refuses.
#[test]
fn attributes_fit_inode_and_block() {
    let mut layer = Archive::new();
    layer.dir(".");
    let attribute = |name: &str, length: usize| (name.as_bytes().to_vec(), vec![b'a'; length]);
    let sets = [
        vec![attribute("user.small", 10)],
        vec![attribute("user.x", 68), attribute("user.y", 1)],
        vec![attribute("user.large", 2500), attribute("security.capability", 20), attribute("trusted.t", 64)],
        (0..40).map(|number| attribute(&format!("user.many-{number:02}"), number + 1)).collect(),
        vec![attribute("user.max", 4096 - 32 - 4 - 20)],
    ];
    for (number, xattrs) in sets.into_iter().enumerate() {
        let mut xattrs = xattrs;
        for (name, value) in &mut xattrs {
            if name == b"security.capability" {
                *value = [&[1, 0, 0, 2][..], &[0; 16]].concat();
            }
        }
        let with = Meta { xattrs, ..meta(0o755) };
        layer.entry(b'0', format!("file-{number}").as_bytes(), b"", &with, b"data");
        layer.entry(b'5', format!("dir-{number}").as_bytes(), b"", &with, b"");
    }
    let trusted = Meta { xattrs: vec![attribute("trusted.on-link", 500)], ..meta(0o777) };
    layer.entry(b'2', b"fast", b"target", &trusted, b"").entry(b'2', b"slow", &[b's'; 100], &trusted, b"");
    // u::rwx u:1000:r-x g::r-x m::r-x o::r-- and the same as default.
    let acl: Vec<u8> =
        [(1_u16, 7_u16, u32::MAX), (2, 5, 1000), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 4, u32::MAX)]
            .into_iter()
            .fold(vec![2, 0, 0, 0], |acl, (tag, bits, id)| {
                [&acl[..], &tag.to_le_bytes(), &bits.to_le_bytes(), &id.to_le_bytes()].concat()
            });
    let lists =
        ["access", "default"].map(|kind| (format!("system.posix_acl_{kind}").into_bytes(), acl.clone()));
    layer.entry(b'5', b"listed", b"", &Meta { xattrs: lists.to_vec(), ..meta(0o754) }, b"");
    verify("attributes", &one(&layer), &options());
}

#[test]
fn an_upper_directory_entry_takes_the_attributes_over() {
    let with = |name: &str| Meta { xattrs: vec![(name.as_bytes().to_vec(), vec![1])], ..meta(0o700) };
    let (mut lower, mut upper) = (Archive::new(), Archive::new());
    lower.entry(b'5', b"d", b"", &with("user.old"), b"").file("d/f", b"");
    upper.entry(b'5', b"d", b"", &with("user.new"), b"");
    let blobs = [&lower, &upper].map(|layer| Blob::new(&layer.finish(), Compression::None));
    verify("attributes replaced", &blobs, &options());
}

/// Every sparse format GNU tar can write.
#[test]
fn sparse_files_in_every_format() {
    if !able("sparse") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for (name, size, pieces) in [
        ("empty", 1 << 20, &[][..]),
        ("ends-in-hole", 9_000_001, &[(0, 5000), (1 << 20, 1), (5_000_000, 100_000)]),
        ("ends-in-data", 1 << 30, &[(3 << 20, 4096), ((1 << 30) - 100, 100)]),
        ("many", 64 << 20, &[(0, 1); 1]),
    ] {
        let file = fs::File::create(tree.join(name)).unwrap();
        file.set_len(size).unwrap();
        for &(offset, length) in pieces {
            file.write_all_at(&vec![b'x'; length], offset).unwrap();
        }
        if name == "many" {
            for piece in 0..200 {
                file.write_all_at(b"piece", piece * 300_000).unwrap();
            }
        }
    }
    let versions: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ];
    for version in versions {
        let tar = scratch.path().join("layer.tar");
        let mut command = Command::new("tar");
        command.arg("-cSf").arg(&tar).args(version).arg("--mtime=@1600000000").arg("-C").arg(&tree).arg(".");
        run(&mut command);
        let blob = Blob::new(&fs::read(&tar).unwrap(), Compression::Gzip);
        let image = scratch.path().join("image");
        let report = build_at(&image, &[blob], &options()).unwrap();
        check(&image);
        // Debian's umoci cannot read GNU's own format, so GNU tar is the oracle here.
        let reference = scratch.path().join("reference");
        fs::create_dir(&reference).unwrap();
        run(Command::new("tar").arg("-xSpf").arg(&tar).arg("-C").arg(&reference));
        let mount = Mount::new(&image, &scratch.path().join("mount"), "ro,loop");
        assert_same(&mount.at, &reference, now());
        drop(mount);
        fs::remove_dir_all(&reference).unwrap();
        fs::remove_file(&image).unwrap();
        assert!(report.content > 1 << 30 && report.written < 8 << 20, "{version:?}: {report:?}");
    }
}

/// Mutation tried: `MIN_HOLE` zeros left out of the logical position; content differs.
#[test]
fn blocks_of_zeros_become_holes_and_content_stays() {
    if !able("zeros") {
        return;
    }
    let mut layer = Archive::new();
    let block = |fill: u8, count: usize| vec![fill; count * 4096];
    let contents = [
        block(0, 300),
        [block(0, 1), block(1, 1), block(0, 15), block(2, 1), block(0, 16), block(3, 1), vec![0; 100]]
            .concat(),
        [block(1, 1), vec![0; 5000], block(1, 3), block(0, 40), vec![7]].concat(),
        (0..700).flat_map(|number| [block((number % 7) as u8 + 1, 1), block(0, 16)].concat()).collect(),
        (0..6000).flat_map(|number| [block(1, 1), block(0, 16 + number % 2)].concat()).collect(),
        vec![0],
        vec![1; 4096],
        vec![1; 4097],
    ];
    for (number, content) in contents.iter().enumerate() {
        layer.file(&format!("zeros-{number}"), content);
    }
    let blobs = [Blob::new(&layer.finish(), Compression::Zstd)];
    verify("zeros", &blobs, &options());
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    build_at(&image, &blobs, &options()).unwrap();
    let mount = Mount::new(&image, &scratch.path().join("mount"), "ro,loop");
    let blocks = |number: usize| mount.at.join(format!("zeros-{number}")).metadata().unwrap().blocks() / 8;
    assert_eq!((blocks(0), blocks(1), blocks(5), blocks(6), blocks(7)), (0, 18, 0, 1, 2));
    // 700 extents need 3 leaves of a tree, 6000 need 18 and one level more.
    assert_eq!((blocks(3), blocks(4)), (703, 6000 + 18 + 1));
}

/// Two levels of hash index, found name by name through the kernel.
#[test]
fn huge_directories_are_indexed() {
    if !able("huge") {
        return;
    }
    let mut layer = Archive::new();
    layer.dir("short").dir("long").dir("dirs");
    for number in 0..20_000 {
        layer.file(&format!("short/{number}"), b"");
    }
    for number in 0..9000 {
        layer.entry(b'0', format!("long/{number:->200}").as_bytes(), b"", &meta(0o600), b"");
    }
    for number in 0..3000 {
        layer.dir(&format!("dirs/{number}"));
        layer.entry(
            b'0',
            &[&b"short/\xff\xfe"[..], format!("{number}").as_bytes()].concat(),
            b"",
            &meta(0o600),
            b"",
        );
    }
    let blobs = one(&layer);
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    build_at(&image, &blobs, &options()).unwrap();
    check(&image);
    {
        let mount = Mount::new(&image, &scratch.path().join("mount"), "loop");
        for number in 0..20_000 {
            assert!(mount.at.join(format!("short/{number}")).exists(), "{number}");
        }
        for number in 0..9000 {
            assert!(mount.at.join(format!("long/{number:->200}")).exists(), "{number}");
        }
        // The kernel can go on in these indexes.
        for number in 0..2000 {
            fs::write(mount.at.join(format!("long/{number:+>200}")), b"").unwrap();
            fs::remove_file(mount.at.join(format!("short/{number}"))).unwrap();
        }
        assert_eq!(fs::read_dir(mount.at.join("long")).unwrap().count(), 11_000);
    }
    check(&image);
    let listing = Command::new("debugfs").arg("-R").arg("htree_dump /long").arg(&image).output().unwrap();
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    assert!(listing.contains("Indirect levels: 1"), "{}", &listing[..listing.len().min(400)]);
    verify("huge", &blobs, &options());
}

#[test]
fn gnu_tar_and_deep_trees() {
    if !able("deep") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    let deep = (0..250).fold(tree.clone(), |path, number| path.join(format!("d{number}")));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("leaf"), b"leaf").unwrap();
    for format in ["gnu", "pax", "posix"] {
        let tar = scratch.path().join(format!("{format}.tar"));
        run(Command::new("tar")
            .arg("-cf")
            .arg(&tar)
            .arg(format!("--format={format}"))
            .arg("-C")
            .arg(&tree)
            .arg("."));
        verify(format, &[Blob::new(&fs::read(&tar).unwrap(), Compression::Gzip)], &options());
    }
}
