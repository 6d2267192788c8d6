//! A home for tests, with a catalogue in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use boxlite_home::Home;
use boxlite_home::admission::Goal;
use boxlite_home::settings::Settings;
use boxlite_types::{Digest, Error, GcOptions, GcReport, Result, Verdict};
use boxlite_vm::qemu_img;

use crate::catalog::Intent;
use crate::catalog::{IntentKind, StaleNotes};
use crate::disk::qcow2::delta::DeltaWriter;
use crate::disk::qcow2::{BackingFormat, Qcow2Header, overlay_header};
use crate::gc::bounds::Bounds;
use crate::gc::collect::carry_out;
use crate::gc::plan::GcPlan;
use crate::gc::rules::{GcScope, Rules};
use crate::gc::{Automatic, BlobPin, BoxPin, Catalog, ImagePin, LayerUser, collect, collect_verified};

pub(super) const AGED: Duration = Duration::from_secs(86_400);
pub(super) const FRESH: Duration = Duration::ZERO;

pub(super) struct Place {
    directory: Option<tempfile::TempDir>,
    pub(super) home: Home,
    pub(super) settings: Settings,
    records: Arc<Records>,
    verified: AtomicBool,
}

#[derive(Default)]
struct Records {
    broken: Mutex<bool>,
    boxes: Mutex<BTreeMap<String, (String, String)>>,
    images: Mutex<BTreeMap<String, (SystemTime, Vec<String>)>>,
    intents: Mutex<BTreeMap<(IntentKind, String), i64>>,
    used_bases: Mutex<BTreeSet<String>>,
    snapshots: Mutex<Vec<(String, String)>>,
    stranger: Mutex<Option<String>>,
    watched: Mutex<Vec<PathBuf>>,
    held: Mutex<BTreeSet<PathBuf>>,
    /// Names of images in registries. All blobs of these are layers.
    registries: Mutex<BTreeMap<String, String>>,
    /// Images that no registry has, by their names given here.
    only_here: Mutex<BTreeSet<String>>,
}

/// A digest that begins with the hex of `name`.
pub(super) fn digest(name: &str) -> String {
    let hex = hex::encode(name);
    format!("{hex:f<64}")
}

/// Whether `qemu-img` is installed, as it must be where `CI` is set.
pub(super) fn has_qemu_img() -> bool {
    static FOUND: LazyLock<bool> = LazyLock::new(|| boxlite_testkit::oracle::require("qemu-img"));
    *FOUND
}

/// The figure of `du`.
pub(super) fn du(path: &Path) -> u64 {
    let output = std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

impl Place {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(&directory.path().join("home")).unwrap();
        let records = Arc::new(Records::default());
        Self {
            directory: Some(directory),
            home,
            settings: Settings::default(),
            records,
            verified: AtomicBool::new(false),
        }
    }

    /// The home at `root` with the same records.
    pub(super) fn same_records_at(&self, root: &Path) -> Self {
        let home = Home::open(root).unwrap();
        Self {
            directory: None,
            home,
            settings: self.settings.clone(),
            records: Arc::clone(&self.records),
            verified: AtomicBool::new(false),
        }
    }

    /// A path beside the home.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.directory.as_ref().unwrap().path().join(name)
    }

    pub(super) fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::clone(&self.records) as Arc<dyn Catalog>
    }

    pub(super) fn automatic(&self) -> Automatic {
        Automatic::new(self.home.clone(), self.catalog(), self.settings.clone())
    }

    /// A pass. Where `BOXLITE_TEST_VERIFY` is set, the home that a test has made up for its first pass must mean the same
    /// to `qemu-img` as to our reader; not always, since a child has a copy of every lock between its fork and its exec,
    /// which disturbs tests of locks.
    pub(super) fn gc(&self, options: &GcOptions) -> GcReport {
        self.assert_qemu_img_agrees(options);
        collect(&self.home, &self.catalog(), &self.settings, options).unwrap()
    }

    pub(super) fn verified(&self, options: &GcOptions) -> GcReport {
        let read = |disk: &Path, format: Option<&str>| {
            Ok(qemu_img::backing(disk, format)?.map(|below| (below.path, below.format)))
        };
        collect_verified(&self.home, &self.catalog(), &self.settings, options, &read).unwrap()
    }

    fn assert_qemu_img_agrees(&self, options: &GcOptions) {
        let is_asked_for = std::env::var_os("BOXLITE_TEST_VERIFY").is_some();
        if is_asked_for && !self.verified.swap(true, Ordering::Relaxed) && has_qemu_img() {
            let options = GcOptions { dry_run: true, ..options.clone() };
            let ours = collect(&self.home, &self.catalog(), &self.settings, &options).unwrap();
            assert_eq!(self.verified(&options).unreadable, ours.unreadable, "qemu-img disagrees");
        }
    }

    /// A pass for `goal`, whose outlook is `outlook`, as automatic gc makes one.
    pub(super) fn gc_for(&self, goal: &Goal<'_>, outlook: Verdict, dry_run: bool) -> GcReport {
        let missing = (goal.missing)();
        let mut rules = Rules::new(&self.settings, &GcOptions::default(), goal.keep);
        rules.pressed = !missing.is_nothing() && !missing.share_only;
        let scope = GcScope { home: &self.home, catalog: &*self.records, rules };
        carry_out(GcPlan::make(&scope), Bounds::of_goal(goal, outlook, &rules), &scope, dry_run)
    }

    pub(super) fn image_path(&self, name: &str) -> PathBuf {
        self.home.disk_image(&digest(name))
    }

    pub(super) fn base_path(&self, name: &str) -> PathBuf {
        self.home.bases().join(format!("{name}.qcow2"))
    }

    pub(super) fn images(&self) -> usize {
        let entries = std::fs::read_dir(self.home.disk_images()).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|ext| ext == "ext4"))
            .count()
    }

    pub(super) fn image(&self, name: &str, bytes: usize, age: Duration) {
        std::fs::write(self.image_path(name), vec![3; bytes]).unwrap();
        self.age(&self.image_path(name), age);
    }

    pub(super) fn sparse_image(&self, name: &str, length: u64, age: Duration) {
        self.image(name, 4096, age);
        File::options().write(true).open(self.image_path(name)).unwrap().set_len(length).unwrap();
        self.age(&self.image_path(name), age);
    }

    /// A base whose last box was removed.
    pub(super) fn base(&self, name: &str, on: &Path, format: BackingFormat, age: Duration) {
        self.unexplained_base(name, on, format, age);
        self.intend(IntentKind::Base, &format!("{name}.qcow2"));
    }

    pub(super) fn intend(&self, kind: IntentKind, id: &str) {
        self.records.intend(kind, id).unwrap();
    }

    /// An intent that was written `seconds` from now.
    pub(super) fn intend_at(&self, kind: IntentKind, id: &str, seconds: i64) {
        let written_ms = jiff::Timestamp::now().as_millisecond() + seconds * 1000;
        self.records.intents.lock().unwrap().insert((kind, id.to_owned()), written_ms);
    }

    pub(super) fn intents(&self) -> BTreeSet<(IntentKind, String)> {
        self.records.intents.lock().unwrap().keys().cloned().collect()
    }

    /// The box has a snapshot in that base.
    pub(super) fn snapshot(&self, id: &str, base: &str) {
        self.records.snapshots.lock().unwrap().push((id.to_owned(), format!("{base}.qcow2")));
    }

    pub(super) fn remove_snapshots(&self) {
        self.records.snapshots.lock().unwrap().clear();
    }

    pub(super) fn use_base(&self, name: &str) {
        self.records.used_bases.lock().unwrap().insert(format!("{name}.qcow2"));
    }

    pub(super) fn used_bases(&self) -> Vec<String> {
        self.records.used_bases.lock().unwrap().iter().cloned().collect()
    }

    pub(super) fn estrange(&self, why: Option<&str>) {
        *self.records.stranger.lock().unwrap() = why.map(str::to_owned);
    }

    pub(super) fn unexplained_base(&self, name: &str, on: &Path, format: BackingFormat, age: Duration) {
        std::fs::write(self.base_path(name), overlay_header(on, format, 1 << 30).unwrap().head).unwrap();
        self.age(&self.base_path(name), age);
    }

    pub(super) fn delta_path(&self, name: &str) -> PathBuf {
        self.home.delta(&digest(name))
    }

    /// A delta without contents over the delta or, failing that, the disk image `on`.
    pub(super) fn delta(&self, name: &str, on: &str, age: Duration) {
        std::fs::create_dir_all(self.home.deltas()).unwrap();
        let path = self.delta_path(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let (below, format) = if self.delta_path(on).exists() {
            (format!("{}.qcow2", digest(on)), BackingFormat::Qcow2)
        } else {
            (format!("../disk-images/{}.ext4", digest(on)), BackingFormat::Raw)
        };
        DeltaWriter::new(&file, 1 << 30).finish(&below, format).unwrap();
        self.age(&path, age);
    }

    pub(super) fn blob(&self, name: &str, age: Duration) -> PathBuf {
        let path = self.home.blobs().join(digest(name));
        std::fs::write(&path, vec![5; 6000]).unwrap();
        self.age(&path, age);
        path
    }

    pub(super) fn overlay(&self, id: &str, on: &Path, format: BackingFormat) -> PathBuf {
        self.overlay_bytes(id, &overlay_header(on, format, 1 << 30).unwrap().head)
    }

    pub(super) fn overlay_bytes(&self, id: &str, bytes: &[u8]) -> PathBuf {
        let paths = self.home.of_box(id);
        std::fs::create_dir_all(paths.disks()).unwrap();
        std::fs::write(paths.overlay(), bytes).unwrap();
        paths.overlay()
    }

    /// Writes the `box.json` of a box above the disk image `disk`.
    pub(super) fn describe(&self, id: &str, disk: &str) {
        let paths = self.home.of_box(id);
        std::fs::create_dir_all(paths.root()).unwrap();
        let text = format!(
            r#"{{"format":1,"record":{{"id":"{id}","image_reference":"alpine:3","disk_digest":"{}"}}}}"#,
            digest(disk)
        );
        std::fs::write(paths.description(), text).unwrap();
    }

    /// Ages the directory of a box and everything in it that says when it was modified.
    pub(super) fn age_box(&self, id: &str) {
        let paths = self.home.of_box(id);
        for path in [paths.overlay(), paths.disks(), paths.root().to_owned()] {
            if path.exists() {
                self.age(&path, AGED);
            }
        }
    }

    pub(super) fn age(&self, path: &Path, age: Duration) {
        let then = SystemTime::now() - age;
        let times = FileTimes::new().set_modified(then).set_accessed(then);
        File::open(path).unwrap().set_times(times).unwrap();
        assert!(path.starts_with(self.home.root()));
    }

    pub(super) fn used(&self, path: &Path, ago: Duration) {
        let times =
            FileTimes::new().set_modified(SystemTime::now() - AGED * 2).set_accessed(SystemTime::now() - ago);
        File::open(path).unwrap().set_times(times).unwrap();
        assert!(path.starts_with(self.home.root()));
    }

    pub(super) fn record(&self, id: &str, disk: &str) {
        self.record_of(id, disk, "sha256:none");
    }

    pub(super) fn record_of(&self, id: &str, disk: &str, image: &str) {
        self.records.boxes.lock().unwrap().insert(id.to_owned(), (digest(disk), image.to_owned()));
    }

    pub(super) fn forget(&self, id: &str) {
        self.records.boxes.lock().unwrap().remove(id);
    }

    pub(super) fn catalogue(&self, image: &str, blobs: &[&str], age: Duration) {
        let blobs = blobs.iter().map(|name| digest(name)).collect();
        self.records.images.lock().unwrap().insert(image.to_owned(), (SystemTime::now() - age, blobs));
    }

    /// A registry has the image under that name; all its blobs are layers.
    pub(super) fn name_in_registry(&self, image: &str, name: &str) {
        self.records.registries.lock().unwrap().insert(image.to_owned(), name.to_owned());
    }

    /// All names of the image were given to it here.
    pub(super) fn only_here(&self, image: &str) {
        self.records.only_here.lock().unwrap().insert(image.to_owned());
    }

    pub(super) fn break_catalog(&self) {
        *self.records.broken.lock().unwrap() = true;
    }

    /// From now on every question to the catalogue looks whether these are locked.
    pub(super) fn watch(&self, paths: &[PathBuf]) {
        self.records.watched.lock().unwrap().extend_from_slice(paths);
    }

    pub(super) fn found_held(&self) -> BTreeSet<PathBuf> {
        self.records.held.lock().unwrap().clone()
    }

    /// Follows the overlay's backing paths as text until a raw file, all of which must exist.
    pub(super) fn assert_whole(&self, overlay: &Path) {
        let mut path = overlay.to_owned();
        loop {
            let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let Ok(Qcow2Header { backing: Some(backing), .. }) = Qcow2Header::parse(&bytes) else { break };
            path = PathBuf::from(std::ffi::OsStr::from_bytes(backing.name));
        }
        assert!(path.starts_with(self.home.root()));
    }
}

impl Records {
    fn diff_id(&self, image: &str, blob: &str) -> Option<Digest> {
        let is_layer = self.registries.lock().unwrap().contains_key(image) || image.starts_with("local");
        is_layer.then(|| Digest::from_hex(blob).unwrap())
    }

    fn check(&self) -> Result<()> {
        for path in &*self.watched.lock().unwrap() {
            if File::open(path).is_ok_and(|file| file.try_lock().is_err()) {
                self.held.lock().unwrap().insert(path.clone());
            }
        }
        if *self.broken.lock().unwrap() { Err(Error::corrupt("the catalogue is broken")) } else { Ok(()) }
    }
}

impl Catalog for Records {
    fn boxes(&self, visit: &mut dyn FnMut(BoxPin<'_>)) -> Result<()> {
        for (id, (disk_digest, image)) in &*self.boxes.lock().unwrap() {
            visit(BoxPin { id, image, disk_digest });
        }
        self.check()
    }

    fn images(&self, visit: &mut dyn FnMut(ImagePin<'_>)) -> Result<()> {
        for (digest, (last_used, _)) in &*self.images.lock().unwrap() {
            let registry = self.registries.lock().unwrap().get(digest).cloned();
            let registry = registry.as_deref();
            visit(ImagePin {
                digest,
                reference: registry,
                registry,
                last_used: *last_used,
                only_here: self.only_here.lock().unwrap().contains(digest),
            });
        }
        self.check()
    }

    fn blobs(&self, visit: &mut dyn FnMut(BlobPin<'_>)) -> Result<()> {
        for (image, (_, blobs)) in &*self.images.lock().unwrap() {
            for blob in blobs {
                visit(BlobPin { image, blob, diff_id: self.diff_id(image, blob) });
            }
        }
        self.check()
    }

    fn layer_users(&self, blob: &str) -> Result<Option<Vec<LayerUser>>> {
        self.check()?;
        let images = self.images.lock().unwrap();
        let users = images.iter().filter(|(_, (_, blobs))| blobs.iter().any(|held| held == blob));
        let user = |(image, (_, blobs)): (&String, &(SystemTime, Vec<String>))| {
            let of_registry = self.registries.lock().unwrap().contains_key(image);
            let diff_ids = blobs.iter().filter_map(|blob| self.diff_id(image, blob)).collect();
            LayerUser { of_registry, diff_ids }
        };
        Ok(Some(users.map(user).collect()))
    }

    fn blob_is_referenced(&self, blob: &str) -> Result<bool> {
        self.check()?;
        Ok(self.images.lock().unwrap().values().any(|(_, blobs)| blobs.iter().any(|held| held == blob)))
    }

    fn has_box(&self, id: &str) -> Result<bool> {
        self.check()?;
        Ok(self.boxes.lock().unwrap().contains_key(id))
    }

    fn intents(&self, visit: &mut dyn FnMut(Intent<'_>)) -> Result<()> {
        for ((kind, id), written_ms) in self.intents.lock().unwrap().iter() {
            visit(Intent { kind: *kind, id, written_ms: *written_ms });
        }
        self.check()
    }

    fn intend(&self, kind: IntentKind, id: &str) -> Result<()> {
        let written_ms = jiff::Timestamp::now().as_millisecond();
        self.intents.lock().unwrap().insert((kind, id.to_owned()), written_ms);
        self.check()
    }

    fn drop_intent(&self, kind: IntentKind, id: &str) -> Result<()> {
        self.intents.lock().unwrap().remove(&(kind, id.to_owned()));
        self.check()
    }

    fn snapshots(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<()> {
        self.snapshots.lock().unwrap().iter().for_each(|(id, base)| visit(id, base));
        self.check()
    }

    fn used_bases(&self, visit: &mut dyn FnMut(&str)) -> Result<()> {
        self.used_bases.lock().unwrap().iter().for_each(|base| visit(base));
        self.check()
    }

    fn drop_stale(&self, stale: &StaleNotes) -> Result<()> {
        let mut intents = self.intents.lock().unwrap();
        for (kind, id, written_ms) in &stale.intents {
            let key = (*kind, id.clone());
            if intents.get(&key) == Some(written_ms) {
                intents.remove(&key);
            }
        }
        self.used_bases.lock().unwrap().retain(|base| !stale.used_bases.contains(base));
        self.check()
    }

    fn stranger(&self) -> Result<Option<String>> {
        Ok(self.stranger.lock().unwrap().clone())
    }

    fn forget_image(&self, digest: &str, idle_since: SystemTime) -> Result<bool> {
        self.check()?;
        if self.boxes.lock().unwrap().values().any(|(_, image)| image == digest) {
            return Ok(false);
        }
        let mut images = self.images.lock().unwrap();
        let idle = images.get(digest).is_some_and(|(used, _)| *used <= idle_since);
        Ok(idle && images.remove(digest).is_some())
    }
}
