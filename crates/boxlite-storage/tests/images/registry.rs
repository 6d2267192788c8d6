//! A real registry on loopback, and what networks do to it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use boxlite_storage::reference::Reference;
use boxlite_testkit::oracle;
use boxlite_testkit::registry::Registry;
use boxlite_types::{ErrorKind, Image, Progress, PullOptions};

use crate::child;
use crate::fixture::*;
use crate::proxy::{Fate, Proxy, Request};

const BIG: usize = 5_000_000;

/// A registry with `app:1` of two layers, one of them big, and the layout it was pushed from.
pub(crate) fn served(scratch: &Scratch, more: &[&str]) -> Registry {
    let registry = Registry::start(more);
    let path = scratch.path("layout");
    layout(&path, "v1", &[("big", BIG), ("small", 100)]);
    registry.push(&path, "v1", "app:1");
    registry
}

pub(crate) fn largest(image: &Image) -> String {
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
    assert_eq!(image.references, std::slice::from_ref(&reference));
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
        drop(
            boxlite_storage::disk_image::ensure(&scratch.images, &image, crate::disk::VIRTUAL, &()).unwrap(),
        );
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
    let digest = boxlite_types::Digest::of(text.as_bytes());
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
    assert!(said.starts_with("error denied") && said.contains("boxlite login"), "{said}");
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
    let front = Proxy::before(&registry.address, move |request: &Request| {
        if request.authorization.is_some() {
            return Fate::Pass;
        }
        let challenge =
            format!("WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"s\"\r\n");
        Fate::Answer("401 Unauthorized", challenge, Vec::new())
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

type Ruse = fn(&Request) -> Fate;

#[tokio::test]
async fn hostile_registries_get_an_error_and_leave_nothing() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
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
                let build =
                    move || boxlite_storage::disk_image::ensure(&there, &built, crate::disk::VIRTUAL, &());
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
async fn https_is_spoken_where_the_registry_speaks_it() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let (key, certificate) = (scratch.path("key"), scratch.path("certificate"));
    let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
    let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"];
    let make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate];
    run("openssl", &[&make[..], &subject[..]].concat());
    let secure = Registry::with_tls(&registry, key, certificate);
    let image = scratch.pull(&format!("{}/app:1", secure.address)).await.unwrap();
    assert_eq!(image.layers.len(), 2);
}

/// A host with an address besides loopback can tell whether plain HTTP is refused where it was not asked for.
#[tokio::test]
async fn plain_http_beyond_loopback_has_to_be_asked_for() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let addresses = run("hostname", &["-I"]);
    let Some(address) = addresses.split_whitespace().find(|address| !address.contains(':')) else {
        oracle::skip_even_in_ci("this host has no address besides loopback");
        return;
    };
    let proxy = Proxy::on(address, &registry.address, |_: &Request| Fate::Pass);
    let reference: Reference = format!("{}/app:1", proxy.address).parse().unwrap();
    let pull = async |insecure| {
        let options = PullOptions { insecure, ..Default::default() };
        scratch.images.pull(&reference, &options, Arc::new(())).await
    };
    let error = pull(false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("--insecure"), "{error}");
    pull(true).await.unwrap();

    // One that answers the handshake, as most do, is known by that.
    let listener = TcpListener::bind((address, 0)).unwrap();
    let reference: Reference = format!("{}/app:1", listener.local_addr().unwrap()).parse().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let _ = client.read(&mut [0; 512]);
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let error = scratch.images.pull(&reference, &PullOptions::default(), Arc::new(())).await.unwrap_err();
    assert!(error.to_string().contains("answers in plain HTTP and not in HTTPS; --insecure"), "{error}");
}

#[tokio::test]
async fn a_lost_blob_is_fetched_again_when_the_image_is_wanted() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let reference = format!("{}/app:1", registry.address);
    let image = scratch.pull(&reference).await.unwrap();
    let blob = scratch.home.blobs().join(image.layers[1].digest.hex());
    std::fs::remove_file(&blob).unwrap();
    scratch.pull(&reference).await.unwrap();
    assert!(blob.exists());
    std::fs::remove_file(&blob).unwrap();
    drop(registry);
    assert_eq!(scratch.pull(&reference).await.unwrap(), image_as(&scratch, &image).await);
}

async fn image_as(scratch: &Scratch, image: &Image) -> Image {
    scratch.images.find(&image.digest.to_string()).await.unwrap()
}
