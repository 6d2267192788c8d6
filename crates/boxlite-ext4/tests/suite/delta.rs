//! Layers applied to a filesystem that exists.

use crate::archive::{Archive, Blob, Compression, Meta, meta};
use crate::chain::{Chain, verify_chain};

const SIZE: u64 = 256 << 20;

fn blob(layer: &Archive) -> Blob {
    Blob::new(&layer.finish(), Compression::None)
}

fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 11) as u8 | 1
        })
        .collect()
}

/// A lower filesystem with something of everything.
fn lower() -> Archive {
    let mut lower = Archive::new();
    lower.dir(".").dir("a").file("a/one", b"lower one").file("a/two", &noise(9000, 2)).dir("a/sub");
    lower.file("a/sub/three", b"lower three").dir("a/sub/deep").file("a/sub/deep/four", &noise(5000, 3));
    lower.dir("b").file("b/one", b"b one").file("b/two", b"b two").hardlink("b/same", "a/one");
    lower.file("file", b"a file").dir("real").dir("real/inner").symlink("link", "real");
    lower.symlink("absolute", "/real/inner").symlink("long", &"t/".repeat(60));
    lower.file("large", &noise(3_000_000, 4)).device(b'3', "null", 1, 3).device(b'4', "disk", 300, 70_000);
    lower.entry(b'6', b"fifo", b"", &meta(0o620), b"");
    let rich = Meta {
        xattrs: vec![
            (b"user.large".to_vec(), vec![b'v'; 2500]),
            (
                b"security.capability".to_vec(),
                vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
        ],
        mtime: "1700000000.123456789".to_owned(),
        ..meta(0o4755)
    };
    lower.entry(b'0', b"rich", b"", &rich, b"#!").entry(b'5', b"rich-dir", b"", &rich, b"");
    lower.entry(b'0', b"b/\xff\xfename", b"", &meta(0o600), b"not UTF-8");
    lower.file(&format!("a/{}", "n".repeat(255)), b"long name");
    lower
}

#[test]
fn every_kind_of_change_comes_out_as_umoci_unpacks_it() {
    let base = [blob(&lower())];
    let mut one = Archive::new();
    // Whiteouts of both kinds, of files, trees, links with other names, and of nothing.
    one.file(".wh.large", b"").file("a/.wh.sub", b"").file("b/.wh..wh..opq", b"").file("b/new", b"in b");
    one.file("nowhere/.wh.nothing", b"")
        .file("a/.wh.absent", b"")
        .file(".wh.long", b"")
        .file(".wh.fifo", b"");
    // Replacement in all directions, and metadata alone.
    one.dir("file").file("file/inside", b"was a file").hardlink("a/linked", "a/two").symlink("null", "disk");
    one.entry(b'0', b"rich", b"", &Meta { uid: 7, ..meta(0o600) }, b"#!").dir("rich-dir");
    one.file("link/through", b"through a link below").device(b'3', "b-device", 9, 9);
    let mut two = Archive::new();
    two.file("a", b"was a directory").file("real/.wh.inner", b"").hardlink("again", "file/inside");
    two.file("b/new", b"second").file("b/.wh.new", b"").dir("b/deep").file("b/deep/er", &noise(20_000, 9));
    let mut three = Archive::new();
    three.dir("a").file("a/back", b"a directory again").file("disk", b"a file now").file(".wh.again", b"");
    three.entry(b'5', b".", b"", &Meta { gid: 5, ..meta(0o711) }, b"");
    let layers = [blob(&one), blob(&two), blob(&three)];
    verify_chain("delta of three", &[&base, &layers], SIZE, true);
    verify_chain("three deltas", &[&base, &layers[..1], &layers[1..2], &layers[2..]], SIZE, true);
}

/// Owner, mode and times of a file change without its content being written again; so does one page of a large file.
///
/// Mutation tried: `lies_below` always false; fails.
#[test]
fn metadata_and_single_pages_cost_what_they_change() {
    let content = noise(8_000_000, 11);
    let mut base = Archive::new();
    base.dir("d").file("d/large", &content).file("d/other", b"x").hardlink("d/name", "d/other");
    let mut owner = Archive::new();
    owner.entry(
        b'0',
        b"d/large",
        b"",
        &Meta { uid: 1000, mtime: "1.000000001".into(), ..meta(0o4711) },
        &content,
    );
    let mut page = Archive::new();
    let mut changed = content.clone();
    changed[4_100_000..4_100_010].fill(b'!');
    changed.extend_from_slice(b"and more");
    page.file("d/large", &changed).file("d/other", b"only one of two names");
    let mut shorter = Archive::new();
    shorter.file("d/large", &changed[..5_000_000]);
    let segments = [blob(&base), blob(&owner), blob(&page), blob(&shorter)];
    let segments: Vec<&[Blob]> = segments.iter().map(std::slice::from_ref).collect();
    let reports = verify_chain("metadata", &segments, SIZE, true);
    for (report, most) in reports.iter().zip([5, 12, 8]) {
        assert!(report.written <= most * 4096, "{report:?}");
    }
}

/// 20 000 names in one directory: what changes is a leaf or two, not the directory.
#[test]
fn large_directories_change_leaf_by_leaf() {
    let (mut base, mut few, mut many, mut gone) =
        (Archive::new(), Archive::new(), Archive::new(), Archive::new());
    base.dir("d").dir("long");
    for number in 0..20_000 {
        base.file(&format!("d/{number}"), b"");
    }
    for number in 0..4000 {
        base.entry(b'0', format!("long/{number:->200}").as_bytes(), b"", &meta(0o600), b"");
    }
    few.file("d/fresh", b"1").file("d/.wh.77", b"").file("d/500", b"replaced").dir("d/1000");
    for number in 0..9000 {
        many.file(&format!("d/new-{number}"), b"").file(&format!("d/.wh.{number}"), b"");
        many.entry(b'0', format!("long/{number:+>200}").as_bytes(), b"", &meta(0o600), b"");
    }
    gone.file("d/.wh..wh..opq", b"").file("d/last", b"").file(".wh.long", b"");
    let segments = [&base, &few, &many, &gone].map(blob);
    let segments: Vec<&[Blob]> = segments.iter().map(std::slice::from_ref).collect();
    let reports = verify_chain("large directories", &segments, SIZE, false);
    if let Some(few) = reports.first() {
        assert!(few.written <= 24 * 4096, "{few:?}");
    }
}

#[test]
fn the_same_layers_over_the_same_filesystem_give_the_same_calls() {
    let scratch = tempfile::tempdir().unwrap();
    let mut upper = Archive::new();
    upper.file("large", &noise(3_000_001, 8)).file("a/.wh.sub", b"").file("twice", &noise(70_000, 5));
    upper.file("twice", &noise(50_000, 6));
    let upper = blob(&upper);
    let mut made = Vec::new();
    for (name, compression) in [("one", Compression::Gzip), ("two", Compression::Zstd)] {
        let tar = lower().finish();
        let (mut chain, _) =
            Chain::build(&scratch.path().join(name), &[&[Blob::new(&tar, compression)]], SIZE).unwrap();
        chain.add(std::slice::from_ref(&upper)).unwrap();
        made.push(chain.deltas.remove(0));
    }
    assert!(made[0] == made[1]);
    assert!(made[0].calls.iter().any(|&(_, _, wrote)| !wrote), "a file that was replaced is discarded");
}
