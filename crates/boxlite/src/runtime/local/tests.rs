use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use boxlite_types::{
    BoxOptions, Digest, ErrorKind, GcOptions, ListOptions, Phase, Platform, RestartPolicy, UpdateOptions,
};

use super::*;
use crate::runtime::operations::{BoxLifecycle, BoxOperations, HostOperations};

/// An OCI layout of one image with an empty layer, at `root`.
fn make_layout(root: &Path) {
    let blobs = root.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let tar = [0; 1024];
    let layer = put("application/vnd.oci.image.layer.v1.tar", &tar);
    let config = serde_json::json!({
        "architecture": Platform::host().architecture, "os": "linux", "config": { "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&tar)] },
    });
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer],
    });
    let manifest = put(media_type, manifest.to_string().as_bytes());
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(root.join("index.json"), index.to_string()).unwrap();
    std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// A home with the stopped box `web`.
async fn with_a_box(directory: &tempfile::TempDir) -> Local {
    let mut options = RuntimeOptions::new(directory.path().join("home"));
    // A test of a few kilobytes must not depend on how full the machine's disk is.
    options.settings.hard_floor = Some(boxlite_home::settings::Bytes(0));
    options.settings.emergency_floor = Some(boxlite_home::settings::Bytes(0));
    let local = Local::open(options).unwrap();
    let layout = directory.path().join("layout");
    make_layout(&layout);
    let options = BoxOptions {
        image: format!("oci:{}", layout.display()),
        name: Some("web".to_owned()),
        ..BoxOptions::default()
    };
    local.create(options, Arc::new(())).await.unwrap();
    local
}

/// Before: the one whose blocking part was under way when it was given up left its box.
#[test]
fn a_create_that_is_given_up_at_any_moment_leaves_no_box() {
    // One blocking thread, so that what was begun has ended when the next work runs.
    let mut tokio = tokio::runtime::Builder::new_current_thread();
    let tokio = tokio.max_blocking_threads(1).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    tokio.block_on(async {
        let local = with_a_box(&directory).await;
        let image = local.inspect("web").await.unwrap().options.image;
        for patience in 1.. {
            let options =
                BoxOptions { image: image.clone(), name: Some("given-up".into()), ..BoxOptions::default() };
            let mut creating = Box::pin(local.create(options, Arc::new(())));
            let mut polls = 0;
            let created = std::future::poll_fn(|context| {
                polls += 1;
                match creating.as_mut().poll(context) {
                    Poll::Ready(created) => Poll::Ready(Some(created)),
                    Poll::Pending if polls == patience => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            });
            if let Some(created) = created.await {
                assert!(patience > 1, "no create was given up");
                created.unwrap();
                return;
            }
            drop(creating);
            let names: Vec<String> = local
                .list(ListOptions { all: true, filters: Vec::new() })
                .await
                .unwrap()
                .into_iter()
                .map(|info| info.name)
                .collect();
            assert_eq!(names, ["web"], "after {patience} polls");
        }
    });
}

/// Before: whoever opened the home removed it, and a listing.
#[test]
fn who_only_looks_removes_no_box_whose_time_has_passed() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    tokio.block_on(async {
        let local = with_a_box(&directory).await;
        let mut guard = local.acquire("web").await.unwrap();
        guard.record.options.ttl = Some(60);
        let at = Some(jiff::Timestamp::UNIX_EPOCH);
        let outcome = boxlite_types::RunOutcome { at, exit_code: Some(0), reason: None };
        guard.enter(&local.context, Phase::Ended { started_at: at, outcome }).unwrap();
        let busy = litebox::remove_expired(&local.context, &guard.record).unwrap();
        assert!(busy.is_some(), "whoever changes the box is soon done");
        drop(guard);
        let local = local.reopened().await.unwrap();
        let collect = |dry_run| GcOptions { dry_run, ..GcOptions::default() };
        local.collect_garbage(collect(true)).await.unwrap();
        let all = || ListOptions { all: true, filters: Vec::new() };
        assert_eq!(local.list(all()).await.unwrap().len(), 1);
        local.expire(Some(&local.find("web").await.unwrap().id)).await.unwrap();
        assert_eq!(local.list(all()).await.unwrap().len(), 1, "the box that is to be started is spared");
        local.collect_garbage(collect(false)).await.unwrap();
        assert_eq!(local.list(all()).await.unwrap().len(), 0);
    });
}

/// Before: the options of now told, so a time to live given meanwhile counted as a keeper.
#[test]
fn a_run_without_a_keeper_is_given_no_restart_policy() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    tokio.block_on(async {
        let local = with_a_box(&directory).await;
        let mut guard = local.acquire("web").await.unwrap();
        let _shim = guard.shim_lock().unwrap();
        let started = Phase::Started { at: jiff::Timestamp::now(), run: "r".into(), ports: Vec::new() };
        guard.enter(&local.context, started.clone()).unwrap();
        drop(guard);
        let ttl = UpdateOptions { ttl: Some(Some(60)), ..UpdateOptions::default() };
        local.update("web", ttl).await.unwrap();
        let always = || UpdateOptions { restart: Some(RestartPolicy::Always), ..UpdateOptions::default() };
        let refused = local.update("web", always()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        let mut guard = local.acquire("web").await.unwrap();
        guard.record.restarts.kept = true;
        guard.enter(&local.context, started).unwrap();
        drop(guard);
        local.update("web", always()).await.unwrap();
    });
}

/// Mutation tried: with each waiter on a thread of its own, the listing waits for them all.
#[test]
fn many_who_wait_for_one_box_keep_nobody_from_the_others() {
    let mut tokio = tokio::runtime::Builder::new_multi_thread();
    let tokio = tokio.worker_threads(2).max_blocking_threads(2).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    tokio.block_on(async {
        let local = with_a_box(&directory).await;
        let held = local.acquire("web").await.unwrap();
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                let local = local.clone();
                tokio::spawn(async move { local.acquire("web").await.map(drop) })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let listing = local.list(ListOptions { all: true, filters: Vec::new() });
        let listed = tokio::time::timeout(Duration::from_secs(20), listing).await;
        assert_eq!(listed.expect("room for a listing").unwrap().len(), 1);
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        drop(held);
        for waiting in waiting {
            waiting.await.unwrap().unwrap();
        }
    });
}
