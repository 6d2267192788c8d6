//! Pushing to a real registry, with skopeo as the oracle, and to one that breaks off.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use boxlite_storage::image::Images;
use boxlite_testkit::registry::Registry;
use boxlite_types::{Digest, ErrorKind, Image, Login, Logout, PushOptions};

use crate::fixture::*;

/// A home with an image of two layers.
async fn with_image() -> (Scratch, Image) {
    let scratch = Scratch::new();
    let path = scratch.path("layout");
    layout(&path, "v1", &[("big", 5_000_000), ("small", 100)]);
    let image = scratch.pull(&format!("oci:{}:v1", path.display())).await.unwrap();
    (scratch, image)
}

async fn push(scratch: &Scratch, image: &Image, target: &str) -> boxlite_types::Result<Image> {
    let options = PushOptions::default();
    scratch.images.push(&image.digest.to_string(), Some(target), &options, Arc::new(())).await
}

#[tokio::test]
async fn an_image_arrives_whole_and_nothing_is_sent_twice() {
    let (scratch, image) = with_image().await;
    let registry = Registry::start(&[]);
    let target = format!("{}/team/app:1", registry.address);
    push(&scratch, &image, &target).await.unwrap();
    let copy = scratch.path("copy");
    skopeo(&format!("docker://{target}"), &format!("oci:{}:v1", copy.display()), &["--src-tls-verify=false"]);
    let read = Scratch::new().pull(&format!("oci:{}:v1", copy.display())).await.unwrap();
    assert_eq!((read.digest, read.diff_ids()), (image.digest, image.diff_ids()));

    let uploads = || registry.requests("PATCH");
    assert_eq!(uploads(), 3, "two layers and the config");
    push(&scratch, &image, &format!("{}/team/app:2", registry.address)).await.unwrap();
    assert_eq!(uploads(), 3, "what the repository has is not sent");
    // The home knows now that the registry has the layers in another repository.
    scratch.images.tag(&image.digest.to_string(), &target).await.unwrap();
    push(&scratch, &image, &target).await.unwrap();
    push(&scratch, &image, &format!("{}/other/app:1", registry.address)).await.unwrap();
    assert_eq!(uploads(), 3, "blobs are mounted from there");
}

#[tokio::test]
async fn credentials_are_checked_before_they_are_kept_and_then_used() {
    let (scratch, image) = with_image().await;
    let registry = Registry::start(&["--auth"]);
    let target = format!("{}/app:1", registry.address);
    let refused = push(&scratch, &image, &target).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    let config = scratch.path("config.json");
    let images = scratch.images.clone().with_registry_config(Some(config.clone()));
    let login = |password: &str| Login {
        registry: registry.address.clone(),
        user: "tester".into(),
        password: password.into(),
        insecure: false,
    };
    let wrong = images.login(&login("wrong")).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Denied);
    assert!(!config.exists(), "a password that was refused is not kept");
    images.login(&login("secret")).await.unwrap();
    let sent =
        images.push(&image.digest.to_string(), Some(&target), &PushOptions::default(), Arc::new(())).await;
    assert_eq!(sent.unwrap().digest, image.digest);
    let out = async |images: &Images| {
        let Logout { was_logged_in, still_in } = images.logout(&registry.address).await.unwrap();
        (was_logged_in, still_in)
    };
    assert_eq!(out(&images).await, (true, None));
    // Before: nobody was told that Podman's file has some too, with which every pull goes on.
    let podman = scratch.path("auth.json");
    std::fs::write(&podman, format!("{{\"auths\": {{\"{}\": {{\"auth\": \"YTpi\"}}}}}}", registry.address))
        .unwrap();
    let both = images.clone().with_further_registry_configs(vec![scratch.path("none.json"), podman.clone()]);
    assert_eq!(out(&both).await, (false, Some(podman)));
}

#[tokio::test]
async fn what_cannot_be_pushed_says_why() {
    let (scratch, image) = with_image().await;
    for target in
        ["oci:/tmp/x", "a@sha256:0000000000000000000000000000000000000000000000000000000000000000", "A B"]
    {
        assert_eq!(
            push(&scratch, &image, target).await.unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{target}"
        );
    }
    let nowhere =
        scratch.images.push(&image.digest.to_string(), None, &PushOptions::default(), Arc::new(())).await;
    assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::InvalidInput);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = push(&scratch, &image, &format!("{free}/app:1")).await.unwrap_err();
    assert_eq!(dead.kind(), ErrorKind::Unavailable, "{dead}");
}

/// Mutation tried: an upload that goes on at 0 after a break fails this.
#[tokio::test]
async fn an_upload_that_breaks_off_goes_on_where_it_stopped() {
    let (scratch, image) = with_image().await;
    let registry = BreakingRegistry::start();
    push(&scratch, &image, &format!("{}/app:1", registry.address)).await.unwrap();
    let seen = registry.seen.lock().unwrap();
    assert!(seen.broken > 0, "an upload was cut off");
    assert_eq!(seen.resumed, seen.broken, "{seen:?}");
    let mut expected: Vec<Digest> = image.layers.iter().map(|layer| layer.digest).collect();
    expected.sort();
    let mut complete = seen.complete.clone();
    complete.sort();
    complete.retain(|digest| expected.contains(digest));
    assert_eq!(complete, expected);
    assert_eq!(seen.manifest_after, 3, "the manifest comes last");
}

/// A registry that cuts the first half of each large upload off, and then says what has arrived.
struct BreakingRegistry {
    address: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    uploads: Vec<Vec<u8>>,
    broken: usize,
    resumed: usize,
    complete: Vec<Digest>,
    manifest_after: usize,
}

impl BreakingRegistry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let seen = Arc::clone(&shared);
                std::thread::spawn(move || while answer(&connection, &seen).is_some() {});
            }
        });
        Self { address, seen }
    }
}

/// Answers one request; `None` when the connection ends.
fn answer(connection: &TcpStream, seen: &Mutex<Seen>) -> Option<()> {
    let mut reader = BufReader::with_capacity(1, connection);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let header = |name: &str| {
        let found = lines.iter().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        found.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let mut words = lines.first()?.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let length: usize = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let upload: usize =
        path.split("/uploads/").nth(1).and_then(|rest| rest.split('?').next()?.parse().ok()).unwrap_or(0);
    let mut connection = connection;
    let mut say = |status: &str, more: &str| {
        write!(connection, "HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n").ok()
    };
    let location = format!("Location: /v2/app/blobs/uploads/{upload}\r\n");
    match method.as_str() {
        "HEAD" => say("404 Not Found", ""),
        "GET" if path == "/v2/" => say("200 OK", ""),
        "GET" => {
            let arrived = seen.lock().unwrap().uploads[upload].len();
            say("204 No Content", &format!("{location}Range: 0-{}\r\n", arrived.saturating_sub(1)))
        }
        "POST" => {
            let mut seen = seen.lock().unwrap();
            seen.uploads.push(Vec::new());
            say("202 Accepted", &format!("Location: /v2/app/blobs/uploads/{}\r\n", seen.uploads.len() - 1))
        }
        "PATCH" => {
            let first = seen.lock().unwrap().uploads[upload].is_empty();
            let cut = first && length > 1_000_000;
            let mut body = vec![0; if cut { length / 2 } else { length }];
            reader.read_exact(&mut body).ok()?;
            let mut seen = seen.lock().unwrap();
            if let Some(range) = header("content-range") {
                assert_eq!(range.split('-').next().unwrap(), seen.uploads[upload].len().to_string());
                seen.resumed += 1;
            }
            seen.uploads[upload].extend(body);
            if cut {
                seen.broken += 1;
                return None;
            }
            say("202 Accepted", &location)
        }
        "PUT" if path.contains("/manifests/") => {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let mut seen = seen.lock().unwrap();
            seen.manifest_after = seen.complete.len();
            say("201 Created", "")
        }
        "PUT" => {
            let mut seen = seen.lock().unwrap();
            let digest = Digest::of(&seen.uploads[upload]);
            let named = path.split("digest=").nth(1).unwrap().replace("%3A", ":");
            if named != digest.to_string() {
                return say("400 Bad Request", "");
            }
            seen.complete.push(digest);
            say("201 Created", "")
        }
        _ => say("405 Method Not Allowed", ""),
    }
}
