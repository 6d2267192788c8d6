//! Metrics, readiness and garbage collection by the clock.

use std::fs::File;
use std::time::{Duration, SystemTime};

use boxlite_testkit::deadline::{self, TEST_TIMEOUT, eventually};
use reqwest::Method;

use crate::home::Home;
use crate::serving::Server;

/// A disk image that no box needs and nobody touched for an hour.
fn orphan(home: &Home) -> std::path::PathBuf {
    home.run(&["info"]);
    let path = home.path().join("images/disk-images").join(format!("{}.ext4", "ab".repeat(32)));
    std::fs::write(&path, vec![1; 1 << 20]).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    path
}

async fn metrics(server: &Server) -> String {
    server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap()
}

/// The page once `shown` says that it shows what has just happened.
async fn metrics_once(server: &Server, shown: impl Fn(&str) -> bool) -> String {
    deadline::within_async(TEST_TIMEOUT, "the metrics to show it", async || {
        let page = metrics(server).await;
        shown(&page).then_some(page)
    })
    .await
}

fn figure(page: &str, name: &str) -> u64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing: {page}")).parse().unwrap()
}

#[tokio::test]
async fn the_clock_collects_and_metrics_tell() {
    let home = Home::bare();
    let path = orphan(&home);
    let idle = Server::start(&home, &["--gc-interval", "off"]);
    // A plan that takes long is not waited for.
    let page = metrics_once(&idle, |page| page.contains("boxlite_reclaimable_bytes ")).await;
    assert_eq!(figure(&page, "boxlite_disk_images{state=\"orphan\"}"), 1);
    assert!(figure(&page, "boxlite_reclaimable_bytes") >= 1 << 20, "{page}");
    assert!(figure(&page, "boxlite_filesystem_free_bytes") > 0);
    assert_eq!(figure(&page, "boxlite_gc_runs_total"), 0, "a dry run is no run");
    assert!(path.exists());

    // Beside the idle one, on the same home.
    let daily = Server::start(&home, &["--gc-interval", "24h"]);
    eventually("gc as the server begins", || (!path.exists()).then_some(()));
    let server = Server::start(&home, &["--gc-interval", "1s"]);
    metrics_once(&server, |page| figure(page, "boxlite_gc_runs_total") >= 1).await;
    let path = orphan(&home);
    eventually("gc by the clock", || (!path.exists()).then_some(()));
    assert_eq!(figure(&metrics(&daily).await, "boxlite_gc_runs_total"), 1);
    let page = metrics_once(&server, |page| figure(page, "boxlite_gc_removed_total") >= 1).await;
    assert!(figure(&page, "boxlite_gc_removed_bytes_total") >= 1 << 20, "{page}");
    assert!(figure(&page, "boxlite_gc_runs_total") >= 2);
    assert_eq!(figure(&page, "boxlite_gc_failed_runs_total"), 0);
    assert_eq!(figure(&page, "boxlite_connections{proven=\"yes\"}"), 1);
    assert!(figure(&page, "boxlite_connections_total") >= 1);
}

/// Mutation tried: without the comparison with `Reject`, the server is ready although every start is refused.
#[tokio::test]
async fn a_server_is_ready_exactly_when_starts_are_let_in() {
    let Some(home) = Home::able() else { return };
    home.run(&["create", "--name", "kept", &home.image("mini"), "true"]).ok();
    let full = Server::start_with(
        &home,
        &[],
        &[("BOXLITE_HARD_FLOOR", "1024TiB"), ("BOXLITE_SOFT_FLOOR", "1024TiB")],
    );
    let (status, body) = full.ask(Method::GET, "/readyz", None).await;
    assert_eq!((status.as_u16(), body["status"].as_str()), (503, Some("not_ready")));
    assert!(body["reason"].as_str().unwrap().contains("too little disk space"), "{body}");
    assert_eq!(full.ask(Method::GET, "/healthz", None).await.0.as_u16(), 200);
    let (status, body) = full.ask(Method::POST, "/v1/boxes/kept/start", None).await;
    assert_eq!((status.as_u16(), body["error"]["code"].as_str()), (507, Some("resource_exhausted")));
    assert_eq!(body["error"]["detail"]["shortage"]["need"], 1_u64 << 50, "{body}");
    assert_eq!(figure(&metrics(&full).await, "boxlite_starts_refused_total"), 1);
    assert_eq!(figure(&metrics(&full).await, "boxlite_start_verdict{verdict=\"reject\"}"), 1);

    let roomy = Server::start(&home, &[]);
    assert_eq!(roomy.ask(Method::GET, "/readyz", None).await.0.as_u16(), 200);
    assert_eq!(figure(&metrics(&roomy).await, "boxlite_memory_promised_bytes"), 0);

    let small = Server::start_with(&home, &[], &[("BOXLITE_MEMORY_SHARE", "1")]);
    let limit = figure(&metrics(&small).await, "boxlite_memory_limit_bytes");
    // A hundredth of a large host is enough for a box of the usual size.
    if limit < 520 << 20 {
        let (status, body) = small.ask(Method::GET, "/readyz", None).await;
        assert_eq!(status.as_u16(), 503);
        assert!(body["reason"].as_str().unwrap().contains("too little memory for a start"), "{body}");
        let (status, body) = small.ask(Method::POST, "/v1/boxes/kept/start", None).await;
        assert_eq!((status.as_u16(), body["error"]["code"].as_str()), (507, Some("resource_exhausted")));
        assert_eq!(body["error"]["detail"]["cause"], "memory", "{body}");
        assert_eq!(body["error"]["detail"]["shortage"]["have"], limit, "{body}");
    }
}
