//! Layouts and archives.

use boxlite_types::{ErrorKind, PullOptions, PullPolicy, Removal};

use crate::fixture::*;

#[tokio::test]
async fn a_layout_is_pulled_described_and_found_by_every_name() {
    let scratch = Scratch::new();
    let layout_path = scratch.path("layout");
    layout(&layout_path, "v1", &[("bin/tool", 300_000), ("etc/x", 10)]);
    let reference = format!("oci:{}:v1", layout_path.display());
    let image = scratch.pull(&reference).await.unwrap();

    assert_eq!(image.references, std::slice::from_ref(&reference));
    assert_eq!(image.platform.to_string(), "linux/amd64");
    assert_eq!(image.config.entrypoint, ["/bin/tool"]);
    assert_eq!(image.config.cmd, ["--help"]);
    assert_eq!(image.config.env, ["PATH=/usr/bin:/bin"]);
    assert_eq!((image.config.user.as_str(), image.config.working_dir.as_str()), ("1000:1000", "/work"));
    assert_eq!(image.config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(image.config.labels["purpose"], "test");
    assert_eq!(image.config.exposed_ports, ["80/tcp"]);
    assert_eq!(image.layers.len(), 2);
    assert_eq!(scratch.blobs(), names(&layout_path.join("blobs/sha256")), "umoci's blobs and ours");
    assert_blobs_intact(&scratch);
    assert_eq!(scratch.staged(), [""; 0]);

    let digest = image.digest.to_string();
    for name in
        [&reference, &digest, &digest[7..].to_owned(), &digest[7..12].to_owned(), &digest[..20].to_owned()]
    {
        assert_eq!(scratch.images.find(name).await.unwrap(), image, "{name}");
    }
    assert_eq!(scratch.images.list().await.unwrap(), [image]);
    let error = scratch.images.find("nosuch").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(scratch.images.find("Bad Name").await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn archives_of_both_kinds_give_the_same_layers() {
    let scratch = Scratch::new();
    let layout_path = scratch.path("layout");
    layout(&layout_path, "v1", &[("bin/tool", 300_000), ("etc/x", 10), ("etc/x", 10)]);
    let from = format!("oci:{}:v1", layout_path.display());
    let (oci, docker) = (scratch.path("oci.tar"), scratch.path("docker.tar"));
    skopeo(&from, &format!("oci-archive:{}:v1", oci.display()), &[]);
    skopeo(&from, &format!("docker-archive:{}:tool:v1", docker.display()), &[]);

    let plain = scratch.pull(&from).await.unwrap();
    let archived = scratch.pull(&format!("oci-archive:{}", oci.display())).await.unwrap();
    assert_eq!(archived.digest, plain.digest, "one image under two names");
    assert_eq!(archived.references.len(), 2);

    let saved = scratch.pull(&format!("docker-archive:{}", docker.display())).await.unwrap();
    assert_eq!(saved.diff_ids(), plain.diff_ids());
    assert_eq!(saved.config.entrypoint, plain.config.entrypoint);
    let again = Scratch::new();
    let named = again.pull(&format!("docker-archive:{}:tool:v1", docker.display())).await.unwrap();
    assert_eq!(named.digest, saved.digest, "the manifest made up for an archive is always the same");
    assert_blobs_intact(&again);
    let error = again.pull(&format!("docker-archive:{}:other:v1", docker.display())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("tool:v1"), "{error}");
}

#[tokio::test]
async fn zstd_layers_are_taken_as_they_are() {
    let scratch = Scratch::new();
    let (layout_path, zstd) = (scratch.path("layout"), scratch.path("zstd"));
    layout(&layout_path, "v1", &[("bin/tool", 300_000)]);
    let to = format!("oci:{}:v1", zstd.display());
    skopeo(&format!("oci:{}:v1", layout_path.display()), &to, &["--dest-compress-format", "zstd"]);
    let image = scratch.pull(&to).await.unwrap();
    assert!(image.layers[0].media_type.ends_with("+zstd"), "{:?}", image.layers);
}

#[tokio::test]
async fn a_layout_with_several_images_wants_a_tag() {
    let scratch = Scratch::new();
    let layout_path = scratch.path("layout");
    layout(&layout_path, "one", &[("a", 10)]);
    layout(&layout_path, "two", &[("b", 10)]);
    let at = format!("oci:{}", layout_path.display());
    let error = scratch.pull(&at).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("one, two"), "{error}");
    let error = scratch.pull(&format!("{at}:three")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let one = scratch.pull(&format!("{at}:one")).await.unwrap();
    let two = scratch.pull(&format!("{at}:two")).await.unwrap();
    assert_ne!(one.digest, two.digest);
    layout(&layout_path, "latest", &[("c", 10)]);
    assert_eq!(scratch.pull(&at).await.unwrap().references, [at]);
}

/// Mutation tried: without the digest check in `Ingest::publish` the damaged layer is accepted.
#[tokio::test]
async fn damaged_incomplete_and_absent_sources_leave_nothing_behind() {
    let scratch = Scratch::new();
    let layout_path = scratch.path("layout");
    layout(&layout_path, "v1", &[("bin/tool", 300_000)]);
    let reference = format!("oci:{}:v1", layout_path.display());
    let blobs = layout_path.join("blobs/sha256");
    let largest = |entry: &String| std::fs::metadata(blobs.join(entry)).unwrap().len();
    let layer = blobs.join(names(&blobs).into_iter().max_by_key(largest).unwrap());
    let good = std::fs::read(&layer).unwrap();

    let mut flipped = good.clone();
    flipped[1000] ^= 1;
    let (short, long) = (good[..good.len() / 2].to_vec(), [&good[..], b"more"].concat());
    for (bad, what) in [(flipped, "flipped"), (short, "short"), (long, "long")] {
        std::fs::write(&layer, bad).unwrap();
        let error = scratch.pull(&reference).await.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert_eq!(scratch.staged(), [""; 0], "{what}");
        assert!(
            !scratch.blobs().contains(&layer.file_name().unwrap().to_string_lossy().into_owned()),
            "{what}"
        );
    }
    std::fs::remove_file(&layer).unwrap();
    assert_eq!(scratch.pull(&reference).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(scratch.images.list().await.unwrap(), []);
    std::fs::write(&layer, &good).unwrap();
    scratch.pull(&reference).await.unwrap();

    let absent = format!("oci:{}", scratch.path("absent").display());
    assert_eq!(scratch.pull(&absent).await.unwrap_err().kind(), ErrorKind::NotFound);
    let absent = format!("oci-archive:{}", scratch.path("absent").display());
    assert_eq!(scratch.pull(&absent).await.unwrap_err().kind(), ErrorKind::NotFound);
    let directory = format!("docker-archive:{}", scratch.directory.path().display());
    assert_eq!(scratch.pull(&directory).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn an_archive_that_is_none_says_so() {
    let scratch = Scratch::new();
    let file = scratch.path("x.tar");
    let reference = format!("docker-archive:{}", file.display());
    for (contents, expected) in [
        (b"".to_vec(), "no entries"),
        (vec![b'x'; 2048], "usable image archive"),
        ([&[0x1f, 0x8b, 8, 0][..], &[7; 2048]].concat(), "gunzip"),
    ] {
        std::fs::write(&file, contents).unwrap();
        let error = scratch.pull(&reference).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    tar_of(&file, "something", 100);
    let error = scratch.pull(&reference).await.unwrap_err();
    assert!(error.to_string().contains("manifest.json"), "{error}");
}

#[tokio::test]
async fn a_damaged_blob_in_the_home_is_fetched_again() {
    let scratch = Scratch::new();
    let layout_path = scratch.path("layout");
    layout(&layout_path, "v1", &[("bin/tool", 300_000)]);
    let reference = format!("oci:{}:v1", layout_path.display());
    let image = scratch.pull(&reference).await.unwrap();
    let blob = scratch.home.blobs().join(image.layers[0].digest.hex());
    std::fs::write(&blob, b"cut off").unwrap();
    scratch.pull(&reference).await.unwrap();
    assert_blobs_intact(&scratch);
}

#[tokio::test]
async fn policies_decide_whether_the_source_is_asked() {
    let scratch = Scratch::new();
    let layout_path = scratch.path("layout");
    layout(&layout_path, "v1", &[("a", 10)]);
    let reference: boxlite_storage::reference::Reference =
        format!("oci:{}:v1", layout_path.display()).parse().unwrap();
    let pull = async |policy| {
        let options = boxlite_types::PullOptions { policy, ..Default::default() };
        scratch.images.pull(&reference, &options, std::sync::Arc::new(())).await
    };
    assert_eq!(pull(PullPolicy::Never).await.unwrap_err().kind(), ErrorKind::NotFound);
    let first = pull(PullPolicy::Missing).await.unwrap();
    assert_eq!(pull(PullPolicy::Never).await.unwrap(), first);

    std::fs::remove_dir_all(&layout_path).unwrap();
    layout(&layout_path, "v1", &[("b", 20)]);
    let second = pull(PullPolicy::Missing).await.unwrap();
    assert_ne!(second.digest, first.digest, "a layout that changed is looked at again");
    let old = scratch.images.find(&first.digest.to_string()).await.unwrap();
    assert_eq!(old.references, [""; 0], "the name has moved on");

    std::fs::remove_dir_all(&layout_path).unwrap();
    assert_eq!(pull(PullPolicy::Missing).await.unwrap().digest, second.digest);
    assert_eq!(pull(PullPolicy::Always).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn images_go_with_their_last_name() {
    let scratch = Scratch::new();
    let layout_path = scratch.path("layout");
    layout(&layout_path, "v1", &[("a", 10)]);
    run("umoci", &["tag", "--image", &format!("{}:v1", layout_path.display()), "v2"]);
    let name = |tag: &str| format!("oci:{}:{tag}", layout_path.display());
    let image = scratch.pull(&name("v1")).await.unwrap();
    assert_eq!(scratch.pull(&name("v2")).await.unwrap().digest, image.digest);

    let error = scratch.images.remove(&image.short_id(), false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(scratch.images.remove(&name("v1"), false).await.unwrap(), [Removal::Untagged(name("v1"))]);
    assert_eq!(scratch.images.remove(&name("v1"), false).await.unwrap_err().kind(), ErrorKind::NotFound);
    let removed = scratch.images.remove(&name("v2"), false).await.unwrap();
    assert_eq!(removed, [Removal::Untagged(name("v2")), Removal::Deleted(image.digest)]);
    assert_eq!(scratch.images.list().await.unwrap(), []);
    assert!(!scratch.blobs().is_empty(), "the bytes are gc's to free");

    scratch.pull(&name("v1")).await.unwrap();
    scratch.pull(&name("v2")).await.unwrap();
    let removed = scratch.images.remove(&image.short_id(), true).await.unwrap();
    assert_eq!(removed.len(), 3, "{removed:?}");
}

/// Each start of a box from a layout wrote the image down again, with five fsyncs.
#[tokio::test]
async fn an_image_that_is_found_as_it_is_recorded_is_not_written_again() {
    let scratch = Scratch::new();
    let layout_path = scratch.path("layout");
    layout(&layout_path, "v1", &[("bin/tool", 3000)]);
    let reference = format!("oci:{}:v1", layout_path.display());
    let first = scratch.pull(&reference).await.unwrap();
    // Of a database with a rollback journal, the number of transactions that wrote to it.
    let written = || std::fs::read(scratch.home.database()).unwrap()[24..28].to_vec();
    let before = written();
    assert_eq!(scratch.pull(&reference).await.unwrap(), first);
    assert_eq!(written(), before);

    let archive = scratch.path("oci.tar");
    skopeo(&reference, &format!("oci-archive:{}:v1", archive.display()), &[]);
    let named = scratch.pull(&format!("oci-archive:{}", archive.display())).await.unwrap();
    assert_eq!((named.digest, named.references.len()), (first.digest, 2), "another name is written down");
    std::fs::remove_dir_all(&layout_path).unwrap();
    layout(&layout_path, "v1", &[("bin/tool", 5000)]);
    assert_ne!(scratch.pull(&reference).await.unwrap().digest, first.digest, "another image is");
    let options = PullOptions { policy: PullPolicy::Always, ..PullOptions::default() };
    let again =
        scratch.images.pull(&reference.parse().unwrap(), &options, std::sync::Arc::new(())).await.unwrap();
    assert!(again.pulled_at > first.pulled_at, "who asks for a pull has one");
}
