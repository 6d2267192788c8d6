//! Metrics, readiness and garbage collection by the clock.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use boxlite_testkit::deadline::{self, TEST_TIMEOUT, eventually};
use reqwest::Method;
use serde_json::json;

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
    assert_eq!(figure(&page, "boxlite_gc_evicted_total") + figure(&page, "boxlite_gc_garbage_total"), 1);
    assert_eq!(figure(&page, "boxlite_gc_evicted_total"), 1, "a disk image is a cache");
    assert!(figure(&page, "boxlite_gc_run_seconds_count") >= 2);
    check_form(&page);
    assert_eq!(figure(&page, "boxlite_connections{proven=\"yes\"}"), 1);
    assert!(figure(&page, "boxlite_connections_total") >= 1);
}

#[tokio::test]
async fn a_box_has_series_a_start_has_a_trace_and_the_dashboard_shows_what_there_is() {
    let Some(home) = Home::able() else { return };
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/traces", collector.local_addr().unwrap());
    let layout = home.layout().to_str().unwrap();
    let server = Server::start(&home, &["--allow-path", layout, "--box-metrics", "--otlp-traces", &url]);
    let traced = tokio::task::spawn_blocking(move || {
        collector.set_nonblocking(true).unwrap();
        let (mut stream, _) = eventually("the server's trace", || collector.accept().ok());
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        let (mut request, mut piece) = (String::new(), [0; 4096]);
        while !request.ends_with("}]}]}") {
            let length = stream.read(&mut piece).expect("the rest of the trace");
            assert!(length > 0, "{request}");
            request.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        request
    });
    let options = json!({"image": home.image("mini"), "name": "seen", "memory_mib": 128});
    server.post("/v1/boxes", options).await;
    server.post("/v1/boxes/seen/start", json!({})).await;
    server.post("/v1/boxes/seen/exec?wait=true", json!({"command": "true"})).await;

    let page = metrics_once(&server, |page| {
        ["boxlite_box_memory_bytes{", "boxlite_box_network_sent", "boxlite_reclaimable_bytes "]
            .iter()
            .all(|shown| page.contains(shown))
    })
    .await;
    check_form(&page);
    for stage in ["admission", "image", "overlay", "launch", "guest"] {
        let series = format!("boxlite_start_stage_seconds_count{{stage=\"{stage}\"}}");
        assert!(figure(&page, &series) >= 1, "{series}");
    }
    assert_eq!(figure(&page, "boxlite_start_seconds_count"), 1);
    assert_eq!(figure(&page, "boxlite_exec_begin_seconds_bucket{le=\"+Inf\"}"), 1);
    let dashboard = include_str!("../../../../packaging/grafana-dashboard.json");
    let shown: BTreeSet<&str> = words_of_metrics(dashboard).collect();
    assert!(shown.len() > 20, "{shown:?}");
    let known: BTreeSet<&str> =
        page.lines().filter(|line| !line.starts_with('#')).flat_map(words_of_metrics).collect();
    assert_eq!(shown.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new());
    serde_json::from_str::<serde_json::Value>(dashboard).unwrap();

    let figures = server.get("/v1/boxes/seen/metrics").await;
    let timing = &figures["boot_timing"];
    let total = timing["total_create_ms"].as_u64().unwrap();
    assert!(timing["guest_boot_ms"].as_u64().unwrap() <= total && total > 0, "{figures}");
    assert_eq!(figures["network_tcp_errors"], 0, "{figures}");

    let trace = traced.await.unwrap();
    assert!(trace.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{trace}");
    for span in ["boxlite.start\"", "boxlite.start.image", "boxlite.start.guest", "\"seen\""] {
        assert!(trace.contains(span), "{span}: {trace}");
    }
}

/// The names of metrics in a text.
fn words_of_metrics(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("boxlite_"))
}

/// The form of Prometheus' text: each family begins with its help and its type, has its series together and none twice, a
/// histogram's buckets do not fall and end with the count. `promtool check metrics` says more where it is installed.
fn check_form(page: &str) {
    let (mut families, mut series) = (BTreeSet::new(), BTreeSet::new());
    let (mut family, mut kind, mut bucket) = ("", "", 0.0);
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && families.insert(name), "{line}");
            (family, kind, bucket) = (name, "", 0.0);
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, of) = typed.split_once(' ').expect("a type");
            assert!(name == family && matches!(of, "gauge" | "counter" | "histogram"), "{line}");
            assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
            kind = of;
        } else {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(series.insert(name), "{line} twice");
            let bare = name.split('{').next().unwrap();
            match bare.strip_prefix(family).expect("a series of its family") {
                "" => assert_ne!(kind, "histogram"),
                "_bucket" => {
                    assert!(value >= bucket, "{line}");
                    bucket = value;
                }
                "_sum" => {}
                "_count" => assert!((value - std::mem::take(&mut bucket)).abs() < 0.5, "{line}"),
                _ => panic!("{line} is not of {family}"),
            }
        }
    }
    let mut promtool = Command::new("promtool");
    let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else { return };
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
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
