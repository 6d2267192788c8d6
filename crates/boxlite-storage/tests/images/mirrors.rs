//! Mirrors of a registry: real registries, one of them a cache that fetches from the other, and what networks do to them.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use boxlite_home::Home;
use boxlite_storage::image::{Images, RegistryPolicy};
use boxlite_storage::reference::Reference;
use boxlite_testkit::oracle;
use boxlite_testkit::registry::Registry;
use boxlite_types::{ErrorKind, PullOptions};
use tracing::subscriber::DefaultGuard;

use crate::fixture::*;
use crate::proxy::{Fate, Proxy, Request};
use crate::registry::{largest, served};

/// The images of a new home whose settings name these mirrors of `registry`.
fn mirrored(scratch: &Scratch, registry: &str, mirrors: &[&str]) -> Images {
    let home = Home::open(&scratch.path(&format!("home-{}", rand_name()))).unwrap();
    let text = format!("[registry_mirrors]\n\"{registry}\" = {mirrors:?}\n");
    std::fs::write(home.config(), text).unwrap();
    open_images(&home).unwrap()
}

fn rand_name() -> String {
    tempfile::tempdir().unwrap().path().file_name().unwrap().to_str().unwrap().replace('.', "")
}

async fn pull(images: &Images, reference: &str) -> Result<boxlite_types::Image, boxlite_types::Error> {
    let reference: Reference = reference.parse()?;
    images.pull(&reference, &PullOptions::default(), Arc::new(())).await
}

/// The warnings of this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn gather() -> (Self, DefaultGuard) {
        let warnings = Self::default();
        let guard = tracing::subscriber::set_default(warnings.clone());
        (warnings, guard)
    }

    /// How many name `host`.
    fn about(&self, host: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|text| text.contains(host)).count()
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN && metadata.target().starts_with("boxlite")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                write!(self.0, "{}={value:?} ", field.name()).unwrap();
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn mirrors_are_asked_in_turn_and_the_image_keeps_its_registrys_name() {
    let scratch = Scratch::new();
    let origin = served(&scratch, &[]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (empty, locked, cache) =
        (Registry::start(&[]), Registry::start(&["--auth"]), Registry::caching(&origin));
    let mirrors = [&*closed, &empty.address, &locked.address, &cache.address];
    let reference = format!("{}/app:1", origin.address);

    let (warnings, guard) = Warnings::gather();
    let image = pull(&mirrored(&scratch, &origin.address, &mirrors), &reference).await.unwrap();
    assert_eq!(image.references, std::slice::from_ref(&reference));
    for passed_over in &mirrors[..3] {
        assert_eq!(warnings.about(&format!("mirror {passed_over} ")), 1, "{:?}", warnings.all());
    }
    assert_eq!(warnings.all().len(), 3, "{:?}", warnings.all());
    drop(guard);
    let fetched = || origin.gets(&largest(&image));
    assert!(fetched() > 0, "the cache has fetched it");
    // It stores what it passes on a little later.
    let mut served_alone = false;
    for _ in 0..10 {
        let before = fetched();
        let again = pull(&mirrored(&scratch, &origin.address, &mirrors[3..]), &reference).await.unwrap();
        assert_eq!(again.digest, image.digest);
        served_alone |= fetched() == before;
    }
    assert!(served_alone, "a later host is served by the cache alone");

    // The registry need not be reachable at all, and a mirror's repositories may have a prefix.
    let hub = Registry::start(&[]);
    hub.push(&scratch.path("layout"), "v1", "hub/of/app:1");
    let prefixed = format!("{}/hub/of", hub.address);
    let images = mirrored(&scratch, "registry.invalid", &[&prefixed]);
    let image = pull(&images, "registry.invalid/app:1").await.unwrap();
    assert_eq!(image.references, ["registry.invalid/app:1"]);
    let missing = pull(&images, "registry.invalid/other:1").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Unavailable, "{missing}");
    assert!(missing.to_string().contains("registry.invalid"), "the last one asked is named: {missing}");
}

type Ruse = fn(&Request) -> Fate;

#[tokio::test]
async fn a_mirror_that_lies_is_passed_over_for_the_registry() {
    let scratch = Scratch::new();
    let origin = served(&scratch, &[]);
    let digest = scratch.pull(&format!("{}/app:1", origin.address)).await.unwrap().digest;
    let ruses: [(&str, Ruse); 7] = [
        ("another manifest", |request| if request.is_blob() { Fate::Pass } else { Fate::Flip(60) }),
        ("no document", |_| Fate::Answer("200 OK", String::new(), b"<html>".to_vec())),
        ("other blobs", |request| if request.is_blob() { Fate::Flip(60) } else { Fate::Pass }),
        ("endless blobs", |request| if request.is_blob() { Fate::Endless } else { Fate::Pass }),
        ("a wrong beginning", |request| match (request.is_blob(), request.earlier) {
            (false, _) => Fate::Pass,
            (true, 0) => Fate::Cut(1_200_000),
            (true, _) => Fate::Answer("404 Not Found", String::new(), Vec::new()),
        }),
        ("no blobs", |request| {
            if request.is_blob() {
                Fate::Answer("403 Forbidden", String::new(), Vec::new())
            } else {
                Fate::Pass
            }
        }),
        ("nothing", |_| Fate::Answer("500 Internal Server Error", String::new(), Vec::new())),
    ];
    for (what, ruse) in ruses {
        let mirror = Proxy::before(&origin.address, ruse);
        let images = mirrored(&scratch, &origin.address, &[&mirror.address]);
        let (warnings, _guard) = Warnings::gather();
        let image = pull(&images, &format!("{}/app@{digest}", origin.address)).await;
        let image = image.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(image.digest, digest, "{what}");
        assert_eq!(warnings.about(&mirror.address), 1, "{what}: {:?}", warnings.all());
        let layers = image.layers.iter().map(|layer| layer.digest.to_string());
        for layer in layers {
            let hex = layer.strip_prefix("sha256:").unwrap().to_owned();
            let home = images_home(&scratch, &hex);
            assert_eq!(run("sha256sum", &[&home]).split(' ').next(), Some(&*hex), "{what}");
        }
    }
}

/// The newest file of a blob below the scratch directory.
fn images_home(scratch: &Scratch, hex: &str) -> String {
    let root = scratch.directory.path().to_str().unwrap().to_owned();
    let found =
        run("find", &[&root, "-path", &format!("*/home-*/images/blobs/sha256/{hex}"), "-printf", "%T@ %p\n"]);
    let newest = found.lines().max_by(|a, b| a.partial_cmp(b).unwrap()).unwrap();
    newest.split_once(' ').unwrap().1.to_owned()
}

#[tokio::test]
async fn a_mirror_has_credentials_of_its_own_and_none_of_the_registrys() {
    let scratch = Scratch::new();
    let origin = served(&scratch, &["--auth"]);
    let locked = Registry::start(&["--auth"]);
    locked.push(&scratch.path("layout"), "v1", "app:1");
    let (stranger, friend) =
        (Proxy::before(&locked.address, |_| Fate::Pass), Proxy::before(&locked.address, |_| Fate::Pass));
    let config = scratch.path("auth.json");
    let entry = r#"{"auth": "dGVzdGVyOnNlY3JldA=="}"#;
    let entries = format!(r#"{{"auths": {{"{}": {entry}, "{}": {entry}}}}}"#, origin.address, friend.address);
    std::fs::write(&config, entries).unwrap();
    let images = mirrored(&scratch, &origin.address, &[&stranger.address, &friend.address]);
    let images = images.with_registry_config(Some(config));
    pull(&images, &format!("{}/app:1", origin.address)).await.unwrap();
    assert!(stranger.requests().iter().all(|request| request.authorization.is_none()));
    assert!(friend.requests().iter().any(|request| request.authorization.is_some()));
    assert_eq!(origin.gets("/blobs/"), 0);
}

/// The silence costs the time that a mirror has, 15 s.
#[tokio::test]
async fn a_mirror_that_says_nothing_is_passed_over_in_time() {
    let scratch = Scratch::new();
    let origin = served(&scratch, &[]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let images = mirrored(&scratch, &origin.address, &[&address]);
    let (warnings, _guard) = Warnings::gather();
    let began = std::time::Instant::now();
    pull(&images, &format!("{}/app:1", origin.address)).await.unwrap();
    assert!(began.elapsed().as_secs() < 40, "{:?}", began.elapsed());
    assert_eq!(warnings.about(&address), 1, "{:?}", warnings.all());
}

#[tokio::test]
async fn a_mirror_is_the_operators_choice_and_a_client_cannot_make_it_insecure() {
    let scratch = Scratch::new();
    let origin = served(&scratch, &[]);
    let cache = Proxy::before(&origin.address, |_| Fate::Pass);
    let images = mirrored(&scratch, "registry.invalid", &[&cache.address])
        .with_registry_policy(RegistryPolicy::PublicAnd(Vec::new()));
    pull(&images, "registry.invalid/app:1").await.unwrap();
    let error = pull(&images, &format!("{}/app:1", cache.address)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "the same place, named by a client: {error}");
    let reference: Reference = "registry.invalid/app:1".parse().unwrap();
    let insecure =
        PullOptions { insecure: true, policy: boxlite_types::PullPolicy::Always, ..Default::default() };
    let error = images.pull(&reference, &insecure, Arc::new(())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");

    let addresses = run("hostname", &["-I"]);
    let Some(address) = addresses.split_whitespace().find(|address| !address.contains(':')) else {
        oracle::skip_even_in_ci("this host has no address besides loopback");
        return;
    };
    let plain = Proxy::on(address, &origin.address, |_| Fate::Pass);
    let strict = mirrored(&scratch, &origin.address, &[&plain.address]);
    let reference: Reference = format!("{}/app:1", origin.address).parse().unwrap();
    strict.pull(&reference, &insecure, Arc::new(())).await.unwrap();
    let served = |proxy: &Proxy| proxy.requests().iter().filter(|request| request.is_blob()).count();
    assert_eq!(served(&plain), 0, "a mirror without TLS was used because the registry may be insecure");
    let lenient = mirrored(&scratch, &origin.address, &[&format!("http://{}", plain.address)]);
    pull(&lenient, &format!("{}/app:1", origin.address)).await.unwrap();
    assert!(served(&plain) > 0);
}
