//! What must be refused, with a message that names layer and entry, and what only looks hostile.

use std::fs::File;
use std::ops::ControlFlow;

use boxlite_ext4::{BuildError, BuildErrorKind, BuildOptions, LayerLimits, LayerSource, build};

use crate::archive::{Archive, Blob, Compression, Header, Meta, meta, sha256};
use crate::chain::Chain;
use crate::oracle::{build_at, options};

fn refused(blobs: &[Blob], options: &BuildOptions) -> BuildError {
    let scratch = tempfile::tempdir().unwrap();
    build_at(&scratch.path().join("image"), blobs, options).expect_err("must be refused")
}

fn limited_to(limits: LayerLimits) -> BuildOptions {
    BuildOptions { limits, ..options() }
}

/// Builds `archive` above a harmless layer and expects a refusal that names layer 1 and the entry.
fn expect(archive: &Archive, kind: BuildErrorKind, entry: &str) -> String {
    let mut lower = Archive::new();
    lower.dir("dir").file("dir/file", b"x").symlink("loop-a", "loop-b").symlink("loop-b", "loop-a");
    let blobs = [&lower, archive].map(|layer| Blob::new(&layer.finish(), Compression::Gzip));
    let error = refused(&blobs, &options());
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.starts_with("layer 1 (sha256:") && text.contains(&format!("{entry:?}")), "{text}");
    // The same layer is refused for the same reason where it is applied to the other as a delta.
    let scratch = tempfile::tempdir().unwrap();
    let (mut chain, _) = Chain::build(&scratch.path().join("image"), &[&blobs[..1]], 64 << 20).unwrap();
    let delta = chain.add(&blobs[1..]).expect_err("must be refused").to_string();
    assert_eq!(delta.replacen("layer 0", "layer 1", 1), text);
    text
}

/// Mutation tried: `components` clamping at the root instead of refusing; fails.
#[test]
fn paths_that_climb_out_are_refused() {
    for name in ["../evil", "dir/../../evil", "/../evil", "./../../evil", ".."] {
        expect(Archive::new().file(name, b""), BuildErrorKind::Hostile, name);
    }
    for target in ["../outside", "/../../etc/shadow", "dir/../../x"] {
        expect(Archive::new().hardlink("link", target), BuildErrorKind::Hostile, "link");
    }
    expect(Archive::new().file(".wh...", b""), BuildErrorKind::Hostile, ".wh...");
    expect(Archive::new().file("dir/.wh..", b""), BuildErrorKind::Hostile, "dir/.wh..");
    expect(Archive::new().file("dir/.wh.", b""), BuildErrorKind::Hostile, "dir/.wh.");
    expect(Archive::new().file("../.wh.x", b""), BuildErrorKind::Hostile, "../.wh.x");
}

#[test]
fn links_that_lead_nowhere_are_refused() {
    expect(Archive::new().hardlink("link", "absent"), BuildErrorKind::Hostile, "link");
    expect(Archive::new().hardlink("link", "dir"), BuildErrorKind::Hostile, "link");
    expect(Archive::new().hardlink("link", "/"), BuildErrorKind::Hostile, "link");
    expect(Archive::new().hardlink("link", "dir/file/below"), BuildErrorKind::Hostile, "link");
    expect(Archive::new().file("loop-a/x", b""), BuildErrorKind::Hostile, "loop-a/x");
    expect(Archive::new().hardlink("link", "loop-a/x"), BuildErrorKind::Hostile, "link");
    expect(Archive::new().symlink("empty", ""), BuildErrorKind::Hostile, "empty");
    expect(Archive::new().file("own", b"").file("own/x", b""), BuildErrorKind::Hostile, "own/x");
    // A link chain that doubles at each step.
    let mut bomb = Archive::new();
    bomb.dir("b0");
    for step in 0..30 {
        let below = format!("b{step}/../");
        bomb.symlink(&format!("b{}", step + 1), &format!("{}b{step}", below.repeat(60)));
    }
    bomb.file("b30/x", b"");
    expect(&bomb, BuildErrorKind::Hostile, "b30/x");
}

#[test]
fn the_root_stays_a_directory() {
    for (typeflag, name) in [(b'0', "."), (b'2', "/"), (b'1', "dir/..")] {
        let mut archive = Archive::new();
        archive.entry(typeflag, name.as_bytes(), b"dir/file", &meta(0o777), b"");
        expect(&archive, BuildErrorKind::Hostile, name);
    }
}

#[test]
fn what_ext4_cannot_hold_is_refused_and_named() {
    let name = "n".repeat(256);
    expect(Archive::new().file(&name, b""), BuildErrorKind::TooLarge, &name);
    let path = "p/".repeat(2100);
    let text = expect(
        Archive::new().file(&format!("{path}x"), b""),
        BuildErrorKind::TooLarge,
        &path[..512].to_owned().add_ellipsis(),
    );
    assert!(text.contains("4201") && text.contains("4096"), "{text}");
    expect(Archive::new().symlink("s", &"t".repeat(4096)), BuildErrorKind::TooLarge, "s");
    let with = |name: &[u8], length| Meta { xattrs: vec![(name.to_vec(), vec![1; length])], ..meta(0o600) };
    let mut archive = Archive::new();
    archive.dir("deep").entry(b'0', b"deep/attr", b"", &with(b"user.v", 4090), b"");
    expect(&archive, BuildErrorKind::TooLarge, "deep/attr");
    let mut archive = Archive::new();
    archive.entry(b'0', b"attr", b"", &with(b"alien.v", 4), b"");
    expect(&archive, BuildErrorKind::Unsupported, "attr");
    expect(Archive::new().device(b'3', "dev", 4096, 0), BuildErrorKind::Unsupported, "dev");
    expect(Archive::new().device(b'4', "dev", 0, 1 << 20), BuildErrorKind::Unsupported, "dev");
    let mut archive = Archive::new();
    archive.entry(b'M', b"volume", b"", &meta(0), b"");
    expect(&archive, BuildErrorKind::Unsupported, "volume");
    let mut archive = Archive::new();
    archive.entry(b'0', b"owner", b"", &Meta { uid: 1 << 32, ..meta(0) }, b"");
    expect(&archive, BuildErrorKind::Unsupported, "owner");
    let mut archive = Archive::new();
    archive.entry_with(
        b'0',
        b"sparse",
        b"",
        &meta(0),
        b"",
        &[(b"GNU.sparse.map", b"0,0"), (b"GNU.sparse.size", b"99999999999999999")],
        |_| {},
    );
    expect(&archive, BuildErrorKind::TooLarge, "sparse");
}

trait Ellipsis {
    fn add_ellipsis(self) -> String;
}

impl Ellipsis for String {
    fn add_ellipsis(mut self) -> String {
        self.push('…');
        self
    }
}

/// CVE-2025-62518: a reader that takes the position of the next header from ustar's size, and not from pax's, would
/// find the archive nested in the data.
///
/// Mutation tried: `stored` from the header alone; fails.
#[test]
fn the_pax_size_governs_the_position() {
    let inner = Archive::new().file("smuggled", b"evil").finish();
    let mut outer = Archive::new();
    let size = inner.len().to_string();
    outer.entry_with(b'0', b"carrier", b"", &meta(0o600), &inner, &[(b"size", size.as_bytes())], |header| {
        header.octal(124..136, 0);
    });
    outer.file("after", b"honest");
    crate::oracle::verify("pax size", &[Blob::new(&outer.finish(), Compression::None)], &options());
    let scratch = tempfile::tempdir().unwrap();
    let report =
        build_at(&scratch.path().join("image"), &[Blob::new(&outer.finish(), Compression::None)], &options());
    let report = report.unwrap();
    assert_eq!((report.entries, report.content), (2, inner.len() as u64 + 6));
}

#[test]
fn damaged_archives_are_corrupt() {
    let corrupt = |archive: &[u8], entry: &str| {
        let error = refused(&[Blob::new(archive, Compression::None)], &options());
        assert_eq!(error.kind(), BuildErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(&format!("{entry:?}")), "{error}");
        error.to_string()
    };
    let archive = Archive::new().file("first", &[1; 2000]).file("second", &[2; 2000]).finish();
    // A cut in what fills up the last block of an entry is the archive's end.
    for cut in [100, 513, 1024, 2511, 2561, 3000, 4000, 5071] {
        corrupt(
            &archive[..cut],
            if cut < 512 {
                ""
            } else if cut < 3072 {
                "first"
            } else {
                "second"
            },
        );
    }
    let mut flipped = archive.clone();
    flipped[2560 + 3] ^= 1;
    assert!(corrupt(&flipped, "first").contains("byte 2560"));
    for body in [
        &b"8 path=x\n"[..],
        b"8 path=x",
        b"99999999999999999999999 a=b\n",
        b"6 a=bc",
        b"5 =b\n",
        b"nonsense",
        b"13 path=a\0bc\n",
    ] {
        let mut header = Header::new(b'x', b"pax");
        header.octal(124..136, body.len() as u64);
        let mut archive = Archive::new();
        archive.raw(&header.bytes()).padded(body).file("x", b"");
        corrupt(&archive.finish(), "");
    }
    let mut huge = Header::new(b'L', b"long");
    huge.octal(124..136, 0o7_777_777_777);
    assert!(
        corrupt(Archive::new().raw(&huge.bytes()).raw(&[b'a'; 4096]).finish().as_slice(), "")
            .contains("at most")
    );
    for (map, size) in [
        ("0,10,5,10", "100"),
        ("10,10,0,10", "100"),
        ("0,20", "10"),
        ("0,19", "100"),
        ("0,21", "100"),
        ("0", "9"),
        ("a,b", "9"),
        ("18446744073709551615,20", "9"),
    ] {
        let mut archive = Archive::new();
        archive.entry_with(
            b'0',
            b"s",
            b"",
            &meta(0),
            &[1; 20],
            &[(b"GNU.sparse.map", map.as_bytes()), (b"GNU.sparse.size", size.as_bytes())],
            |_| {},
        );
        corrupt(&archive.finish(), "");
    }
}

#[test]
fn damaged_compression_is_corrupt_and_wrong_digests_are_told() {
    let tar = Archive::new().file("data", &vec![7; 300_000]).finish();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let blob = Blob::new(&tar, compression);
        let mut cut = blob.clone();
        cut.bytes.truncate(blob.bytes.len() - 12);
        assert_eq!(refused(&[cut], &options()).kind(), BuildErrorKind::Corrupt);
        let mut wrong = blob.clone();
        wrong.diff_id[0] ^= 1;
        let error = refused(&[wrong], &options());
        assert_eq!(error.kind(), BuildErrorKind::DigestMismatch);
        assert!(
            error.to_string().contains("layer 0") && error.to_string().contains("uncompressed"),
            "{error}"
        );
    }
    let mut layer = Blob::new(&tar, Compression::Gzip).layer(0);
    layer.blob_digest = Some([1; 32]);
    let file = tempfile::tempfile().unwrap();
    let error = build(vec![layer], &file, &options(), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::DigestMismatch);
    assert!(error.to_string().contains("blob"), "{error}");
    // Bytes after the end of the archive count for the digest and for nothing else.
    let trailing = [&tar[..], &[9; 5000]].concat();
    let scratch = tempfile::tempdir().unwrap();
    build_at(&scratch.path().join("image"), &[Blob::new(&trailing, Compression::Gzip)], &options()).unwrap();
}

#[test]
fn bombs_stop_at_the_limits() {
    let bomb = Archive::new().file("zeros", &vec![0; 64 << 20]).finish();
    let limited = limited_to(LayerLimits { max_expanded: 10 << 20, ..LayerLimits::default() });
    for compression in [Compression::Gzip, Compression::Zstd] {
        let error = refused(&[Blob::new(&bomb, compression)], &limited);
        assert_eq!(error.kind(), BuildErrorKind::TooLarge);
        assert!(error.to_string().contains("\"zeros\"") && error.to_string().contains("10485760"), "{error}");
    }
    let limited = limited_to(LayerLimits { max_entries: 10, ..LayerLimits::default() });
    let mut many = Archive::new();
    for number in 0..11 {
        many.file(&format!("f{number}"), b"");
    }
    let error = refused(&[Blob::new(&many.finish(), Compression::None)], &limited);
    assert!(error.kind() == BuildErrorKind::TooLarge && error.to_string().contains("\"f10\""), "{error}");
    let limited = limited_to(LayerLimits { max_metadata: 100_000, ..LayerLimits::default() });
    let with = Meta { xattrs: vec![(b"user.a".to_vec(), vec![1; 3000])], ..meta(0o600) };
    let mut attributes = Archive::new();
    let zebra = [vec![1; 4096], vec![0; 17 * 4096]].concat().repeat(2000);
    for number in 0..40 {
        attributes.entry(b'0', format!("f{number}").as_bytes(), b"", &with, b"");
    }
    let error = refused(&[Blob::new(&attributes.finish(), Compression::None)], &limited);
    assert!(error.kind() == BuildErrorKind::TooLarge && error.to_string().contains("\"f33\""), "{error}");
    let extents = Archive::new()
        .file("zebra", &zebra)
        .file("more", &zebra)
        .file("last", &zebra)
        .file("end", &zebra)
        .finish();
    let error = refused(&[Blob::new(&extents, Compression::Gzip)], &limited);
    assert!(error.kind() == BuildErrorKind::TooLarge && error.to_string().contains("metadata"), "{error}");
    let limited = limited_to(LayerLimits { max_entries: 10, ..LayerLimits::default() });
    let implied = Archive::new().file("a/b/c/d/e/f/g/h/i/j/k/l", b"").finish();
    let error = refused(&[Blob::new(&implied, Compression::None)], &limited);
    assert_eq!(error.kind(), BuildErrorKind::TooLarge);
}

#[test]
fn the_observer_can_stop_a_build() {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(40 << 20)
    .collect();
    let blob = Blob::new(&Archive::new().file("noise", &noise).finish(), Compression::None);
    let mut seen = Vec::new();
    let file = tempfile::tempfile().unwrap();
    build(vec![blob.layer(0)], &file, &options(), &mut |progress| {
        seen.push(progress.written);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(seen.windows(2).all(|pair| pair[1] - pair[0] <= 8 << 20) && seen[0] <= 8 << 20, "{seen:?}");
    let file = tempfile::tempfile().unwrap();
    let error = build(vec![blob.layer(0)], &file, &options(), &mut |progress| {
        if progress.written > 16 << 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap_err();
    assert!(matches!(error, BuildError::Aborted { written } if written < 26 << 20), "{error:?}");
}

#[test]
fn failing_readers_and_files_are_told_apart() {
    struct Failing(u32);
    impl std::io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            if self.0 > 1 {
                return Err(std::io::Error::from_raw_os_error(5));
            }
            let bytes = Archive::new().file("x", b"x").bytes.clone();
            buffer[..1024].copy_from_slice(&bytes);
            Ok(1024)
        }
    }
    let layer = || LayerSource {
        reader: Box::new(Failing(0)),
        label: "broken".to_owned(),
        diff_id: sha256(b""),
        blob_digest: None,
    };
    let file = tempfile::tempfile().unwrap();
    let error = build(vec![layer()], &file, &options(), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::Read);
    assert!(error.to_string().contains("broken"));
    let error = build(vec![layer()], &File::open("/dev/full").unwrap(), &options(), &mut |_| {
        ControlFlow::Continue(())
    });
    assert_eq!(error.unwrap_err().kind(), BuildErrorKind::InvalidOptions);
    let read_only = tempfile::NamedTempFile::new().unwrap();
    let read_only = File::open(read_only.path()).unwrap();
    let error = build(vec![layer()], &read_only, &options(), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::Write);
    for virtual_size in [0, (32 << 20) - 1, (16 << 40) + 1] {
        let options = BuildOptions { virtual_size, ..options() };
        let file = tempfile::tempfile().unwrap();
        let error = build(Vec::new(), &file, &options, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert_eq!(error.kind(), BuildErrorKind::InvalidOptions);
    }
}
