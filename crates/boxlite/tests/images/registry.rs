//! A real registry on loopback, and what networks do to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use boxlite::{ErrorKind, Image, Progress, PullOptions, Reference};

use crate::child;
use crate::fixture::*;
use crate::proxy::{Fate, Proxy, Request};

const BIG: usize = 5_000_000;

struct Registry {
    directory: tempfile::TempDir,
    address: String,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/registry")
}

impl Registry {
    fn start(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut arguments = vec!["start", directory.path().to_str().unwrap()];
        arguments.extend_from_slice(more);
        let address = run(script().to_str().unwrap(), &arguments).trim().to_owned();
        Self { directory, address }
    }

    fn push(&self, layout: &Path, tag: &str, name: &str) {
        let (at, layout) = (self.directory.path().to_str().unwrap(), layout.to_str().unwrap());
        run(script().to_str().unwrap(), &["push", at, layout, tag, name]);
    }

    /// Completed GETs whose address contains `part`.
    fn gets(&self, part: &str) -> usize {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
        let completed = log.lines().filter(|line| line.contains("response completed"));
        completed.filter(|line| line.contains("http.request.method=GET") && line.contains(part)).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        run(script().to_str().unwrap(), &["stop", self.directory.path().to_str().unwrap()]);
    }
}

/// A registry with `app:1` of two layers, one of them big, and the layout it was pushed from.
fn served(scratch: &Scratch, more: &[&str]) -> Registry {
    let registry = Registry::start(more);
    let path = scratch.path("layout");
    layout(&path, "v1", &[("big", BIG), ("small", 100)]);
    registry.push(&path, "v1", "app:1");
    registry
}

fn largest(image: &Image) -> String {
    image.layers.iter().max_by_key(|layer| layer.length).unwrap().digest.to_string()
}

async fn pull_kind(scratch: &Scratch, reference: &str) -> (ErrorKind, String) {
    let error = scratch.pull(reference).await.expect_err(reference);
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn an_image_comes_from_a_registry_and_is_found_again_without_it() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let reference = format!("{}/app:1", registry.address);
    let local = scratch.pull(&format!("oci:{}:v1", scratch.path("layout").display())).await.unwrap();
    let fresh = Scratch::new();
    let image = fresh.pull(&reference).await.unwrap();
    assert_eq!(image.digest, local.digest);
    assert_eq!(image.references, [reference.clone()]);
    assert_eq!(fresh.blobs(), scratch.blobs());
    assert_blobs_intact(&fresh);

    let by_digest = fresh.pull(&format!("{}/app@{}", registry.address, image.digest)).await.unwrap();
    assert_eq!(by_digest.digest, image.digest);
    assert_eq!(registry.gets(&largest(&image)), 1, "a blob that is there is not fetched again");
    let manifests = registry.gets("/manifests/");
    drop(registry);
    assert_eq!(fresh.pull(&reference).await.unwrap().digest, image.digest);
    assert!(manifests >= 2);
}

#[tokio::test]
async fn other_families_of_images_are_read_too() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let from = format!("oci:{}:v1", scratch.path("layout").display());
    let plain = scratch.pull(&from).await.unwrap();
    let to = |name: &str| format!("docker://{}/{name}", registry.address);
    let insecure = "--dest-tls-verify=false";
    skopeo(&from, &to("docker:2"), &[insecure, "--format", "v2s2"]);
    let layout = format!("oci:{}:v1", scratch.path("zstd").display());
    skopeo(&from, &layout, &["--dest-compress-format", "zstd"]);
    skopeo(&layout, &to("zstd:1"), &[insecure]);

    let docker = scratch.pull(&format!("{}/docker:2", registry.address)).await.unwrap();
    assert_eq!(docker.diff_ids(), plain.diff_ids());
    assert!(docker.layers[0].media_type.contains("docker"), "{:?}", docker.layers);
    let zstd = scratch.pull(&format!("{}/zstd:1", registry.address)).await.unwrap();
    assert_eq!(zstd.diff_ids(), plain.diff_ids());
    assert!(zstd.layers[0].media_type.ends_with("zstd"), "{:?}", zstd.layers);
    for image in [plain, docker, zstd] {
        drop(boxlite::disk::image::ensure(&scratch.images, &image, crate::disk::VIRTUAL, &()).unwrap());
    }
    assert_eq!(names(&scratch.home.disk_images()).len(), 1, "the same layers make the same disk image");
}

#[tokio::test]
async fn an_index_gives_the_image_of_the_platform() {
    let scratch = Scratch::new();
    let registry = Registry::start(&[]);
    let path = scratch.path("layout");
    layout(&path, "amd64", &[("a", 100)]);
    layout(&path, "arm64", &[("b", 100)]);
    let other = format!("{}:arm64", path.display());
    run("umoci", &["config", "--image", &other, "--architecture", "arm64"]);
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path.join("index.json")).unwrap()).unwrap();
    let entries: Vec<serde_json::Value> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let tag = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
            serde_json::json!({ "mediaType": entry["mediaType"], "digest": entry["digest"], "size": entry["size"],
                "platform": { "os": "linux", "architecture": tag } })
        })
        .collect();
    let text =
        serde_json::json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries })
        .to_string();
    let nested = scratch.path("nested");
    run("cp", &["-r", path.to_str().unwrap(), nested.to_str().unwrap()]);
    let digest = boxlite::Digest::of(text.as_bytes());
    std::fs::write(nested.join("blobs/sha256").join(digest.hex()), &text).unwrap();
    let top = serde_json::json!({ "schemaVersion": 2, "manifests": [{ "digest": digest, "size": text.len(),
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "annotations": { "org.opencontainers.image.ref.name": "multi" } }] });
    std::fs::write(nested.join("index.json"), top.to_string()).unwrap();
    let to = format!("docker://{}/multi:1", registry.address);
    skopeo(&format!("oci:{}:multi", nested.display()), &to, &["--all", "--dest-tls-verify=false"]);

    let reference: Reference = format!("{}/multi:1", registry.address).parse().unwrap();
    let pull = async |platform: Option<&str>| {
        let platform = platform.map(|text| text.parse().unwrap());
        let options = PullOptions { platform, ..Default::default() };
        scratch.images.pull(&reference, &options, Arc::new(())).await
    };
    let host = pull(Some("linux/amd64")).await.unwrap();
    assert_eq!(host.platform.architecture, "amd64");
    let arm = pull(Some("linux/arm64")).await.unwrap();
    assert_eq!(arm.platform.architecture, "arm64");
    assert_ne!(arm.digest, host.digest);
    let error = pull(Some("linux/s390x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("linux/arm64"), "{error}");
    let local = scratch.pull(&format!("oci:{}:multi", nested.display())).await.unwrap();
    assert_eq!(local.digest, host.digest, "the same from a layout");
    let by_index = scratch.pull(&format!("{}/multi@{digest}", registry.address)).await.unwrap();
    assert_eq!(by_index.digest, host.digest);
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let (kind, message) = pull_kind(&scratch, &format!("{}/app:2", registry.address)).await;
    assert_eq!(kind, ErrorKind::NotFound, "{message}");
    assert!(message.contains("app:2"), "{message}");
    let (kind, _) = pull_kind(&scratch, &format!("{}/nosuch", registry.address)).await;
    assert_eq!(kind, ErrorKind::NotFound);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (kind, message) = pull_kind(&scratch, &format!("{closed}/app")).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{message}");
    assert!(message.contains(&closed.to_string()) && message.contains("oci:DIR"), "{message}");
    let (kind, message) = pull_kind(&scratch, "registry.invalid/app").await;
    assert_eq!(kind, ErrorKind::Unavailable, "{message}");
    assert!(message.contains("registry.invalid"), "{message}");
}

#[tokio::test]
async fn credentials_come_from_dockers_configuration() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &["--auth"]);
    let reference = format!("{}/app:1", registry.address);
    let config = scratch.path("docker");
    std::fs::create_dir(&config).unwrap();
    let write = |text: String| std::fs::write(config.join("config.json"), text).unwrap();
    let home = scratch.home.root().to_owned();
    let helpers = scratch.path("bin");
    let path = format!("{}:{}", helpers.display(), std::env::var("PATH").unwrap());
    let pull = || {
        let env = [("DOCKER_CONFIG", config.to_str().unwrap()), ("PATH", path.as_str())];
        child::run(&home, &reference, false, &env).said
    };

    let said = pull();
    assert!(said.starts_with("error denied") && said.contains("docker login"), "{said}");
    write(format!(r#"{{"auths": {{"{}": {{"auth": "dGVzdGVyOndyb25n"}}}}}}"#, registry.address));
    assert!(pull().starts_with("error denied"), "a wrong password");
    write("{".to_owned());
    assert!(pull().starts_with("error invalid_input"), "a broken configuration");

    std::fs::create_dir(&helpers).unwrap();
    let helper = helpers.join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread -r server\n[ \"$server\" = {} ] && echo '{{\"Username\":\"tester\",\"Secret\":\"secret\"}}'\n",
        registry.address
    );
    std::fs::write(&helper, script).unwrap();
    run("chmod", &["+x", helper.to_str().unwrap()]);
    write(format!(r#"{{"credHelpers": {{"{}": "test"}}}}"#, registry.address));
    assert!(pull().starts_with("ok sha256:"), "a helper");
    scratch.images.remove(&reference, false).await.unwrap();
    write(format!(
        r#"{{"auths": {{"http://{}/v1/": {{"auth": "dGVzdGVyOnNlY3JldA=="}}}}}}"#,
        registry.address
    ));
    assert!(pull().starts_with("ok sha256:"), "an entry");
}

#[tokio::test]
async fn tokens_are_fetched_when_asked_for() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let proxy = Proxy::before(&registry.address, |request: &Request| {
        assert!(request.path.contains("scope=repository%3Aapp%3Apull"), "{request:?}");
        Fate::Answer("200 OK", String::new(), br#"{"access_token": "abc"}"#.to_vec())
    });
    let address = proxy.address.clone();
    let front = Proxy::before(&registry.address, move |request: &Request| match request.authorization {
        Some(_) => Fate::Pass,
        None if request.path.starts_with("/v2/") => {
            let challenge =
                format!("WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"s\"\r\n");
            Fate::Answer("401 Unauthorized", challenge, Vec::new())
        }
        None => Fate::Pass,
    });
    scratch.pull(&format!("{}/app:1", front.address)).await.unwrap();
    assert_eq!(proxy.requests().len(), 1, "one token serves the whole pull");
    let with_token = front.requests().into_iter().filter(|request| request.authorization.is_some());
    assert!(with_token.clone().count() >= 4);
    assert!(with_token.clone().all(|request| request.authorization.as_deref() == Some("Bearer abc")));
}

/// Mutation tried: asking for the whole blob again after a break fails the check of the ranges.
#[tokio::test]
async fn a_transfer_that_breaks_off_is_resumed() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let proxy = Proxy::before(&registry.address, |request: &Request| match request.earlier {
        0..3 if request.is_blob() => Fate::Cut(1_200_000),
        _ => Fate::Pass,
    });
    let image = scratch.pull(&format!("{}/app:1", proxy.address)).await.unwrap();
    assert_blobs_intact(&scratch);
    let ranges: Vec<Option<String>> = proxy
        .requests()
        .into_iter()
        .filter(|request| request.path.ends_with(&largest(&image)))
        .map(|request| request.range)
        .collect();
    assert_eq!(ranges.len(), 4, "{ranges:?}");
    assert_eq!(ranges[0], None);
    assert!(
        ranges[1..].iter().all(|range| range.as_ref().is_some_and(|text| text != "bytes=0-")),
        "{ranges:?}"
    );
}

#[tokio::test]
async fn a_registry_without_ranges_is_asked_from_the_start() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let proxy = Proxy::before(&registry.address, |request: &Request| match request.earlier {
        0 if request.is_blob() => Fate::Cut(1_200_000),
        _ => Fate::NoRange,
    });
    scratch.pull(&format!("{}/app:1", proxy.address)).await.unwrap();
    assert_blobs_intact(&scratch);
}

#[tokio::test]
async fn transient_answers_are_tried_again_and_final_ones_are_not() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let proxy = Proxy::before(&registry.address, |request: &Request| match request.earlier {
        0 => Fate::Answer("503 Service Unavailable", "Retry-After: 0\r\n".to_owned(), Vec::new()),
        _ => Fate::Pass,
    });
    let retries = Arc::new(std::sync::Mutex::new(0));
    let counted = Arc::clone(&retries);
    let sink = move |progress: Progress| {
        if matches!(progress, Progress::Retrying { .. }) {
            *counted.lock().unwrap() += 1;
        }
    };
    let reference: Reference = format!("{}/app:1", proxy.address).parse().unwrap();
    scratch.images.pull(&reference, &PullOptions::default(), Arc::new(sink)).await.unwrap();
    assert_eq!(*retries.lock().unwrap(), 4, "manifest, config and two layers");

    let refusing = Proxy::before(&registry.address, |_: &Request| {
        Fate::Answer("403 Forbidden", String::new(), br#"{"errors":[{"message":"not you"}]}"#.to_vec())
    });
    let (kind, message) = pull_kind(&scratch, &format!("{}/app:1", refusing.address)).await;
    assert_eq!(kind, ErrorKind::Denied);
    assert!(message.contains("not you"), "{message}");
    assert_eq!(refusing.requests().len(), 1);
}

#[tokio::test]
async fn hostile_registries_get_an_error_and_leave_nothing() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    type Ruse = fn(&Request) -> Fate;
    let ruses: [(Ruse, ErrorKind); 6] = [
        (|_| Fate::Endless, ErrorKind::Corrupt),
        (|request| if request.is_blob() { Fate::Endless } else { Fate::Pass }, ErrorKind::Corrupt),
        (|request| if request.is_blob() { Fate::Flip(60) } else { Fate::Pass }, ErrorKind::Corrupt),
        (|request| if request.is_blob() { Fate::Pass } else { Fate::Flip(60) }, ErrorKind::Corrupt),
        (|_| Fate::Answer("200 OK", String::new(), b"<html>".to_vec()), ErrorKind::Corrupt),
        (
            |_| Fate::Answer("302 Found", "Location: /v2/app/manifests/1\r\n".to_owned(), Vec::new()),
            ErrorKind::Unavailable,
        ),
    ];
    for (at, (ruse, expected)) in ruses.into_iter().enumerate() {
        let proxy = Proxy::before(&registry.address, ruse);
        let (kind, message) = pull_kind(&scratch, &format!("{}/app:1", proxy.address)).await;
        assert_eq!(kind, expected, "ruse {at}: {message}");
        assert_eq!(scratch.staged(), [""; 0], "ruse {at}");
        assert_blobs_intact(&scratch);
    }
    assert_eq!(scratch.images.list().await.unwrap(), []);
}

/// Mutation tried: without the lock of the partial blob the layers are fetched several times.
#[tokio::test(flavor = "multi_thread")]
async fn eight_tasks_and_three_processes_fetch_each_layer_once() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let reference = format!("{}/app:1", registry.address);
    let fresh = Scratch::new();
    let children: Vec<_> = (0..3).map(|_| child::start(fresh.home.root(), &reference, true, &[])).collect();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (images, reference) = (fresh.images.clone(), reference.parse::<Reference>().unwrap());
            let work = async move {
                let image = images.pull(&reference, &PullOptions::default(), Arc::new(())).await?;
                let (there, built) = (images.clone(), image.clone());
                let build = move || boxlite::disk::image::ensure(&there, &built, crate::disk::VIRTUAL, &());
                tokio::task::spawn_blocking(build).await.unwrap().map(|_| image)
            };
            tokio::spawn(work)
        })
        .collect();
    let mut image = None;
    for task in tasks {
        image = Some(task.await.unwrap().unwrap());
    }
    let image = image.unwrap();
    for child in children {
        assert_eq!(child::finish(child).said, format!("ok {}", image.digest));
    }
    for layer in &image.layers {
        assert_eq!(registry.gets(&format!("/blobs/{}", layer.digest)), 1, "{}", layer.digest);
    }
    assert_eq!(names(&fresh.home.disk_images()).len(), 1);
    assert_eq!(fresh.staged(), [""; 0]);
    assert_blobs_intact(&fresh);
}

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

/// What a dead writer left may be anything; it is found out and fetched again.
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
                assert!(boxlite::durable::sweep_staged(&path, false).unwrap().is_some(), "{fault}: {path:?}");
            }
        }
    }
}

/// A tmpfs of its own, unmounted at the end; `None`, loudly, where that is not possible.
struct Small(PathBuf);

impl Small {
    fn mount(scratch: &Scratch, megabytes: u32) -> Option<Self> {
        let path = scratch.path("small");
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={megabytes}m");
        let at = path.to_str().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "boxlite-test", at])
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a tmpfs");
            eprintln!("SKIPPED: a tmpfs cannot be mounted here");
        }
        mounted.then_some(Self(path))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &[self.0.to_str().unwrap()]);
    }
}

/// Mutation tried: without `take_back` the small layer stays behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_ends_a_pull_and_leaves_nothing_of_it() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let Some(small) = Small::mount(&scratch, 64) else { return };
    let home = boxlite::Home::open(&small.0.join("home")).unwrap();
    let settings =
        "hard_floor = \"32MiB\"\nsoft_floor = \"33MiB\"\nemergency_floor = \"1MiB\"\ninode_floor = 10\n";
    std::fs::write(home.config(), settings).unwrap();
    let images = boxlite::Images::open(&home).unwrap();
    let pull = async |address: &str| {
        let reference: Reference = format!("{address}/app:1").parse().unwrap();
        images.pull(&reference, &PullOptions::default(), Arc::new(())).await
    };

    let filler = small.0.join("filler");
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
    let error = boxlite::disk::image::ensure(&images, &image, crate::disk::VIRTUAL, &()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    assert_eq!((names(&home.disk_images()), names(&home.tmp())), (vec![], vec![]));
    std::fs::remove_file(&filler).unwrap();
    drop(boxlite::disk::image::ensure(&images, &image, crate::disk::VIRTUAL, &()).unwrap());
}
