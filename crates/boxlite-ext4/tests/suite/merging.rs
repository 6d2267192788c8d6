//! Layers on layers: whiteouts, replacement, links that cross, parents that are links.

use crate::archive::{Archive, Blob, Compression};
use crate::oracle::{options, verify};

fn blobs(layers: &[&Archive]) -> Vec<Blob> {
    layers.iter().map(|layer| Blob::new(&layer.finish(), Compression::None)).collect()
}

fn lower() -> Archive {
    let mut lower = Archive::new();
    lower.dir(".").dir("a").file("a/one", b"lower one").file("a/two", b"lower two");
    lower.dir("a/sub").file("a/sub/three", b"lower three").dir("a/sub/deep").file("a/sub/deep/four", b"4");
    lower.dir("b").file("b/one", b"b one").file("b/two", b"b two");
    lower.file("file", b"a file").dir("real").dir("real/inner").symlink("link", "real");
    lower
        .symlink("absolute", "/real/inner")
        .symlink("climbing", "../../../real")
        .symlink("chain", "link/inner");
    lower
}

/// Mutation tried: `hide_lower` removing what its own layer touched; fails.
#[test]
fn opaque_hides_lower_layers_only_wherever_it_stands() {
    for first in [true, false] {
        let mut upper = Archive::new();
        if first {
            upper.file("a/.wh..wh..opq", b"");
        }
        upper.dir("a").file("a/new", b"new").file("a/sub/five", b"implied again").dir("a/fresh");
        upper.file("a/fresh/six", b"6").file("b/three", b"b three");
        if !first {
            upper.file("a/.wh..wh..opq", b"");
        }
        verify("opaque", &blobs(&[&lower(), &upper]), &options());
    }
}

/// Mutation tried: `white_out` unlinking names of its own layer; fails.
#[test]
fn whiteouts_hide_lower_names_only_wherever_they_stand() {
    let mut upper = Archive::new();
    upper.file("a/.wh.one", b"").file("a/one", b"upper one");
    upper.file("b/one", b"upper b one").file("b/.wh.one", b"").file("b/.wh.two", b"");
    upper.file("a/sub/kept", b"kept").file("a/.wh.sub", b"").file(".wh.file", b"");
    upper.file("nowhere/.wh.nothing", b"").file("a/.wh.nothing", b"").file(".wh.absent", b"");
    upper.file("real/fresh", b"").file("link/.wh.inner", b"").file("file2/.wh..wh..opq", b"");
    verify("whiteouts", &blobs(&[&lower(), &upper]), &options());
}

#[test]
fn files_and_directories_replace_each_other() {
    let mut upper = Archive::new();
    upper.file("a", b"was a directory").dir("file").file("file/inside", b"was a file").symlink("b", "file");
    upper.dir("link").file("link/own", b"was a link");
    let mut top = Archive::new();
    top.dir("a").file("a/again", b"a directory again").file("link", b"and a file").device(b'3', "b", 1, 5);
    top.file("twice", b"first").file("twice", b"second").dir("thrice").file("thrice", b"x").dir("thrice");
    verify("replacement", &blobs(&[&lower(), &upper, &top]), &options());
}

#[test]
fn parents_may_be_links_into_lower_layers() {
    let mut upper = Archive::new();
    upper.file("link/one", b"through link").file("absolute/two", b"through absolute");
    upper.file("climbing/three", b"stays inside").file("chain/four", b"through two links");
    upper.hardlink("link/five", "absolute/two").symlink("away", "/new/place").file("away/made", b"implied");
    upper.symlink("up", "real/inner/../..").file("up/at-root", b"");
    verify("symlinked parents", &blobs(&[&lower(), &upper]), &options());
}

#[test]
fn hard_links_cross_layers_and_survive_replacement() {
    let mut base = lower();
    base.hardlink("a/same", "a/one").hardlink("b/same", "a/one").hardlink("soft", "link");
    let mut upper = Archive::new();
    upper.hardlink("across", "a/same").file("a/one", b"its own now").file("b/.wh.same", b"");
    let mut top = Archive::new();
    top.hardlink("./top/../across2", "/across").file(".wh.across", b"").hardlink("b/one", "a/two");
    verify("hard links", &blobs(&[&base, &upper, &top]), &options());
}

/// Mutation tried: the old name unlinked before the link is counted; fails.
///
/// What umoci refuses and GNU tar writes when a file is named twice on its command line.
#[test]
fn a_link_to_itself_changes_nothing() {
    let mut layer = Archive::new();
    layer.file("a", b"content").hardlink("a", "a").hardlink("a", "./a");
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    let report = crate::oracle::build_at(&image, &blobs(&[&layer]), &options()).unwrap();
    assert_eq!((report.inodes, report.content), (2, 7));
    crate::oracle::check(&image);
}

/// Docker's storage accepts a layer that implies a directory where a lower layer had a file; umoci does not.
#[test]
fn an_implied_directory_replaces_a_lower_file() {
    let mut upper = Archive::new();
    upper.file("file/inside", b"in");
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    crate::oracle::build_at(&image, &blobs(&[&lower(), &upper]), &options()).unwrap();
    crate::oracle::check(&image);
}

#[test]
fn implied_parents_and_no_layers_at_all() {
    let mut only = Archive::new();
    only.file("x/y/z/file", b"deep").file("/absolute/name", b"inside").file("./dotted/./name", b"d");
    verify("implied", &blobs(&[&only, &Archive::new()]), &options());
    verify("nothing", &[Blob::new(b"", Compression::None)], &options());
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    let report = crate::oracle::build_at(&image, &[], &options()).unwrap();
    assert_eq!((report.inodes, report.directories, report.entries), (1, 1, 0));
    crate::oracle::check(&image);
}
