//! Images that share layers share files.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use boxlite_storage::disk_image::{ImageChain, ImageForm, digest, ensure, ensure_whole, lease, lease_as};
use boxlite_testkit::{deadline, oracle};
use boxlite_types::{Digest, ErrorKind, Image, ImageConfig, Layer, Platform, Progress};

use crate::child;
use crate::disk::VIRTUAL;
use crate::fixture::*;

/// A layer that is large enough to be a segment of its own, as is `app` below.
const BASE: (&str, usize) = ("base", 17 << 20);

/// Two images over one base, and one over the first of them.
async fn family(scratch: &Scratch) -> [Image; 3] {
    let path = scratch.path("layout");
    let app = ("app", 17 << 20);
    layout(&path, "one", &[BASE, app]);
    layout(&path, "two", &[BASE, ("other", 300_000)]);
    layout(&path, "three", &[BASE, app, ("more", 500_000), ("most", 20_000)]);
    let mut images = Vec::new();
    for tag in ["one", "two", "three"] {
        images.push(scratch.pull(&format!("oci:{}:{tag}", path.display())).await.unwrap());
    }
    images.try_into().unwrap()
}

fn build(scratch: &Scratch, image: &Image) -> ImageChain {
    ensure(&scratch.images, image, VIRTUAL, &()).unwrap()
}

fn deltas(scratch: &Scratch) -> Vec<String> {
    if scratch.home.deltas().exists() { names(&scratch.home.deltas()) } else { Vec::new() }
}

/// Names and SHA-256 of all disk images and deltas.
fn sums(scratch: &Scratch) -> Vec<(String, String)> {
    let mut sums = Vec::new();
    let listed = [(scratch.home.disk_images(), names(&scratch.home.disk_images()))];
    for (directory, names) in listed.into_iter().chain([(scratch.home.deltas(), deltas(scratch))]) {
        for name in names {
            let path = directory.join(&name);
            sums.push((name, run("sha256sum", &["-b", path.to_str().unwrap()])[..64].to_owned()));
        }
    }
    sums
}

/// The chain as one raw file, which must pass `e2fsck`.
fn flatten(scratch: &Scratch, chain: &ImageChain) -> PathBuf {
    let flat = scratch.path("flat");
    for delta in chain.deltas() {
        run("qemu-img", &["check", delta.to_str().unwrap()]);
    }
    run("qemu-img", &["convert", "-Oraw", chain.top().path().to_str().unwrap(), flat.to_str().unwrap()]);
    run("e2fsck", &["-fn", flat.to_str().unwrap()]);
    flat
}

#[tokio::test]
async fn images_with_common_layers_share_the_files_of_these() {
    let scratch = Scratch::new();
    let images = family(&scratch).await;
    let chains = images.each_ref().map(|image| build(&scratch, image));
    assert_eq!(names(&scratch.home.disk_images()).len(), 1);
    assert_eq!(deltas(&scratch).len(), 3, "one of each image");
    let [one, two, three] = &chains;
    let files = |chain: &ImageChain| chain.files().map(Path::to_owned).collect::<Vec<_>>();
    assert_eq!(files(three)[1..], files(one)[..], "the third stands on the first");
    assert_eq!(files(two)[1..], files(one)[1..]);
    for (chain, image) in chains.iter().zip(&images) {
        assert_eq!(chain.top().path(), scratch.home.delta(&digest(image, VIRTUAL)));
    }
    let allocated = |path: &Path| std::fs::metadata(path).unwrap().blocks() * 512;
    let small = allocated(two.top().path());
    assert!(small < 300_000 + 200_000, "300 kB cost {small} bytes");
    assert_eq!(scratch.staged(), [""; 0]);
}

/// A mounted file.
struct Mounted(PathBuf);

impl Mounted {
    fn read_only(image: &Path, at: PathBuf) -> Self {
        std::fs::create_dir(&at).unwrap();
        run("mount", &["-o", "ro,loop", image.to_str().unwrap(), at.to_str().unwrap()]);
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Busy for an instant: a process that another test starts has a copy of each of our descriptors.
        deadline::until(Duration::from_secs(5), "unmounting", || {
            Command::new("umount").arg(&self.0).output().unwrap().status.success()
        });
    }
}

/// Oracles: `qemu-img` flattens the chain, `e2fsck` checks it, `umoci unpack` says what it must hold.
#[tokio::test]
async fn a_flattened_chain_holds_what_umoci_unpacks() {
    let scratch = Scratch::new();
    let [.., three] = family(&scratch).await;
    let flat = flatten(&scratch, &build(&scratch, &three));
    if !oracle::require_root("mounting the flattened chain") {
        return;
    }
    let mounted = Mounted::read_only(&flat, scratch.path("mounted"));
    let (bundle, layout) = (scratch.path("bundle"), scratch.path("layout"));
    run("umoci", &["unpack", "--image", &format!("{}:three", layout.display()), bundle.to_str().unwrap()]);
    let listed = |root: &Path| {
        let format = "%P %y %m %U %G %s %T@ %l\n";
        let found = run("find", &[root.to_str().unwrap(), "-type", "f", "-printf", format]);
        found.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let unpacked = bundle.join("rootfs");
    assert_eq!(listed(&mounted.0), listed(&unpacked));
    assert_eq!(listed(&unpacked).len(), 4);
    run("diff", &["-r", mounted.0.to_str().unwrap(), unpacked.to_str().unwrap()]);
}

/// In whichever order and home the images are built, and after files were removed: same digest, same bytes.
#[tokio::test]
async fn the_same_digest_has_the_same_bytes() {
    let scratch = Scratch::new();
    let images = family(&scratch).await;
    for image in &images {
        drop(build(&scratch, image));
    }
    let expected = sums(&scratch);
    for directory in [scratch.home.deltas(), scratch.home.disk_images()] {
        std::fs::remove_dir_all(&directory).unwrap();
        std::fs::create_dir(&directory).unwrap();
    }
    for image in images.iter().rev() {
        drop(build(&scratch, image));
    }
    assert_eq!(sums(&scratch), expected);

    let other = Scratch::new();
    let images = family_of(&scratch, &other).await;
    for image in &images {
        drop(build(&other, image));
    }
    assert_eq!(sums(&other), expected);
}

/// The same images in another home.
async fn family_of(made: &Scratch, other: &Scratch) -> Vec<Image> {
    let mut images = Vec::new();
    for tag in ["two", "three", "one"] {
        images.push(other.pull(&format!("oci:{}:{tag}", made.path("layout").display())).await.unwrap());
    }
    images
}

#[tokio::test]
async fn eight_threads_build_each_file_once() {
    let scratch = Scratch::new();
    let images = family(&scratch).await;
    let built = AtomicUsize::new(0);
    let sink = |progress: Progress| {
        built.fetch_add(usize::from(progress == Progress::Built), Ordering::Relaxed);
    };
    let inodes: BTreeSet<Vec<u64>> = std::thread::scope(|scope| {
        let one = |image| {
            let chain = ensure(&scratch.images, image, VIRTUAL, &sink).unwrap();
            chain.files().map(|path| std::fs::metadata(path).unwrap().ino()).collect::<Vec<_>>()
        };
        let threads: Vec<_> =
            images.iter().cycle().take(9).map(|image| scope.spawn(move || one(image))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(inodes.len(), 3);
    assert_eq!(inodes.iter().flatten().collect::<BTreeSet<_>>().len(), 4);
    assert!(built.into_inner() <= 4);
    assert_eq!(scratch.staged(), [""; 0]);
}

/// Before: a name that no digest has, in the lowest delta's header, failed every start of the image instead.
#[tokio::test]
async fn a_damaged_swapped_or_missing_file_of_a_chain_is_built_again() {
    let scratch = Scratch::new();
    let images = family(&scratch).await;
    let chains =
        images.each_ref().map(|image| build(&scratch, image).files().map(Path::to_owned).collect::<Vec<_>>());
    let expected = sums(&scratch);
    let [_, two, three] = &chains;
    let flip = |path: &Path, at: u64| {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    let length = |path: &Path| std::fs::metadata(path).unwrap().len();
    // The name of what lies below is at the offset that the header's bytes from 8 on say.
    let rename_below = |path: &Path| {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut name_at = [0; 8];
        file.read_exact_at(&mut name_at, 8).unwrap();
        file.write_all_at(b"z", u64::from_be_bytes(name_at) + 20).unwrap();
    };
    let damages: [&dyn Fn(); 12] = [
        &|| rename_below(&three[0]),
        &|| rename_below(&three[1]),
        &|| flip(&three[2], length(&three[2]) / 2),
        &|| flip(&three[0], 30),
        &|| flip(&three[0], 9000),
        &|| flip(&three[1], length(&three[1]) / 2),
        &|| flip(&three[1], length(&three[1]) - 5000),
        &|| std::fs::write(&three[1], b"no qcow2").unwrap(),
        &|| std::fs::File::options().write(true).open(&three[0]).unwrap().set_len(8192).unwrap(),
        &|| assert!(std::fs::copy(&two[0], &three[1]).is_ok()),
        &|| std::fs::remove_file(&three[1]).unwrap(),
        &|| std::fs::remove_file(&three[2]).unwrap(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        damage();
        assert!(lease(&scratch.home, &digest(&images[2], VIRTUAL)).unwrap().is_none(), "damage {number}");
        assert_eq!(build(&scratch, &images[2]).files().count(), 3);
        assert_eq!(sums(&scratch), expected, "damage {number}");
    }
}

/// A home from before there were deltas has the whole file of all layers, which serves as it did.
#[tokio::test]
async fn a_whole_disk_image_of_all_layers_serves_as_before() {
    let scratch = Scratch::new();
    let [one, _, three] = family(&scratch).await;
    let whole = ensure_whole(&scratch.images, &one, VIRTUAL, &()).unwrap();
    assert_eq!(whole.top().path(), scratch.home.disk_image(&digest(&one, VIRTUAL)));
    run("e2fsck", &["-fn", whole.top().path().to_str().unwrap()]);
    assert_eq!(build(&scratch, &one).top().path(), whole.top().path());
    assert_eq!(deltas(&scratch), [""; 0]);
    // What stands on common layers stands on deltas all the same: the whole file has other blocks.
    assert_eq!(build(&scratch, &three).files().count(), 3);
    assert!(lease_as(&scratch.home, &digest(&one, VIRTUAL), ImageForm::Delta).unwrap().is_some());
}

/// An image whose blobs are written by hand: gzip files of several members.
fn crafted(scratch: &Scratch, layers: &[Vec<&[u8]>]) -> Image {
    let layer = |members: &Vec<&[u8]>| {
        let mut blob = Vec::new();
        for member in members {
            let mut encoder = flate2::write::GzEncoder::new(&mut blob, flate2::Compression::fast());
            encoder.write_all(member).unwrap();
            encoder.finish().unwrap();
        }
        let digest = Digest::of(&blob);
        std::fs::write(scratch.home.blobs().join(digest.hex()), &blob).unwrap();
        let diff_id = Digest::of(&members.concat());
        Layer { digest, diff_id, media_type: String::new(), length: blob.len() as u64 }
    };
    Image {
        digest: Digest::of(b"crafted"),
        references: Vec::new(),
        platform: Platform::host(),
        config: ImageConfig::default(),
        layers: layers.iter().map(layer).collect(),
        pulled_at: jiff::Timestamp::UNIX_EPOCH,
        last_used_at: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// The trailer of a gzip file gives the size of its last member only. Where that is believed until the layer is built,
/// the cuts are made again, so that they are those of a home that has counted before.
///
/// Mutation tried: `ensure_segment` that keeps a file whose layers turned out to have other sizes; one whole disk image.
#[tokio::test]
async fn a_layer_that_lies_about_its_size_is_cut_as_it_is() {
    let scratch = Scratch::new();
    let (big, small) = (scratch.path("big"), scratch.path("small"));
    let zeros = vec![0; 20 << 20];
    let mut builder = tar::Builder::new(std::fs::File::create(&big).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(zeros.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "zeros", &zeros[..]).unwrap();
    builder.into_inner().unwrap();
    tar_of(&small, "small", 50_000);
    let (big, small) = (std::fs::read(big).unwrap(), std::fs::read(small).unwrap());
    let (start, end) = big.split_at(big.len() - 300_000);
    let lying = crafted(&scratch, &[vec![start, end], vec![&small]]);
    assert_eq!(build(&scratch, &lying).files().count(), 2);
    let expected = sums(&scratch);

    // Counted before: the blob claims nothing that could be true.
    let other = Scratch::new();
    let honest = crafted(&other, &[vec![&big, b""], vec![&small]]);
    assert_eq!(build(&other, &honest).files().count(), 2);
    assert_eq!(sums(&other), expected);
    // Of a layer that is there from before, the size is counted when something is to stand on it.
    let third = Scratch::new();
    let lying = crafted(&third, &[vec![start, end], vec![&small]]);
    let base = Image { layers: lying.layers[..1].to_vec(), ..lying.clone() };
    drop(ensure_whole(&third.images, &base, VIRTUAL, &()).unwrap());
    std::fs::remove_file(third.home.database()).unwrap();
    let images = open_images(&third.home).unwrap();
    drop(ensure(&images, &lying, VIRTUAL, &()).unwrap());
    assert_eq!(sums(&third), expected);
}

/// What the database says that a build must know.
fn features(scratch: &Scratch) -> String {
    let database = rusqlite::Connection::open(scratch.home.database()).unwrap();
    let query = "SELECT value FROM meta WHERE key = 'incompatible_features'";
    database.query_row(query, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_kill_at_any_step_leaves_a_home_that_the_next_build_completes() {
    let scratch = Scratch::new();
    family(&scratch).await;
    let reference = format!("oci:{}:three", scratch.path("layout").display());
    let expected = {
        let fresh = Scratch::new();
        drop(build(&fresh, &fresh.pull(&reference).await.unwrap()));
        sums(&fresh)
    };
    for point in ["publish.written", "publish.synced", "publish.renamed", "publish.durable"] {
        // Two documents and four layers come first, then the disk image and two deltas.
        for passage in [8, 9] {
            let fresh = Scratch::new();
            let fault = format!("{point}=kill:{passage}");
            let outcome = child::run(fresh.home.root(), &reference, true, &[("BOXLITE_FAULT", &fault)]);
            assert!(outcome.killed, "{fault}: {outcome:?}");
            assert!(deltas(&fresh).is_empty() || features(&fresh) == "deltas", "{fault}");
            let outcome = child::run(fresh.home.root(), &reference, true, &[]);
            assert!(outcome.said.starts_with("ok "), "{fault}: {outcome:?}");
            assert_eq!(sums(&fresh), expected, "{fault}");
            for name in fresh.staged() {
                let path = fresh.home.tmp().join(name);
                assert!(boxlite_home::durable::sweep_staged(&path, false).unwrap().is_some(), "{path:?}");
            }
        }
    }
}

/// What a delta needs besides the blobs of its own layers is the files below it.
#[tokio::test]
async fn blobs_of_layers_that_are_built_are_not_needed() {
    let scratch = Scratch::new();
    let [one, two, _] = family(&scratch).await;
    drop(build(&scratch, &one));
    std::fs::remove_file(scratch.home.blobs().join(one.layers[0].digest.hex())).unwrap();
    drop(build(&scratch, &two));
    std::fs::remove_file(scratch.home.disk_image(&digest(&base_of(&two), VIRTUAL))).unwrap();
    let error = ensure(&scratch.images, &two, VIRTUAL, &()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

fn base_of(image: &Image) -> Image {
    Image { layers: image.layers[..1].to_vec(), ..image.clone() }
}
