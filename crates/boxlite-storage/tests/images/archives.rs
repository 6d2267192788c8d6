//! `save` and `load` against skopeo, and what may be in an archive that somebody else wrote.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxlite_storage::image::ImageArchive;
use boxlite_types::{ArchiveFormat, Error, ErrorKind, Image};

use crate::fixture::*;

const NAME: &str = "registry.example/team/app:3";

/// A home with an image of two layers, and `app:3` for its name.
async fn with_image() -> (Scratch, Image) {
    let scratch = Scratch::new();
    let path = scratch.path("layout");
    layout(&path, "v1", &[("big", 300_000), ("small", 100)]);
    let image = scratch.pull(&format!("oci:{}:v1", path.display())).await.unwrap();
    let image = scratch.images.tag(&image.digest.hex(), NAME).await.unwrap();
    (scratch, image)
}

async fn saved(scratch: &Scratch, wanted: &[&str], format: ArchiveFormat) -> Vec<u8> {
    let wanted: Vec<String> = wanted.iter().map(|text| (*text).to_owned()).collect();
    let saved = scratch.images.save(&wanted, format, Arc::new(())).await.unwrap();
    let mut archive = Vec::new();
    saved.write(&mut archive).unwrap();
    archive
}

async fn load(scratch: &Scratch, archive: Vec<u8>) -> Result<Vec<Image>, Error> {
    let stream = ImageArchive::Stream(Box::new(Cursor::new(archive)));
    scratch.images.load(stream, Arc::new(())).await
}

fn write(scratch: &Scratch, name: &str, bytes: &[u8]) -> PathBuf {
    let path = scratch.path(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test]
async fn both_forms_of_archives_are_read_by_skopeo_and_by_us() {
    let (scratch, image) = with_image().await;
    for (format, transport) in
        [(ArchiveFormat::DockerArchive, "docker-archive"), (ArchiveFormat::OciArchive, "oci-archive")]
    {
        let archive = saved(&scratch, &[NAME], format).await;
        assert!(saved(&scratch, &[NAME], format).await == archive, "the same images give the same bytes");
        let file = write(&scratch, "archive.tar", &archive);
        let copy = scratch.path(transport);
        skopeo(&format!("{transport}:{}", file.display()), &format!("oci:{}:v1", copy.display()), &[]);
        let read = Scratch::new().pull(&format!("oci:{}:v1", copy.display())).await.unwrap();
        assert_eq!(read.diff_ids(), image.diff_ids(), "{transport}");

        let fresh = Scratch::new();
        let loaded = load(&fresh, archive).await.unwrap();
        assert_eq!((loaded[0].digest, &loaded[0].references[..]), (image.digest, &[NAME.to_owned()][..]));
        assert_blobs_intact(&fresh);
        assert_eq!(fresh.staged(), [""; 0], "what was written on the way is gone");
        // From a file nothing is written on the way.
        let again = fresh.images.load(ImageArchive::File(file), Arc::new(())).await.unwrap();
        assert_eq!(again[0].digest, image.digest);
    }
}

#[tokio::test]
async fn several_images_names_and_compressed_archives_arrive_whole() {
    let (scratch, image) = with_image().await;
    let other = scratch.path("other");
    layout(&other, "v1", &[("other", 50)]);
    let second = scratch.pull(&format!("oci:{}:v1", other.display())).await.unwrap();
    scratch.images.tag(NAME, "web:1").await.unwrap();
    let archive =
        saved(&scratch, &[NAME, &second.digest.to_string(), "web:1"], ArchiveFormat::DockerArchive).await;
    let file = write(&scratch, "archive.tar", &archive);
    for program in ["gzip", "zstd"] {
        run(program, &["-kfq", file.to_str().unwrap()]);
        let suffix = if program == "gzip" { "gz" } else { "zst" };
        let packed = scratch.path(&format!("archive.tar.{suffix}"));
        for as_file in [true, false] {
            let fresh = Scratch::new();
            let stream = || Box::new(std::fs::File::open(&packed).unwrap());
            let input =
                if as_file { ImageArchive::File(packed.clone()) } else { ImageArchive::Stream(stream()) };
            let loaded = fresh.images.load(input, Arc::new(())).await.unwrap();
            let names: Vec<usize> = loaded.iter().map(|image| image.references.len()).collect();
            assert_eq!(names, [2, 0], "{loaded:?}");
            assert_eq!((loaded[0].digest, loaded[1].digest), (image.digest, second.digest));
            assert_eq!(fresh.staged(), [""; 0]);
        }
    }
}

#[tokio::test]
async fn what_docker_save_writes_is_loaded_under_its_names() {
    let (scratch, image) = with_image().await;
    let file = scratch.path("docker.tar");
    let from = format!("oci:{}:v1", scratch.path("layout").display());
    skopeo(&from, &format!("docker-archive:{}:me/app:7", file.display()), &[]);
    let loaded = scratch.images.load(ImageArchive::File(file), Arc::new(())).await.unwrap();
    assert_eq!(loaded[0].diff_ids(), image.diff_ids());
    assert_eq!(loaded[0].references, ["docker.io/me/app:7"]);
}

fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Nothing of these may stay, and none may take the process down.
#[tokio::test]
async fn hostile_archives_are_refused_and_leave_nothing() {
    let scratch = Scratch::new();
    let many = serde_json::to_vec(&vec![serde_json::json!({"Config": "c", "Layers": []}); 300]).unwrap();
    let config = br#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}}"#;
    let wrong_layer = br#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]"#;
    let bad_name = br#"[{"Config":"c.json","RepoTags":["A B"],"Layers":["l.tar"]}]"#;
    let escape = br#"[{"Config":"../../../../etc/passwd","Layers":[]}]"#;
    let missing = br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":5}]}"#;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("not tar", vec![7; 5000]),
        ("neither form", tar(&[("a", b"b")])),
        ("malformed list", tar(&[("manifest.json", b"[{")])),
        ("no image", tar(&[("manifest.json", b"[]")])),
        ("too many images", tar(&[("manifest.json", &many)])),
        (
            "a layer that is another",
            tar(&[("manifest.json", wrong_layer), ("c.json", config), ("l.tar", b"x")]),
        ),
        ("a name that is none", tar(&[("manifest.json", bad_name), ("c.json", config), ("l.tar", b"x")])),
        ("a path out of it", tar(&[("manifest.json", escape)])),
        ("a blob that is missing", tar(&[("oci-layout", b"{}"), ("index.json", missing)])),
        ("gzip that is none", vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]),
        ("zstd that is none", vec![0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ];
    for (what, archive) in cases {
        let error = load(&scratch, archive).await.expect_err(what);
        let expected = [ErrorKind::Corrupt, ErrorKind::Unsupported, ErrorKind::InvalidInput];
        assert!(expected.contains(&error.kind()), "{what}: {error}");
    }
    assert_eq!(scratch.images.list().await.unwrap(), []);
    assert_eq!(scratch.staged(), [""; 0]);
    let error = scratch.images.load(ImageArchive::File(Path::new("/nonexistent").into()), Arc::new(())).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Mutation tried: without the digest in `VerifiedReader`, the archive is written with the damaged layer.
#[tokio::test]
async fn a_damaged_blob_is_never_saved() {
    let (scratch, image) = with_image().await;
    let blob = scratch.home.blobs().join(image.layers[0].digest.hex());
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let wanted = [NAME.to_owned()];
    let saved = scratch.images.save(&wanted, ArchiveFormat::default(), Arc::new(())).await.unwrap();
    assert_eq!(saved.write(std::io::sink()).unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::remove_file(&blob).unwrap();
    let gone = scratch.images.save(&wanted, ArchiveFormat::default(), Arc::new(())).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn history_pairs_steps_with_layers() {
    let (scratch, image) = with_image().await;
    let steps = scratch.images.history(NAME).await.unwrap();
    let layers: Vec<_> = steps.iter().rev().filter_map(|step| step.layer).collect();
    assert_eq!(layers, image.diff_ids());
    assert_eq!(steps[0].digest, Some(image.digest));
    assert_eq!(steps.iter().map(|step| step.size).sum::<u64>(), image.stored_bytes());
}

/// Who asks for `alpine@sha256:…` trusts the digest, whatever an archive calls its image.
#[tokio::test]
async fn a_name_that_holds_a_digest_is_given_to_no_image() {
    let scratch = Scratch::new();
    let path = scratch.path("layout");
    layout(&path, "v1", &[("small", 100)]);
    let index = path.join("index.json");
    let mut document: serde_json::Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    let pinned = format!("alpine@sha256:{}", "a".repeat(64));
    document["manifests"][0]["annotations"]["io.containerd.image.name"] = pinned.clone().into();
    std::fs::write(&index, document.to_string()).unwrap();
    let error = scratch.images.load(ImageArchive::File(path), Arc::new(())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains(&pinned), "{error}");
    assert_eq!(scratch.images.list().await.unwrap(), []);
}
