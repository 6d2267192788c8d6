//! Layers applied to a filesystem that exists.

use std::fs::File;
use std::ops::ControlFlow;

use boxlite_ext4::{BuildErrorKind, DeltaOptions, build_delta};

use crate::archive::{Archive, Blob, Compression, Meta, meta, sha256};
use crate::chain::{Chain, Delta, identity, verify_chain};
use crate::oracle::{Mount, able, check};

const SIZE: u64 = 256 << 20;

pub(crate) fn blob(layer: &Archive) -> Blob {
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
pub(crate) fn lower() -> Archive {
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

/// What a delta adds or changes keeps every byte of its name, every nanosecond, capability and device number.
#[test]
fn names_times_capabilities_and_devices_of_a_delta_are_kept() {
    let base = [blob(&lower())];
    let capability = |bits: u8| {
        let mut value = vec![1, 0, 0, 2];
        value.extend_from_slice(&[0, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        (b"security.capability".to_vec(), value)
    };
    let mut upper = Archive::new();
    let able = Meta { xattrs: vec![capability(4)], mtime: "1700000001.987654321".to_owned(), ..meta(0o755) };
    let other = Meta { xattrs: vec![capability(8)], mtime: "-1.000000001".to_owned(), ..meta(0o755) };
    upper.entry(b'0', b"b/\xfe\xffadded", b"", &able, b"added");
    upper.entry(b'0', b"b/\xff\xfename", b"", &able, b"replaced");
    upper.entry(b'0', b"rich", b"", &other, b"#!").entry(b'0', b"a/one", b"", &able, b"lower one");
    upper.hardlink("b/linked-below", "a/two").device(b'3', "disk", 4, 1_000_000).device(b'4', "new", 7, 300);
    upper.file(&format!("b/{}", "é".repeat(127)), b"long").file(&format!("a/.wh.{}", "n".repeat(249)), b"");
    let upper = [blob(&upper)];
    verify_chain("unusual layers", &[&base, &upper], SIZE, true);
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
    let [mut base, mut few, mut many, mut more, mut gone] = [(); 5].map(|()| Archive::new());
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
    // The index has two levels now, and its first node is full.
    for number in 0..3000 {
        more.entry(b'0', format!("long/{number:=>200}").as_bytes(), b"", &meta(0o600), b"");
    }
    gone.file("d/.wh..wh..opq", b"").file("d/last", b"").file(".wh.long", b"");
    let segments = [&base, &few, &many, &more, &gone].map(blob);
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
    let mut made = Vec::new();
    for (name, compression) in [("one", Compression::Gzip), ("two", Compression::Zstd)] {
        let tar = lower().finish();
        let (mut chain, _) =
            Chain::build(&scratch.path().join(name), &[&[Blob::new(&tar, compression)]], SIZE).unwrap();
        chain.add(&[Blob::new(&upper.finish(), compression)]).unwrap();
        made.push(chain.deltas.remove(0));
    }
    assert!(made[0] == made[1]);
    // A change of these bytes needs another `boxlite_ext4::BUILDER_VERSION`, as that of a whole image does.
    let blocks = made[0].blocks.iter();
    let bytes: Vec<u8> =
        blocks.flat_map(|(number, block)| [&number.to_le_bytes()[..], block].concat()).collect();
    assert_eq!(
        hex::encode(sha256(&bytes)),
        "01b89e3f47502f28899f16532aa7b104f04b2f9fe2194b1faf86e381984dc06e"
    );
    assert!(made[0].calls.iter().any(|&(_, _, wrote)| !wrote), "a file that was replaced is discarded");
}

/// The count of subdirectories overflows, and stays so.
///
/// Mutation tried: the overflow not heeded in `links_of`; e2fsck refuses.
#[test]
fn very_many_subdirectories_are_counted_across_deltas() {
    let [mut base, mut more, mut fewer] = [(); 3].map(|()| Archive::new());
    for number in 0..64_990 {
        base.dir(&format!("d/{number}"));
    }
    for number in 0..20 {
        more.dir(&format!("d/more-{number}"));
    }
    for number in 0..30 {
        fewer.file(&format!("d/.wh.{number}"), b"");
    }
    let segments = [&base, &more, &fewer].map(blob);
    let scratch = tempfile::tempdir().unwrap();
    let (image, flat) = (scratch.path().join("image"), scratch.path().join("flat"));
    let (mut chain, _) = Chain::build(&image, &[&segments[..1]], 2 << 30).unwrap();
    for segment in &segments[1..] {
        chain.add(std::slice::from_ref(segment)).unwrap();
        chain.flatten(&image, &flat);
        check(&flat);
    }
}

/// Space and inodes that whiteouts free are used again once the end is reached, and a full filesystem is refused.
#[test]
fn a_small_filesystem_is_filled_emptied_and_filled_again() {
    let size = 64 << 20;
    let [mut base, mut second, mut third, mut fourth] = [(); 4].map(|()| Archive::new());
    base.file("a", &noise(24_000_000, 1)).file("b", &noise(20_000_000, 2));
    second.file(".wh.a", b"").file("c", &noise(22_000_000, 3));
    third.file(".wh.b", b"").file("d", &noise(18_000_000, 4)).file("c", &noise(22_000_000, 5));
    fourth.file("e", &noise(30_000_000, 6));
    let segments = [&base, &second, &third].map(blob);
    let segments: Vec<&[Blob]> = segments.iter().map(std::slice::from_ref).collect();
    verify_chain("refilled", &segments, size, false);
    let scratch = tempfile::tempdir().unwrap();
    let (mut chain, _) = Chain::build(&scratch.path().join("image"), &segments, size).unwrap();
    let error = chain.add(&[blob(&fourth)]).unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::TooLarge);
    assert!(error.to_string().contains("\"e\""), "{error}");
    let mut inodes = Archive::new();
    for number in 0..5000 {
        inodes.file(&format!("f/{number}"), b"");
    }
    let error = chain.add(&[blob(&inodes)]).unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::TooLarge, "{error}");
}

/// Files in hundreds of pieces: every other block changes, then other ones, then nothing is left.
#[test]
fn fragmented_files_keep_what_is_equal_and_free_what_is_not() {
    let zebra = |stride: usize, fill: u8| -> Vec<u8> {
        let block = |number: usize| if number.is_multiple_of(stride) { fill } else { number as u8 | 1 };
        (0..1500).flat_map(|number| vec![block(number); 4096]).collect()
    };
    let holes: Vec<u8> = (0..60)
        .flat_map(|number| [vec![number + 1; 4096], vec![0; 4096 * (15 + usize::from(number % 3))]].concat())
        .collect();
    let [mut base, mut second, mut third, mut fourth, mut last] = [(); 5].map(|()| Archive::new());
    base.file("zebra", &zebra(2000, 0)).file("holes", &holes);
    second
        .file("zebra", &zebra(2, 200))
        .file("holes", &[&holes[..900_000], &vec![0; 1_000_000], &holes[900_000..]].concat());
    third.file("zebra", &zebra(3, 201)).file("holes", &[&vec![9; 300_000], &holes[300_000..]].concat());
    // Two layers of one delta replace the same file, so blocks below survive twice.
    fourth.file("zebra", &zebra(5, 202));
    last.file(".wh.zebra", b"").file(".wh.holes", b"");
    let layers = [&base, &second, &third, &fourth, &last].map(blob);
    let reports =
        verify_chain("fragmented", &[&layers[..1], &layers[1..2], &layers[2..4], &layers[4..]], SIZE, true);
    if let [one, two, three] = reports.as_slice() {
        assert!(
            one.written < 4096 * 1300 && two.written < 4096 * 2500 && three.written < 4096 * 10,
            "{reports:?}"
        );
    }
}

/// Blocks of this delta that directly follow blocks below are not taken for blocks below.
///
/// Mutation tried: no gap behind the frontier; fails where the two adjoin.
#[test]
fn blocks_that_adjoin_those_below_are_told_apart() {
    for blocks in 1..=16 {
        let content = noise(blocks * 4096, 21);
        let with = |more: [u8; 2]| [&content[..], &[more[0]; 4096], &[more[1]; 4096]].concat();
        let [mut base, mut first, mut second, mut third] = [(); 4].map(|()| Archive::new());
        base.file("f", b"");
        first.file("f", &content);
        second.file("f", &with([1, 2]));
        third.file("f", &with([0, 3]));
        let layers = [&base, &first, &second, &third].map(blob);
        verify_chain("adjoining", &[&layers[..1], &layers[1..2], &layers[2..]], 64 << 20, false);
    }
}

/// A kernel can use what a chain of deltas makes.
#[test]
fn the_kernel_writes_to_a_flattened_chain() {
    if !able("flattened chain") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (image, flat) = (scratch.path().join("image"), scratch.path().join("flat"));
    let [mut one, mut two] = [(); 2].map(|()| Archive::new());
    one.file("a/.wh.sub", b"").file("b/.wh..wh..opq", b"");
    for number in 0..2000 {
        one.file(&format!("wide/{number:->60}"), b"x");
        two.file(&format!("wide/{number:+>60}"), b"y");
    }
    let segments = [&lower(), &one, &two].map(blob);
    let segments: Vec<&[Blob]> = segments.iter().map(std::slice::from_ref).collect();
    let (chain, _) = Chain::build(&image, &segments, SIZE).unwrap();
    chain.flatten(&image, &flat);
    {
        let mount = Mount::new(&flat, &scratch.path().join("mount"), "loop");
        for number in 0..2000 {
            std::fs::remove_file(mount.at.join(format!("wide/{number:->60}"))).unwrap();
            std::fs::write(mount.at.join(format!("wide/{number:=>60}")), b"kernel").unwrap();
        }
        std::fs::create_dir_all(mount.at.join("a/deep/er")).unwrap();
        std::fs::write(mount.at.join("a/deep/large"), noise(5_000_000, 3)).unwrap();
    }
    check(&flat);
    // A kernel has changed it, so it is not a filesystem to build upon any more.
    let changed = File::open(&flat).unwrap();
    let options = DeltaOptions::new(identity(3), identity(4));
    let error =
        build_delta(
            &changed,
            Vec::new(),
            &mut Delta::default(),
            &options,
            &mut |_| ControlFlow::Continue(()),
        )
        .unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::DamagedBelow, "{error}");
}
