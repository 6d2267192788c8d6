use std::time::Duration;

use boxlite_storage::store::Document;
use boxlite_types::{BoxOptions, Digest, Image, ImageConfig, ListOptions, Platform};
use jiff::Timestamp;

use super::*;
use crate::runtime::operations::BoxOperations;

/// A home with the box `web`, which nothing runs in.
fn with_a_box(directory: &tempfile::TempDir) -> Local {
    let local = Local::open(RuntimeOptions::new(directory.path().join("home"))).unwrap();
    let now = Timestamp::now();
    let image = Image {
        digest: Digest::of(b"image"),
        references: vec!["docker.io/library/a:1".to_owned()],
        platform: Platform::host(),
        config: ImageConfig { cmd: vec!["sh".to_owned()], ..ImageConfig::default() },
        layers: Vec::new(),
        pulled_at: now,
        last_used_at: now,
    };
    let document = || Document { digest: Digest::of(b"document"), length: 8 };
    local.context.store.insert_image(&image, document(), document()).unwrap();
    let options = BoxOptions {
        image: image.references[0].clone(),
        name: Some("web".to_owned()),
        ..BoxOptions::default()
    };
    litebox::create(&local.context, options, &image).unwrap();
    local
}

/// Mutation tried: with each waiter on a thread of its own, the listing waits for them all.
#[test]
fn many_who_wait_for_one_box_keep_nobody_from_the_others() {
    let mut tokio = tokio::runtime::Builder::new_multi_thread();
    let tokio = tokio.worker_threads(2).max_blocking_threads(2).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    tokio.block_on(async {
        let local = with_a_box(&directory);
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
