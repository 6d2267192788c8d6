//! Kills at any step, and disks that fill up.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use boxlite_storage::reference::Reference;
use boxlite_testkit::filesystem::SmallFilesystem;
use boxlite_types::{ErrorKind, PullOptions};

use crate::child;
use crate::fixture::*;
use crate::proxy::{Fate, Proxy, Request};
use crate::registry::{largest, served};

#[tokio::test]
async fn a_killed_pull_is_resumed_by_the_next() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let proxy = Proxy::before(&registry.address, |_: &Request| Fate::Pass);
    let reference = format!("{}/app:1", proxy.address);
    let fresh = Scratch::new();
    let fault = [("BOXLITE_FAULT", "blob.written=kill:8")];
    assert!(child::run(fresh.home.root(), &reference, false, &fault).killed);
    let partial = fresh.staged();
    assert_eq!(partial.iter().filter(|name| name.ends_with(".partial")).count(), partial.len());
    assert!(!partial.is_empty());
    let image = fresh.pull(&reference).await.unwrap();
    assert_blobs_intact(&fresh);
    assert_eq!(fresh.staged(), [""; 0]);
    let ranges: Vec<_> =
        proxy.requests().into_iter().filter(|request| request.path.ends_with(&largest(&image))).collect();
    assert!(ranges.last().unwrap().range.is_some(), "{ranges:?}");
}

/// A dead writer may have left any bytes; damage is detected and the blob is fetched again.
#[tokio::test]
async fn a_partial_blob_full_of_rubbish_is_started_over() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let reference = format!("{}/app:1", registry.address);
    let image = scratch.pull(&reference).await.unwrap();
    for bytes in [1_000, usize::try_from(image.stored_bytes()).unwrap() + 1] {
        let fresh = Scratch::new();
        for layer in &image.layers {
            let length = bytes.min(usize::try_from(layer.length).unwrap() + 1);
            let path = fresh.home.tmp().join(format!("blob-{}.partial", layer.digest.hex()));
            std::fs::write(path, vec![7; length]).unwrap();
        }
        fresh.pull(&reference).await.unwrap();
        assert_blobs_intact(&fresh);
    }
}

#[tokio::test]
async fn a_kill_at_any_step_leaves_a_home_that_the_next_pull_completes() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let reference = format!("{}/app:1", registry.address);
    for point in ["publish.written", "publish.synced", "publish.renamed", "publish.durable"] {
        // Manifest, a layer, the disk image.
        for passage in [1, 3, 5] {
            let fresh = Scratch::new();
            let fault = format!("{point}=kill:{passage}");
            let outcome = child::run(fresh.home.root(), &reference, true, &[("BOXLITE_FAULT", &fault)]);
            assert!(outcome.killed, "{fault}: {outcome:?}");
            assert_blobs_intact(&fresh);
            let outcome = child::run(fresh.home.root(), &reference, true, &[]);
            assert!(outcome.said.starts_with("ok "), "{fault}: {outcome:?}");
            assert_blobs_intact(&fresh);
            let images = fresh.home.disk_images();
            let made = names(&images);
            assert_eq!(made.len(), 1, "{fault}");
            run("e2fsck", &["-fn", images.join(&made[0]).to_str().unwrap()]);
            for name in fresh.staged() {
                let path = fresh.home.tmp().join(name);
                assert!(
                    boxlite_home::durable::sweep_staged(&path, false).unwrap().is_some(),
                    "{fault}: {path:?}"
                );
            }
        }
    }
}

/// Another process finishes the work between the look at the path and the lock.
///
/// Mutation tried: without the second look, after the lock, in `ensure` or in `Blobs::want`, the file is made
/// and replaced once more.
#[tokio::test(flavor = "multi_thread")]
async fn work_that_was_done_meanwhile_is_not_done_again() {
    let scratch = Scratch::new();
    let path = scratch.path("layout");
    layout(&path, "v1", &[("tool", 300_000)]);
    let reference = format!("oci:{}:v1", path.display());
    let inode = |path: PathBuf| std::fs::metadata(path).unwrap().ino();
    for point in ["blob.absent", "disk.absent"] {
        let fresh = Scratch::new();
        let gate = fresh.path("gate");
        run("mkfifo", &[gate.to_str().unwrap()]);
        let fault = format!("{point}=wait:{}", gate.display());
        let child = child::start(fresh.home.root(), &reference, true, &[("BOXLITE_FAULT", &fault)]);
        // Opens as soon as the child has come to the point, where it waits until this is closed again.
        let gate = std::fs::File::options().write(true).open(&gate).unwrap();
        let image = fresh.pull(&reference).await.unwrap();
        let leased =
            boxlite_storage::disk_image::ensure(&fresh.images, &image, crate::disk::VIRTUAL, &()).unwrap();
        let made = [leased.top().path().to_owned(), fresh.home.blobs().join(image.digest.hex())];
        let before = made.clone().map(inode);
        drop(gate);
        assert_eq!(child::finish(child).said, format!("ok {}", image.digest));
        assert_eq!(made.map(inode), before, "{point}");
    }
}

/// Mutation tried: without `take_back` the small layer stays behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_ends_a_pull_and_leaves_nothing_of_it() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let Some(small) = SmallFilesystem::tmpfs("size=64m") else { return };
    let home = boxlite_home::Home::open(&small.path().join("home")).unwrap();
    let settings =
        "hard_floor = \"32MiB\"\nsoft_floor = \"33MiB\"\nemergency_floor = \"1MiB\"\ninode_floor = 10\n";
    std::fs::write(home.config(), settings).unwrap();
    let images = open_images(&home).unwrap();
    let pull = async |address: &str| {
        let reference: Reference = format!("{address}/app:1").parse().unwrap();
        images.pull(&reference, &PullOptions::default(), Arc::new(())).await
    };

    let filler = small.path().join("filler");
    let fill = |megabytes: usize| std::fs::write(&filler, vec![1; megabytes << 20]).unwrap();
    fill(29);
    let error = pull(&registry.address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "by estimate: {error}");
    assert!(error.shortage().is_some());
    assert_eq!(registry.gets("big"), 0);
    std::fs::remove_file(&filler).unwrap();

    // The estimate is admitted; the disk fills while the big layer is half-way.
    let local = scratch.pull(&format!("oci:{}:v1", scratch.path("layout").display())).await.unwrap();
    let (at, big) = (filler.clone(), largest(&local));
    let (filled, waits) = mpsc::channel();
    let filled = std::sync::Mutex::new(filled);
    let during: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        std::fs::write(&at, vec![1; 31 << 20]).unwrap();
        filled.lock().unwrap().send(()).unwrap();
    });
    let proxy = Proxy::before(&registry.address, move |request: &Request| {
        if request.path.ends_with(&big) { Fate::Pause(2_000_000, Arc::clone(&during)) } else { Fate::Pass }
    });
    let error = pull(&proxy.address).await.unwrap_err();
    waits.recv().unwrap();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "while streaming: {error}");
    assert_eq!((names(&home.blobs()), names(&home.tmp())), (vec![], vec![]));

    std::fs::remove_file(&filler).unwrap();
    let image = pull(&registry.address).await.unwrap();
    fill(20);
    let error = boxlite_storage::disk_image::ensure(&images, &image, crate::disk::VIRTUAL, &()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    assert_eq!((names(&home.disk_images()), names(&home.tmp())), (vec![], vec![]));
    std::fs::remove_file(&filler).unwrap();
    drop(boxlite_storage::disk_image::ensure(&images, &image, crate::disk::VIRTUAL, &()).unwrap());
}
