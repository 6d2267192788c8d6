//! From an image to its disk image.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use boxlite_storage::disk_image::{digest, ensure, lease};
use boxlite_types::{Error, ErrorKind, Image, Progress};

use crate::fixture::*;

pub(crate) const VIRTUAL: u64 = 512 << 20;

async fn pulled(scratch: &Scratch, layers: &[(&str, usize)]) -> Image {
    let layout_path = scratch.path("layout");
    layout(&layout_path, "v1", layers);
    scratch.pull(&format!("oci:{}:v1", layout_path.display())).await.unwrap()
}

fn check(path: &Path) {
    run("e2fsck", &["-fn", path.to_str().unwrap()]);
}

#[tokio::test]
async fn a_disk_image_holds_the_layers_and_is_the_same_after_every_build() {
    let scratch = Scratch::new();
    let image = pulled(&scratch, &[("tool", 300_000), ("other", 20_000)]).await;
    let leased = ensure(&scratch.images, &image, VIRTUAL, &()).unwrap();
    let path = scratch.home.disk_image(&digest(&image, VIRTUAL));
    assert_eq!(leased.top().path(), path);
    check(&path);
    let listed = run("debugfs", &["-R", "ls -p /", path.to_str().unwrap()]);
    assert!(listed.contains("/tool//300000/") || listed.contains("/tool/300000/"), "{listed}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), VIRTUAL);
    assert_eq!(scratch.staged(), [""; 0]);

    let first = run("sha256sum", &["--binary", path.to_str().unwrap()]);
    drop(leased);
    std::fs::remove_file(&path).unwrap();
    ensure(&scratch.images, &image, VIRTUAL, &()).unwrap();
    assert_eq!(run("sha256sum", &["--binary", path.to_str().unwrap()]), first);
    assert_ne!(digest(&image, VIRTUAL), digest(&image, 2 * VIRTUAL));
}

#[tokio::test]
async fn eight_threads_build_one_disk_image_once() {
    let scratch = Scratch::new();
    let image = pulled(&scratch, &[("tool", 3_000_000)]).await;
    let built = AtomicUsize::new(0);
    let sink = |progress: Progress| {
        if progress == Progress::Built {
            built.fetch_add(1, Ordering::Relaxed);
        }
    };
    let inodes: Vec<u64> = std::thread::scope(|scope| {
        let one = || {
            ensure(&scratch.images, &image, VIRTUAL, &sink).unwrap().top().file().metadata().unwrap().ino()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(built.load(Ordering::Relaxed), 1);
    assert!(inodes.iter().all(|inode| *inode == inodes[0]), "{inodes:?}");
}

/// Mutation tried: without the comparison of UUIDs in `lease` the swapped image is accepted.
#[tokio::test]
async fn a_damaged_or_swapped_disk_image_is_built_again() {
    let scratch = Scratch::new();
    let image = pulled(&scratch, &[("tool", 300_000)]).await;
    let (right, other) = (digest(&image, VIRTUAL), digest(&image, 2 * VIRTUAL));
    drop(ensure(&scratch.images, &image, VIRTUAL, &()).unwrap());
    drop(ensure(&scratch.images, &image, 2 * VIRTUAL, &()).unwrap());
    let path = scratch.home.disk_image(&right);
    let damages: [&dyn Fn(); 3] = [
        &|| std::fs::rename(scratch.home.disk_image(&other), &path).unwrap(),
        &|| std::fs::write(&path, b"no file system").unwrap(),
        &|| std::fs::File::options().write(true).open(&path).unwrap().set_len(VIRTUAL / 2).unwrap(),
    ];
    for damage in damages {
        damage();
        assert!(lease(&scratch.home, &right).unwrap().is_none());
        drop(ensure(&scratch.images, &image, VIRTUAL, &()).unwrap());
        assert!(lease(&scratch.home, &right).unwrap().is_some());
        check(&path);
    }
    assert_eq!(lease(&scratch.home, "../../etc/passwd").unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn damaged_and_missing_blobs_are_named_and_a_pull_heals_them() {
    let scratch = Scratch::new();
    let image = pulled(&scratch, &[("tool", 300_000)]).await;
    let blob = scratch.home.blobs().join(image.layers[0].digest.hex());
    let mut bytes = std::fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blob, bytes).unwrap();

    let failed = || -> Error { ensure(&scratch.images, &image, VIRTUAL, &()).unwrap_err() };
    let error = failed();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("boxlite pull"), "{error}");
    assert!(!blob.exists());
    let error = failed();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("boxlite pull"), "{error}");
    assert_eq!((scratch.staged(), names(&scratch.home.disk_images())), (vec![], vec![]));

    scratch.pull(&image.references[0]).await.unwrap();
    check(ensure(&scratch.images, &image, VIRTUAL, &()).unwrap().top().path());
}

/// The config's `diff_id`s are a claim that the build checks.
#[tokio::test]
async fn a_config_that_lies_about_its_layers_builds_nothing() {
    let scratch = Scratch::new();
    let mut image = pulled(&scratch, &[("tool", 300_000)]).await;
    image.layers[0].diff_id = boxlite_types::Digest::of(b"something else");
    let error = ensure(&scratch.images, &image, VIRTUAL, &()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("diff_id") || error.to_string().contains("uncompressed"), "{error}");
    assert_eq!((scratch.staged(), names(&scratch.home.disk_images())), (vec![], vec![]));
    assert!(!scratch.blobs().is_empty(), "the blobs themselves are right and stay");
}

#[tokio::test]
async fn progress_ends_with_everything_read() {
    let scratch = Scratch::new();
    let image = pulled(&scratch, &[("tool", 20_000_000)]).await;
    let seen = std::sync::Mutex::new(Vec::new());
    let sink = |progress: Progress| seen.lock().unwrap().push(progress);
    ensure(&scratch.images, &image, VIRTUAL, &sink).unwrap();
    let seen = Arc::new(seen.into_inner().unwrap());
    assert_eq!(seen.last(), Some(&Progress::Built));
    let building = seen.iter().filter_map(|progress| match progress {
        Progress::Building { done, total } => Some((*done, *total)),
        _ => None,
    });
    assert!(building.clone().count() >= 2, "{seen:?}");
    assert!(building.clone().all(|(done, total)| done <= total && total == image.stored_bytes()));
}
