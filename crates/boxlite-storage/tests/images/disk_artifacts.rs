//! Built disk images on their way through a real registry, which has no API for referrers, and past people who lie.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use boxlite_home::Home;
use boxlite_home::settings::{Settings, SettingsOptions, SettingsVariables};
use boxlite_storage::disk_image::{ensure_delta, lease};
use boxlite_storage::gc::{Catalog, collect};
use boxlite_storage::image::Images;
use boxlite_storage::reference::{Reference, RegistryReference};
use boxlite_storage::store::Store;
use boxlite_testkit::filesystem::SmallFilesystem;
use boxlite_testkit::registry::Registry;
use boxlite_types::{
    Digest, DiskImageFetch, DiskImageFetchOptions, DiskImagePush, DiskImagePushOptions, Error, ErrorKind,
    GcOptions, PullOptions,
};
use serde_json::Value;

use crate::child;
use crate::fixture::*;
use crate::proxy::{Fate, Proxy, Request};

const SIZE: &str = "disk_size = \"128MiB\"\n";
const SIZE_BYTES: u64 = 128 << 20;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A home with settings of its own.
struct Node {
    home: Home,
    images: Images,
}

impl Node {
    fn new(scratch: &Scratch, name: &str, settings: &str) -> Self {
        let home = Home::open(&scratch.path(name)).unwrap();
        std::fs::write(home.config(), format!("{SIZE}{settings}")).unwrap();
        let images = open_images(&home).unwrap();
        Self { home, images }
    }

    async fn fetch(&self, reference: &str) -> Result<DiskImageFetch, Error> {
        fetch(&self.images, reference).await
    }

    /// Paths and SHA-256 of all disk images and deltas.
    fn sums(&self) -> BTreeMap<String, String> {
        self.files()
            .into_iter()
            .map(|path| {
                let sum = run("sha256sum", &["-b", path.to_str().unwrap()])[..64].to_owned();
                (path.strip_prefix(self.home.root()).unwrap().display().to_string(), sum)
            })
            .collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        let directories = [self.home.disk_images(), self.home.deltas()];
        let files = |at: PathBuf| names(&at).into_iter().map(move |name| at.join(name)).collect::<Vec<_>>();
        directories.into_iter().filter(|at| at.exists()).flat_map(files).collect()
    }

    fn allocated(&self) -> u64 {
        self.files().iter().map(|path| std::fs::metadata(path).unwrap().blocks() * 512).sum()
    }

    /// Nothing of a fetch that was refused is left.
    fn assert_untouched(&self, what: &str) {
        assert_eq!(self.files(), Vec::<PathBuf>::new(), "{what}");
        assert_eq!(names(&self.home.tmp()), [""; 0], "{what}");
        assert_eq!(names(&self.home.blobs()), [""; 0], "{what}");
    }
}

async fn fetch(images: &Images, reference: &str) -> Result<DiskImageFetch, Error> {
    let reference = RegistryReference::parse(reference).unwrap();
    images.fetch_disk_image(&reference, &DiskImageFetchOptions::default(), Arc::new(())).await
}

fn collect_all(home: &Home) {
    let settings = Settings::load(home, &SettingsVariables::default(), &SettingsOptions::default()).unwrap();
    let catalog: Arc<dyn Catalog> = Arc::new(Store::open(&home.database()).unwrap());
    collect(home, &catalog, &settings, &GcOptions::default()).unwrap();
}

/// A registry with `app:1` of two segments, and a home that has built its disk image.
async fn built(scratch: &Scratch) -> (Registry, Node, String) {
    let registry = Registry::start(&[]);
    let path = scratch.path("layout");
    layout(&path, "v1", &[("base", 17 << 20), ("app", 300_000)]);
    registry.push(&path, "v1", "app:1");
    let builder = Node::new(scratch, "builder", "");
    let reference = format!("{}/app:1", registry.address);
    let wanted: Reference = reference.parse().unwrap();
    let image = builder.images.pull(&wanted, &PullOptions::default(), Arc::new(())).await.unwrap();
    drop(ensure_delta(&builder.images, &image, SIZE_BYTES, &()).unwrap());
    assert_eq!(builder.files().len(), 2);
    (registry, builder, reference)
}

async fn push(node: &Node, reference: &str, sign_key: Option<&PathBuf>) -> DiskImagePush {
    let options = DiskImagePushOptions { sign_key: sign_key.cloned(), ..Default::default() };
    node.images.push_disk_image(reference, &options, Arc::new(())).await.unwrap()
}

fn key(scratch: &Scratch, name: &str) -> PathBuf {
    let path = scratch.path(name);
    run("openssl", &["genpkey", "-algorithm", "ed25519", "-out", path.to_str().unwrap()]);
    path
}

fn trusting(registry: &Registry) -> String {
    format!("image_fetch_from = [\"{}\"]\n", registry.address)
}

/// The entries of the index that stands in for a list of referrers.
async fn listed(registry: &Registry, image: Digest) -> Vec<Value> {
    let url = format!("http://{}/v2/app/manifests/sha256-{}", registry.address, image.hex());
    let answer = reqwest::Client::new().get(url).header("accept", INDEX).send().await.unwrap();
    let index: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    index["manifests"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_second_home_fetches_what_the_first_has_built_byte_for_byte() {
    let scratch = Scratch::new();
    let (registry, builder, reference) = built(&scratch).await;
    let signer = key(&scratch, "key.pem");
    let pushed = push(&builder, &reference, Some(&signer)).await;
    let blobs = names(&builder.home.blobs());
    let again = push(&builder, &reference, Some(&signer)).await;
    assert_eq!(again, pushed, "the same bytes make the same artifact");
    assert_eq!(names(&builder.home.blobs()), blobs, "what was packed is not kept");
    assert_eq!(listed(&registry, pushed.image).await.len(), 1);
    let other = push(&builder, &reference, Some(&key(&scratch, "other.pem"))).await;
    assert_ne!(other.artifact, pushed.artifact);
    assert_eq!(listed(&registry, pushed.image).await.len(), 2, "what another key has signed stays");

    let layers: Vec<String> = builder
        .images
        .find(&reference)
        .await
        .unwrap()
        .layers
        .iter()
        .map(|it| it.digest.to_string())
        .collect();
    let gets = || layers.iter().map(|layer| registry.gets(layer)).sum::<usize>();
    let before = gets();
    let settings = format!("image_fetch_keys = [\"{}\"]\n", pushed.key.clone().unwrap());
    let node = Node::new(&scratch, "node", &settings);
    let fetched = node.fetch(&reference).await.unwrap();
    assert_eq!((fetched.artifact, fetched.image.digest), (Some(pushed.artifact), pushed.image));
    assert_eq!(node.sums(), builder.sums());
    assert!(
        node.allocated() <= builder.allocated() + (64 << 10),
        "{} {}",
        node.allocated(),
        builder.allocated()
    );
    assert_eq!(names(&node.home.tmp()), [""; 0]);
    assert_eq!(names(&node.home.blobs()).len(), 2, "manifest and config, and no layer");
    let wanted: Reference = reference.parse().unwrap();
    let image = node.images.pull(&wanted, &PullOptions::default(), Arc::new(())).await.unwrap();
    node.images.complete(&image, &PullOptions::default(), Arc::new(())).await.unwrap();
    assert_eq!(gets(), before, "a box can be made without the layers");
    assert_eq!(node.fetch(&reference).await.unwrap().artifact, None, "it is there");

    // A fetch replaces the missing files, over those that are left.
    let delta = node.files().into_iter().find(|path| path.extension().unwrap() == "qcow2").unwrap();
    std::fs::remove_file(&delta).unwrap();
    assert!(node.fetch(&reference).await.unwrap().artifact.is_some());
    assert_eq!(node.sums(), builder.sums());

    junk_hides_nothing(&scratch, &registry, &pushed, &settings).await;

    // Images whose registry takes no pushes have their disk images in a repository elsewhere.
    let site = Registry::start(&[]);
    let to = format!("{}/disks", site.address);
    let options = DiskImagePushOptions { to: Some(to.clone()), ..Default::default() };
    builder.images.push_disk_image(&reference, &options, Arc::new(())).await.unwrap();
    let third = Node::new(&scratch, "third", &format!("image_fetch_from = \"{to}\"\n"));
    let options = DiskImageFetchOptions { from: Some(to), ..Default::default() };
    let wanted = RegistryReference::parse(&reference).unwrap();
    third.images.fetch_disk_image(&wanted, &options, Arc::new(())).await.unwrap();
    assert_eq!(third.sums(), builder.sums());
}

/// What others list beside an artifact hides it neither in an index nor in a list of many pages.
async fn junk_hides_nothing(scratch: &Scratch, registry: &Registry, pushed: &DiskImagePush, settings: &str) {
    let ours = listed(registry, pushed.image).await.remove(0);
    assert_eq!(ours["digest"], pushed.artifact.to_string());
    let junk = |number: usize| {
        let mut entry = ours.clone();
        entry["digest"] = Digest::of(&number.to_le_bytes()).to_string().into();
        entry["annotations"]["io.boxlite.signature"] = "ed25519:nobody:c2ln".into();
        entry
    };
    let index = |entries: Vec<Value>| {
        serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string()
    };
    let tag = format!("/manifests/sha256-{}", pushed.image.hex());
    let long =
        |junk_count: usize| index(std::iter::once(ours.clone()).chain((0..junk_count).map(junk)).collect());
    let (page, last) = (index((0..10).map(junk).collect()), index(vec![ours.clone()]));
    // Each case has the list under the tag, and how many pages of junk the API gives before ours.
    let cases = [
        ("index", Some(long(1000)), 0, true),
        // Of a list that is too long, the end counts.
        ("long", Some(long(1500)), 0, false),
        ("pages", None, 9, true),
        ("endless", None, usize::MAX, false),
    ];
    for (name, under_tag, pages, is_found) in cases {
        let (page, last, tag) = (page.clone(), last.clone(), tag.clone());
        let proxy = Proxy::before(&registry.address, move |request: &Request| {
            let answer = |body: &str, link: String| {
                let headers = format!("Content-Type: {INDEX}\r\n{link}");
                Fate::Answer("200 OK", headers, body.as_bytes().to_vec())
            };
            let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
            match &under_tag {
                Some(index) if path.ends_with(&tag) => answer(index, String::new()),
                None if path.contains("/referrers/") => {
                    let number = query.strip_prefix("page=").map_or(0, |number| number.parse().unwrap());
                    if number == pages {
                        return answer(&last, String::new());
                    }
                    answer(&page, format!("Link: <{path}?page={}>; rel=\"next\"\r\n", number + 1))
                }
                _ => Fate::Pass,
            }
        });
        let node = Node::new(scratch, name, settings);
        let fetched = node.fetch(&format!("{}/app:1", proxy.address)).await;
        let artifact = fetched.as_ref().ok().and_then(|fetched| fetched.artifact);
        assert_eq!(artifact, is_found.then_some(pushed.artifact), "{name}: {fetched:?}");
        let asked = proxy.requests().iter().filter(|it| it.path.contains("/referrers/")).count();
        assert!(asked <= 64, "{name}: {asked} pages");
    }
}

#[tokio::test]
async fn nothing_is_fetched_from_those_whom_the_operator_has_not_named() {
    let scratch = Scratch::new();
    let (registry, builder, reference) = built(&scratch).await;
    push(&builder, &reference, None).await;
    let signed = push(&builder, &reference, Some(&key(&scratch, "a.pem"))).await.key.unwrap();
    let stranger = Node::new(&scratch, "keyless", "");
    assert_eq!(stranger.fetch(&reference).await.unwrap_err().kind(), ErrorKind::Denied);
    stranger.assert_untouched("no trust");
    for (at, settings) in [
        format!("image_fetch_keys = \"{}=\"\n", "A".repeat(43)),
        "image_fetch_from = \"registry.example\"\n".to_owned(),
        format!("image_fetch_from = \"{}/other\"\n", registry.address),
        format!("image_fetch_from = \"registry.example\"\nimage_fetch_keys = \"{signed}\"\n"),
    ]
    .iter()
    .enumerate()
    {
        let node = Node::new(&scratch, &format!("distrusting-{at}"), settings);
        let error = node.fetch(&reference).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{settings}: {error}");
        node.assert_untouched(settings);
    }
    let node = Node::new(&scratch, "trusting", &trusting(&registry));
    let insecure = DiskImageFetchOptions { insecure: true, ..Default::default() };
    let wanted = RegistryReference::parse(&reference).unwrap();
    let error = node.images.fetch_disk_image(&wanted, &insecure, Arc::new(())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "unsigned and insecure: {error}");
    node.fetch(&reference).await.unwrap();
    let other = Node::new(&scratch, "other-size", &trusting(&registry));
    std::fs::write(other.home.config(), format!("disk_size = \"1GiB\"\n{}", trusting(&registry))).unwrap();
    let other = Node { images: open_images(&other.home).unwrap(), home: other.home };
    let error = other.fetch(&reference).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.chain().to_string().contains("boxlite image push"), "{error}");
    other.assert_untouched("another size");
}

/// Puts an artifact beside the right one: with another config, manifest or blob.
struct Forger<'a> {
    registry: &'a Registry,
    image: Digest,
    manifest: Value,
    config: Value,
}

impl<'a> Forger<'a> {
    async fn of(registry: &'a Registry, pushed: &DiskImagePush) -> Self {
        let get = async |path: String| {
            let url = format!("http://{}/v2/app/{path}", registry.address);
            let answer = reqwest::Client::new().get(url).header("accept", MANIFEST).send().await.unwrap();
            serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap()
        };
        let manifest = get(format!("manifests/{}", pushed.artifact)).await;
        let config = get(format!("blobs/{}", manifest["config"]["digest"].as_str().unwrap())).await;
        Self { registry, image: pushed.image, manifest, config }
    }

    async fn put_blob(&self, bytes: Vec<u8>) -> (String, usize) {
        let (client, digest, length) = (reqwest::Client::new(), Digest::of(&bytes).to_string(), bytes.len());
        let url = format!("http://{}/v2/app/blobs/uploads/", self.registry.address);
        let begun = client.post(url).send().await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let put = client.put(format!("{location}&digest={digest}")).body(bytes).send().await.unwrap();
        assert!(put.status().is_success(), "{put:?}");
        (digest, length)
    }

    async fn put_manifest(&self, name: &str, media_type: &str, bytes: String) {
        let url = format!("http://{}/v2/app/manifests/{name}", self.registry.address);
        let put = reqwest::Client::new().put(url).header("content-type", media_type).body(bytes);
        let put = put.send().await.unwrap();
        assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    }

    /// Makes this the only artifact of the image.
    async fn publish(&self, manifest: &Value, config: &Value) {
        let mut manifest = manifest.clone();
        let (digest, size) = self.put_blob(config.to_string().into_bytes()).await;
        manifest["config"]["digest"] = digest.into();
        manifest["config"]["size"] = size.into();
        let bytes = manifest.to_string();
        let digest = Digest::of(bytes.as_bytes());
        self.put_manifest(&digest.to_string(), MANIFEST, bytes.clone()).await;
        let entry = serde_json::json!({ "mediaType": MANIFEST, "digest": digest, "size": bytes.len(),
            "artifactType": manifest["artifactType"], "annotations": manifest["annotations"] });
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
        self.put_manifest(&format!("sha256-{}", self.image.hex()), INDEX, index.to_string()).await;
    }

    /// The artifact with this blob in place of that of its first segment.
    async fn with_blob(&self, bytes: Vec<u8>) -> (Value, Value) {
        let (mut manifest, mut config) = (self.manifest.clone(), self.config.clone());
        let (digest, size) = self.put_blob(bytes).await;
        manifest["layers"][0]["digest"] = digest.clone().into();
        manifest["layers"][0]["size"] = size.into();
        config["segments"][0]["blob"] = digest.into();
        config["segments"][0]["blobLength"] = size.into();
        (manifest, config)
    }
}

/// A trusted builder whose artifact is damaged or made up is not believed.
#[tokio::test]
async fn an_artifact_that_is_not_what_it_says_is_refused_and_leaves_nothing() {
    let scratch = Scratch::new();
    let (registry, builder, reference) = built(&scratch).await;
    let pushed = push(&builder, &reference, None).await;
    let forger = Forger::of(&registry, &pushed).await;
    let (manifest, config) = (&forger.manifest, &forger.config);
    let edited = |edit: fn(&mut Value)| {
        let mut config = config.clone();
        edit(&mut config);
        (manifest.clone(), config)
    };
    let zeros = zstd::encode_all(&vec![0; 64 << 20][..], 3).unwrap();
    let mut foreign_type = manifest.clone();
    foreign_type["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd".into();
    let mut empty = b"BLXSEG01".to_vec();
    for number in [SIZE_BYTES, SIZE_BYTES] {
        empty.extend(number.to_le_bytes());
    }
    empty.extend([0; 4]);
    let blank = {
        let (manifest, mut config) = forger.with_blob(zstd::encode_all(&empty[..], 3).unwrap()).await;
        config["segments"][0]["content"] = Digest::of(&empty).to_string().into();
        config["segments"][0]["streamLength"] = empty.len().into();
        (manifest, config)
    };
    let forgeries = [
        ("another content", edited(|it| it["segments"][0]["content"] = it["segments"][1]["content"].clone())),
        ("a longer stream", edited(|it| it["segments"][0]["streamLength"] = 100.into())),
        ("another file's name", edited(|it| it["segments"][0]["name"] = it["segments"][1]["name"].clone())),
        ("another image's", edited(|it| it["image"] = it["segments"][0]["content"].clone())),
        ("another length", edited(|it| it["segments"][0]["length"] = 4096.into())),
        (
            "other layers than the config",
            edited(|it| it["segments"][0]["blob"] = it["segments"][1]["blob"].clone()),
        ),
        ("a bomb", forger.with_blob(zeros).await),
        ("no compressed stream", forger.with_blob(b"nothing of the kind".to_vec()).await),
        ("layers of another type", (foreign_type, config.clone())),
        ("no description", (manifest.clone(), Value::Null)),
        ("a blank file", blank),
    ];
    for (at, (what, (manifest, config))) in forgeries.iter().enumerate() {
        forger.publish(manifest, config).await;
        let node = Node::new(&scratch, &format!("forged-{at}"), &trusting(&registry));
        let error = node.fetch(&reference).await.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {}", error.chain());
        node.assert_untouched(what);
    }
    forger.publish(manifest, config).await;
    let flipping = Proxy::before(&registry.address, |request: &Request| {
        if request.is_blob() && request.range.is_none() { Fate::Flip(60) } else { Fate::Pass }
    });
    let node = Node::new(&scratch, "flipped", &format!("image_fetch_from = \"{}\"\n", flipping.address));
    let error = node.fetch(&format!("{}/app:1", flipping.address)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    node.assert_untouched("flipped");
    Node::new(&scratch, "right", &trusting(&registry)).fetch(&reference).await.unwrap();
}

#[tokio::test]
async fn a_kill_at_any_step_of_a_fetch_leaves_a_home_that_the_next_completes() {
    let scratch = Scratch::new();
    let (registry, builder, reference) = built(&scratch).await;
    push(&builder, &reference, None).await;
    let expected = builder.sums();
    let points = [
        "blob.written=kill:3",
        "publish.written=kill:1",
        "publish.renamed=kill:2",
        "segment.written=kill:1",
        "segment.written=kill:2",
        "publish.synced=kill:3",
        "publish.renamed=kill:3",
        "publish.durable=kill:4",
        "publish.durable=kill:5",
    ];
    for (at, fault) in points.iter().enumerate() {
        let node = Node::new(&scratch, &format!("killed-{at}"), &trusting(&registry));
        let env = [("BOXLITE_FAULT", *fault), ("BOXLITE_TEST_CHILD_FETCH", "1")];
        assert!(child::run(node.home.root(), &reference, false, &env).killed, "{fault}");
        assert!(node.sums().iter().all(|(path, sum)| expected.get(path) == Some(sum)), "{fault}");
        node.fetch(&reference).await.unwrap_or_else(|error| panic!("{fault}: {}", error.chain()));
        assert_eq!(node.sums(), expected, "{fault}");
        for name in names(&node.home.tmp()) {
            let path = node.home.tmp().join(name);
            assert!(
                boxlite_home::durable::sweep_staged(&path, false).unwrap().is_some(),
                "{fault}: {path:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fetches_at_once_and_beside_a_build_share_the_work() {
    let scratch = Scratch::new();
    let (registry, builder, reference) = built(&scratch).await;
    let pushed = push(&builder, &reference, None).await;
    let forger = Forger::of(&registry, &pushed).await;
    let node = Node::new(&scratch, "shared", &trusting(&registry));
    let env = [("BOXLITE_TEST_CHILD_FETCH", "1")];
    let processes: Vec<_> = (0..2).map(|_| child::start(node.home.root(), &reference, false, &env)).collect();
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let (images, reference) = (node.images.clone(), reference.clone());
            tokio::spawn(async move { fetch(&images, &reference).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    for process in processes {
        assert_eq!(child::finish(process).said, format!("ok {}", pushed.image));
    }
    assert_eq!(node.sums(), builder.sums());
    for segment in forger.config["segments"].as_array().unwrap() {
        let blob = segment["blob"].as_str().unwrap();
        assert!(registry.gets(&format!("/blobs/{blob}")) <= 5, "{blob}");
    }
    // gc without grace runs beside the next one, again and again.
    let eager = Node::new(&scratch, "eager", &format!("grace = 0\n{}", trusting(&registry)));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let collecting = {
        let (home, stop) = (eager.home.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                collect_all(&home);
            }
        })
    };
    for _ in 0..3 {
        let fetched = eager.fetch(&reference).await.unwrap();
        let name = boxlite_storage::disk_image::digest(&fetched.image, SIZE_BYTES);
        // Without grace, a collection may have taken what no box needs; what it left is whole and stays while leased.
        if let Some(_leased) = lease(&eager.home, &name).unwrap() {
            assert_eq!(eager.sums(), builder.sums());
        }
        eager.images.remove(&reference, true).await.unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    collecting.join().unwrap();
}

#[tokio::test]
async fn a_fetch_into_a_nearly_full_disk_is_refused_before_it_writes() {
    let scratch = Scratch::new();
    let (registry, builder, reference) = built(&scratch).await;
    push(&builder, &reference, None).await;
    let Some(small) = SmallFilesystem::tmpfs("size=96m") else { return };
    let home = Home::open(&small.path().join("home")).unwrap();
    let settings = format!(
        "{SIZE}hard_floor = \"32MiB\"\nsoft_floor = \"33MiB\"\nemergency_floor = \"1MiB\"\ninode_floor = 10\n{}",
        trusting(&registry)
    );
    std::fs::write(home.config(), settings).unwrap();
    let node = Node { images: open_images(&home).unwrap(), home };
    let filler = small.path().join("filler");
    std::fs::write(&filler, vec![1; 40 << 20]).unwrap();
    let error = node.fetch(&reference).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    assert!(error.shortage().is_some());
    node.assert_untouched("a full disk");
    std::fs::remove_file(&filler).unwrap();
    node.fetch(&reference).await.unwrap();
    assert_eq!(node.sums(), builder.sums());
}

/// Prints what docs/images.md quotes: both sides in one run, on one host, from a registry on loopback.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run it by hand with --nocapture"]
async fn how_long_a_second_host_waits_for_a_startable_image() {
    const ROUNDS: usize = 7;
    let scratch = Scratch::new();
    let registry = Registry::start(&[]);
    let at = scratch.path("layout").display().to_string();
    run("umoci", &["init", "--layout", &at]);
    let image = format!("{at}:v1");
    run("umoci", &["new", "--image", &image]);
    for (name, trees) in
        [("base", &["usr/lib/python3.11", "usr/share/perl"][..]), ("app", &["usr/lib/python3"])]
    {
        let tar = scratch.path(name).display().to_string();
        run("tar", &[&["-C", "/", "-cf", &tar][..], trees].concat());
        run("umoci", &["raw", "add-layer", "--image", &image, &tar]);
    }
    run("umoci", &["config", "--image", &image, "--architecture", "amd64", "--os", "linux"]);
    registry.push(&scratch.path("layout"), "v1", "app:1");
    let settings = "disk_size = \"10GiB\"\n";
    let node = |name: String| {
        let node = Node::new(&scratch, &name, "");
        std::fs::write(node.home.config(), format!("{settings}{}", trusting(&registry))).unwrap();
        Node { images: open_images(&node.home).unwrap(), home: node.home }
    };
    let reference = format!("{}/app:1", registry.address);
    let wanted: Reference = reference.parse().unwrap();
    let builder = node("first".to_owned());
    let built = async |node: &Node| {
        let image = node.images.pull(&wanted, &PullOptions::default(), Arc::new(())).await.unwrap();
        let (images, of) = (node.images.clone(), image.clone());
        let build = move || drop(ensure_delta(&images, &of, 10 << 30, &()).unwrap());
        tokio::task::spawn_blocking(build).await.unwrap();
        image
    };
    let image = built(&builder).await;
    let began = std::time::Instant::now();
    push(&builder, &reference, None).await;
    println!("image push: {} ms", began.elapsed().as_millis());
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let pulls = node(format!("pulls-{round}"));
        let began = std::time::Instant::now();
        built(&pulls).await;
        times[0].push(began.elapsed().as_millis());
        let fetches = node(format!("fetches-{round}"));
        let began = std::time::Instant::now();
        fetches.fetch(&reference).await.unwrap();
        times[1].push(began.elapsed().as_millis());
        assert_eq!(pulls.files().len(), fetches.files().len());
        for done in [pulls, fetches] {
            std::fs::remove_dir_all(done.home.root()).unwrap();
        }
    }
    for (side, times) in ["pull and build", "image fetch"].iter().zip(&mut times) {
        times.sort_unstable();
        println!("{side}: median {} ms of {times:?}", times[ROUNDS / 2]);
    }
    println!(
        "layers: {} bytes compressed, files: {} bytes allocated",
        image.stored_bytes(),
        builder.allocated()
    );
}
