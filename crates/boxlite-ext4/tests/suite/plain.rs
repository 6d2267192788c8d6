//! An ordinary image.

use crate::archive::{Archive, Blob, Compression, Meta, meta};
use crate::oracle::{options, verify};

/// Two layers with every file type, checked in all respects.
#[test]
fn ordinary_layers_come_out_as_umoci_unpacks_them() {
    let data: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut lower = Archive::new();
    lower.dir("./").dir("bin").file("bin/sh", &data).file("bin/empty", b"").hardlink("bin/bash", "bin/sh");
    lower.dir("etc").file("etc/passwd", b"root:x:0:0\n").symlink("lib", "usr/lib").dir("usr").dir("usr/lib");
    lower.symlink("long", &"x/".repeat(200)).file("lib/libc.so", b"through the link");
    lower.device(b'3', "null", 1, 3).device(b'4', "sda", 8, 0).device(b'3', "big", 300, 70_000);
    lower.entry(b'6', b"fifo", b"", &meta(0o620), b"");
    let capability = vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let rich = Meta {
        mode: 0o4755,
        uid: 3_000_000_000,
        gid: 4_000_000_000,
        mtime: "1700000000.123456789".to_owned(),
        xattrs: vec![
            (b"security.capability".to_vec(), capability),
            (b"user.large".to_vec(), vec![b'v'; 2500]),
            (b"user.empty".to_vec(), b"".to_vec()),
        ],
    };
    lower.entry(b'0', b"rich", b"", &rich, b"#!");
    let mut upper = Archive::new();
    upper
        .dir("etc")
        .file("etc/.wh.passwd", b"")
        .file("etc/hosts", b"127.0.0.1\n")
        .file("bin/empty", b"no more");
    upper.hardlink("usr/lib/shell", "bin/sh");
    let blobs = [
        Blob::new(&lower.finish(), Compression::Gzip),
        Blob::new(&upper.finish(), Compression::Zstd),
        Blob::new(&Archive::new().dir("late").finish(), Compression::None),
    ];
    verify("ordinary_layers", &blobs, &options());
}
