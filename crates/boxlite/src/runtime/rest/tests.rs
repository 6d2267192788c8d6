//! The client against recorded answers; the real server is on the other end in `boxlite-cli`'s `tests/remote`.

mod executions;
mod peer;

use std::sync::Mutex;

use boxlite_types::wire::{ErrorBody, ErrorEnvelope, Event};
use boxlite_types::{CopyOptions, ErrorKind, Progress, PullOptions, Shortage};
use futures::TryStreamExt;
use peer::{Peer, answer, json};

use super::*;
use crate::runtime::Runtime;
use crate::runtime::operations::{BoxFiles, ImageOperations};

fn remote(url: &str) -> Remote {
    Remote::new(&RemoteOptions { url: url.into(), api_key: None }).unwrap()
}

fn lines(lines: &[&str]) -> Vec<u8> {
    answer("200 OK", "application/x-ndjson", lines.concat().as_bytes())
}

#[tokio::test]
async fn what_the_server_met_is_met_here() {
    let shortage = Shortage { need: 9, have: 5, inodes: false, reclaimable: Some(7) };
    let error = Error::exhausted("the disk is full", shortage.clone()).at("/srv/home");
    let body =
        ErrorEnvelope { error: ErrorBody::new(&error, "ResourceExhaustedError", "resource_exhausted") };
    let peer = Peer::answering(json("507 Insufficient Storage", &body)).await;
    let met = remote(&peer.url).start("web", Arc::new(())).await.unwrap_err();
    assert_eq!((met.kind(), met.shortage()), (ErrorKind::ResourceExhausted, Some(&shortage)));
    assert_eq!((met.path(), met.to_string()), (error.path(), error.to_string()));
    assert_eq!(met.server(), None, "the server did what it could");
}

/// Mutation tried: with the redirect followed, the request goes to the other address.
#[tokio::test]
async fn a_server_that_can_not_be_used_is_named() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let met = |url: String| async move { remote(&url).info().await.unwrap_err() };
    let cases = [
        (None, ErrorKind::Unavailable, "cannot be reached"),
        (
            Some(answer("404 Not Found", "text/html", b"<h1>nginx")),
            ErrorKind::Unsupported,
            "no boxlite server",
        ),
        (
            Some(
                b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec(),
            ),
            ErrorKind::Unsupported,
            "302",
        ),
        (Some(answer("200 OK", "text/html", b"<h1>hello")), ErrorKind::Unavailable, "not understand"),
        (Some(answer("502 Bad Gateway", "text/html", b"<h1>down")), ErrorKind::Unavailable, "502"),
        (
            Some(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"vers".to_vec()),
            ErrorKind::Unavailable,
            "broke off",
        ),
        (Some(answer("401 Unauthorized", "text/plain", b"")), ErrorKind::Denied, "asks for an API key"),
    ];
    for (answer, kind, part) in cases {
        let url = match answer {
            Some(answer) => Peer::answering(answer).await.url,
            None => url.clone(),
        };
        let error = met(url.clone()).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part) && error.to_string().contains(&url), "{error}");
        assert_eq!(error.server(), Some(url.as_str()));
    }
}

#[tokio::test]
async fn the_key_is_sent_and_shown_nowhere() {
    let mut peer = Peer::answering(answer("401 Unauthorized", "text/plain", b"")).await;
    let options = RemoteOptions { url: peer.url.clone(), api_key: Some("s3cret".into()) };
    let error = Remote::new(&options).unwrap().info().await.unwrap_err();
    assert!(error.to_string().contains("does not accept"), "{error}");
    assert!(peer.asked().await.to_lowercase().contains("authorization: bearer s3cret"));
    assert!(!format!("{options:?} {:?}", Remote::new(&options)).contains("s3cret"));
    for (url, key) in [("ftp://x", None), ("x:80", None), ("http://u:p@x", None), ("http://x", Some("a\nb"))]
    {
        let options = RemoteOptions { url: url.into(), api_key: key.map(Into::into) };
        assert_eq!(Remote::new(&options).unwrap_err().kind(), ErrorKind::InvalidInput, "{url}");
    }
}

/// Mutation tried: with the id split at its slashes, the first request leaves `boxes`.
#[tokio::test]
async fn a_name_stays_within_its_segment_of_the_path() {
    let body = ErrorEnvelope { error: ErrorBody::new(&Error::not_found("no"), "NotFoundError", "not_found") };
    let mut peer = Peer::answering(json("404 Not Found", &body)).await;
    let remote = remote(&format!("{}/behind/", peer.url));
    assert_eq!(remote.inspect("../info?x#y").await.unwrap_err().kind(), ErrorKind::NotFound);
    let asked = peer.asked().await;
    assert!(asked.starts_with("GET /behind/v1/runtime/boxes/..%2Finfo%3Fx%23y HTTP/1.1"), "{asked}");
    for id in ["", ".", ".."] {
        assert_eq!(remote.inspect(id).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            remote.copy_out(id, "/", CopyOptions::default()).await.err().unwrap().kind(),
            ErrorKind::NotFound
        );
    }
}

#[tokio::test]
async fn a_path_that_only_means_something_here_is_refused() {
    let remote = remote("http://127.0.0.1:1");
    let pull = |reference: &'static str| remote.pull(reference, PullOptions::default(), Arc::new(()));
    let error = pull("oci:layout:tag").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("on the server http://127.0.0.1:1"), "{error}");
    assert_eq!(pull("docker-archive:./x.tar").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let options =
        BoxOptions { image: "alpine".into(), volumes: vec!["./x:/x".into()], ..BoxOptions::default() };
    assert_eq!(remote.create(options, Arc::new(())).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    // Absolute ones are the server's to judge.
    assert_eq!(pull("oci:/layout:tag").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn progress_is_passed_on_until_the_outcome() {
    let done = serde_json::to_string(&Event::Done(ExitStatus { code: 3, reason: None })).unwrap() + "\n";
    let step = r#"{"progress":{"notice":{"message":"still there"}}}"#.to_owned() + "\n";
    let peer = Peer::answering(lines(&["\"beat\"\n", &step, "\"beat\"\n", &done])).await;
    let seen = Mutex::new(Vec::new());
    let sink = |progress: Progress| seen.lock().unwrap().push(progress);
    let client = HttpClient::new(&RemoteOptions { url: peer.url.clone(), api_key: None }).unwrap();
    let status: ExitStatus = client.outcome(client.get(&["x"]), &sink).await.unwrap();
    assert_eq!(status.code, 3);
    assert_eq!(*seen.lock().unwrap(), [Progress::Notice { message: "still there".into() }]);
}

/// Mutation tried: with the end of the answer taken for the end of the log, a killed server looks like a quiet box.
#[tokio::test]
async fn an_answer_without_its_end_is_no_outcome() {
    let peer = Peer::answering(lines(&["\"beat\"\n"])).await;
    let error = remote(&peer.url).wait("web").await.unwrap_err();
    assert_eq!((error.kind(), error.server()), (ErrorKind::Unavailable, Some(peer.url.as_str())));
    let line = r#"{"line":{"at":"2026-01-01T00:00:00Z","stream":"stderr","data":"aGk="}}"#.to_owned() + "\n";
    let peer = Peer::answering(lines(&[&line, "\"end\"\n"])).await;
    let log: Vec<LogLine> =
        remote(&peer.url).logs("web", LogOptions::default()).await.unwrap().try_collect().await.unwrap();
    assert_eq!((log.len(), &log[0].bytes[..]), (1, &b"hi"[..]));
    let peer = Peer::answering(lines(&[&line])).await;
    let mut log = remote(&peer.url).logs("web", LogOptions::default()).await.unwrap();
    assert!(log.next().await.unwrap().is_ok());
    assert_eq!(log.next().await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(log.next().await.is_none());
}

#[tokio::test]
async fn garbage_is_collected_where_it_is() {
    let error = Runtime::remote(&RemoteOptions { url: "http://127.0.0.1:1".into(), api_key: None })
        .unwrap()
        .collect_garbage(boxlite_types::GcOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("on that host"), "{error}");
}

/// A source that fails after some bytes.
struct Failing(bool);

impl tokio::io::AsyncRead for Failing {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if std::mem::replace(&mut self.0, true) {
            return std::task::Poll::Ready(Err(std::io::ErrorKind::PermissionDenied.into()));
        }
        buffer.put_slice(b"some of it");
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn an_archive_that_can_not_be_read_is_the_readers_trouble() {
    let peer = Peer::answering(answer("204 No Content", "text/plain", b"")).await;
    let error = remote(&peer.url)
        .copy_in("web", "/a b", CopyOptions::default(), Box::new(Failing(false)))
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.server()), (ErrorKind::Denied, None), "{error}");
}

#[tokio::test]
async fn an_archive_that_breaks_off_is_not_a_short_one() {
    let begun = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntar\r\n".to_vec();
    let mut peer = Peer::answering(begun).await;
    let mut archive = remote(&peer.url).copy_out("web", "/a b", CopyOptions::default()).await.unwrap();
    assert!(peer.asked().await.starts_with("GET /v1/boxes/web/files?path=%2Fa+b HTTP/1.1"));
    let mut read = Vec::new();
    let error = tokio::io::AsyncReadExt::read_to_end(&mut archive, &mut read).await.unwrap_err();
    assert_eq!(read, b"tar");
    let error = error.downcast::<Error>().unwrap();
    assert_eq!(error.server(), Some(peer.url.as_str()));
}

/// The server answers as one from before there were lists: it keeps the options that it knows. Mutation tried: the box
/// is not removed.
#[tokio::test]
async fn a_box_that_lacks_an_option_does_not_stay() {
    let id = "0123456789abcdef0123456789abcdef";
    let kept = serde_json::json!({
        "id": id, "name": "web", "image": "alpine", "image_digest": "", "disk_digest": "", "state": "created",
        "reason": null, "exit_code": null, "created_at": "2026-11-27T00:00:00Z", "started_at": null,
        "finished_at": null, "disk_allocated": null, "ports": [], "options": {"image": "alpine", "memory": 1 << 30},
    });
    let done = serde_json::json!({ "done": kept }).to_string() + "\n";
    let mut peer = Peer::answering(lines(&[&done])).await;
    let known = BoxOptions { image: "alpine".into(), memory: 1 << 30, ..BoxOptions::default() };
    let created = remote(&peer.url).create(known.clone(), Arc::new(())).await.unwrap();
    assert_eq!(created.id, id);
    assert!(peer.asked().await.starts_with("POST /v1/runtime/boxes "));
    let options = BoxOptions { allow_net: vec!["example.org:443".into()], ..known };
    let refusal = remote(&peer.url).create(options, Arc::new(())).await.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Unsupported, "{refusal}");
    assert!(peer.asked().await.starts_with("POST "));
    assert!(peer.asked().await.starts_with(&format!("DELETE /v1/runtime/boxes/{id}")));
}
