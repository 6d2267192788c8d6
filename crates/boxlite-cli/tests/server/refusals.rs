//! Requests that are refused before anything happens.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use boxlite_testkit::program::hinted;
use reqwest::Method;
use serde_json::json;

use crate::home::Home;
use crate::serving::{Server, answer};

pub(crate) fn key(home: &Home, text: &str, mode: u32) -> PathBuf {
    let path = home.path().join("key");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn without_a_key_only_loopback_is_served() {
    let home = Home::bare();
    for host in ["0.0.0.0", "::", "192.0.2.1"] {
        hinted(&home.run(&["serve", "--host", host, "--port", "0"]).refused("without an API key"));
    }
    let readable = key(&home, "secret", 0o644);
    home.run(&["serve", "--api-key-file", readable.to_str().unwrap()]).refused("mode 644");
    let empty = key(&home, "\n", 0o600);
    home.run(&["serve", "--api-key-file", empty.to_str().unwrap()]).refused("no API key");
    home.run(&["serve", "--gc-interval", "0"]).refused("interval");
    home.run(&["serve", "--allow-path", "/no/such"]).refused("/no/such");
    home.run(&["serve", "--url", "http://localhost:1"]).refused("--url");
}

#[tokio::test]
async fn the_key_opens_everything_and_nothing_else_does() {
    let home = Home::bare();
    let path = key(&home, "secret-key\n", 0o600);
    let server = Server::start(&home, &["--host", "0.0.0.0", "--api-key-file", path.to_str().unwrap()]);
    let url = server.url.replace("0.0.0.0", "127.0.0.1");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for route in ["/v1/boxes", "/v1/me", "/metrics", "/v1/runtime/info", "/openapi.yaml", "/nowhere"] {
        for token in [None, Some(""), Some("secret-ke"), Some("secret-keys"), Some("SECRET-KEY")] {
            let mut request = http.get(format!("{url}{route}"));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let (status, body) = answer(request).await;
            assert_eq!(
                (status.as_u16(), body["error"]["code"].as_str()),
                (401, Some("unauthenticated")),
                "{route}"
            );
        }
        let status =
            http.get(format!("{url}{route}")).bearer_auth("secret-key").send().await.unwrap().status();
        assert_eq!(status.as_u16(), if route == "/nowhere" { 404 } else { 200 }, "{route}");
    }
    for route in ["/healthz", "/v1/config"] {
        assert!(http.get(format!("{url}{route}")).send().await.unwrap().status().is_success(), "{route}");
    }
}

/// Mutation tried: without the check of `Host`, a page whose name was made to lead here reads every box.
#[tokio::test]
async fn a_browser_cannot_drive_a_server_without_a_key() {
    let home = Home::bare();
    let server = Server::start(&home, &[]);
    for (name, value) in [("origin", "https://evil.example"), ("origin", "null"), ("host", "evil.example")] {
        let (status, body) = answer(server.request(Method::GET, "/v1/boxes").header(name, value)).await;
        assert_eq!(
            (status.as_u16(), body["error"]["code"].as_str()),
            (403, Some("permission_denied")),
            "{value}"
        );
    }
    server.get("/v1/boxes").await;
}

#[tokio::test]
async fn no_request_names_a_path_that_was_not_allowed() {
    let home = Home::bare();
    let (allowed, outside) = (home.path().join("allowed"), tempfile::tempdir().unwrap());
    std::fs::create_dir(&allowed).unwrap();
    std::os::unix::fs::symlink(outside.path(), allowed.join("link")).unwrap();
    let server = Server::start(&home, &["--allow-path", allowed.to_str().unwrap()]);
    let through = allowed.join("link");
    for path in [outside.path(), through.as_path(), "/etc".as_ref(), "relative".as_ref(), "/no/such".as_ref()]
    {
        let path = path.display();
        let images =
            [format!("oci:{path}:x"), format!("oci-archive:{path}"), format!("docker-archive:{path}")];
        for image in images {
            for (route, body) in [
                ("/v1/boxes", json!({"image": image})),
                ("/v1/images/pull", json!({"reference": image})),
                ("/v1/runtime/boxes", json!({"image": image})),
                ("/v1/runtime/images", json!({"reference": image})),
            ] {
                let (status, body) = server.ask(Method::POST, route, Some(body)).await;
                assert_eq!(status.as_u16(), 403, "{route} {image}: {body}");
            }
        }
        let body = json!({"image": "x", "volumes": [format!("./{path}:/x"), format!("{path}:/x")]});
        assert_eq!(server.ask(Method::POST, "/v1/runtime/boxes", Some(body)).await.0.as_u16(), 403, "{path}");
    }
    // An allowed path gets as far as being examined.
    let missing = json!({"reference": format!("oci:{}/none:x", allowed.display())});
    assert_eq!(server.ask(Method::POST, "/v1/images/pull", Some(missing)).await.0.as_u16(), 404);
}

#[tokio::test]
async fn malformed_and_oversized_requests_get_an_envelope() {
    let home = Home::bare();
    let server = Server::start(&home, &[]);
    let long = vec![b' '; (1 << 20) + 1];
    for (body, kind, status) in [
        (b"{".to_vec(), "application/json", 400),
        (b"{\"security\": \"none\"}".to_vec(), "application/json", 400),
        (b"{\"volumes\": [{}]}".to_vec(), "application/json", 400),
        (b"a=b".to_vec(), "application/x-www-form-urlencoded", 415),
        (long, "application/json", 413),
    ] {
        let request = server.request(Method::POST, "/v1/boxes").header("content-type", kind).body(body);
        let response = request.header("x-request-id", "mine-1").send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers()["x-request-id"], "mine-1");
        let body: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(body["error"]["request_id"], "mine-1", "{body}");
    }
    for (method, path, status) in [
        (Method::GET, "/v1/nothing", 404),
        (Method::PATCH, "/v1/boxes", 405),
        (Method::GET, "/v1/boxes?pageSize=0", 400),
        (Method::GET, "/v1/boxes/%ff", 400),
        (Method::POST, "/v1/boxes/x/export", 404),
        (Method::POST, "/v1/boxes/import", 400),
    ] {
        let (found, body) = server.ask(method, path, None).await;
        assert_eq!(found.as_u16(), status, "{path}: {body}");
        assert!(body["error"]["message"].is_string(), "{path}: {body}");
    }
    // A head that never ends is not waited for, nor held up by: others are answered meanwhile.
    let mut stalled = std::net::TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    stalled.write_all(b"GET /v1/boxes HTTP/1.1\r\nHost: local").unwrap();
    server.get("/v1/default/boxes").await;
}
