//! A home with cached disk images, what a start does to it, and child processes that do the same.

use std::fs::{File, FileTimes};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use boxlite_home::Home;
use boxlite_home::durable::{self, Staged};
use boxlite_home::lease::Leased;
use boxlite_home::settings::{Settings, SettingsOptions, SettingsVariables};
use boxlite_storage::disk::overlay;
use boxlite_storage::disk::qcow2::BackingFormat;
use boxlite_storage::gc::{self, Catalog};
use boxlite_types::{GcOptions, GcReport};

use crate::catalog::NumberedBoxes;

const AGED: Duration = Duration::from_secs(86_400);

/// A directory on a tmpfs where there is one: syncs cost nothing there, so races meet more often.
pub(crate) fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A digest for image number `index`.
pub(crate) fn digest(index: u64) -> String {
    format!("{index:064x}")
}

pub(crate) fn open(root: &Path) -> Home {
    Home::open(root).unwrap()
}

pub(crate) fn settings(home: &Home) -> Settings {
    Settings::load(home, &SettingsVariables::default(), &SettingsOptions::default()).unwrap()
}

pub(crate) fn collect(home: &Home, options: &GcOptions) -> GcReport {
    let catalog: Arc<dyn Catalog> = Arc::new(NumberedBoxes::none());
    gc::collect(home, &catalog, &settings(home), options).unwrap()
}

/// Sets the times of `path` to a day ago: the grace is of no help to it.
pub(crate) fn age(path: &Path) {
    let then = SystemTime::now() - AGED;
    let times = FileTimes::new().set_modified(then).set_accessed(then);
    File::open(path).unwrap().set_times(times).unwrap();
}

/// The contents of the disk image of `index`.
fn contents(index: u64) -> Vec<u8> {
    index.to_le_bytes().repeat(512)
}

pub(crate) fn put_image(home: &Home, index: u64) {
    let path = home.disk_image(&digest(index));
    std::fs::write(&path, contents(index)).unwrap();
    age(&path);
}

/// A delta of number `index` over the disk image `below`, or over the delta of that number where there is one.
pub(crate) fn put_delta(home: &Home, index: u64, below: u64) {
    std::fs::create_dir_all(home.deltas()).unwrap();
    let (name, format) = if home.delta(&digest(below)).exists() {
        (format!("{}.qcow2", digest(below)), "qcow2")
    } else {
        (format!("../disk-images/{}.ext4", digest(below)), "raw")
    };
    let path = home.delta(&digest(index));
    let create = ["create", "-q", "-u", "-f", "qcow2", "-b", &name, "-F", format];
    let made = Command::new("qemu-img").args(create).arg(&path).arg("1G").status().unwrap();
    assert!(made.success());
    age(&path);
}

/// Builds the image as the product does, but with an old modification time: only the lease protects it.
fn build(home: &Home, index: u64) -> Option<Leased> {
    let name = format!("disk-{}.partial", digest(index));
    let Some(staged) = Staged::take_over(&home.tmp(), &name).unwrap() else {
        std::thread::yield_now();
        return None;
    };
    let path = home.disk_image(&digest(index));
    if let Some(leased) = Leased::acquire(&path).unwrap() {
        return Some(leased);
    }
    staged.file().set_len(0).unwrap();
    let mut file = staged.file();
    file.write_all(&contents(index)).unwrap();
    let then = SystemTime::now() - AGED;
    file.set_times(FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
    Leased::of_published(staged.publish(&path).unwrap()).unwrap()
}

/// Leases the image of `index`, building it if it is gone.
pub(crate) fn lease(home: &Home, index: u64) -> Leased {
    loop {
        if let Some(leased) = Leased::acquire(&home.disk_image(&digest(index))).unwrap() {
            return leased;
        }
        if let Some(leased) = build(home, index) {
            return leased;
        }
    }
}

/// The disk stages of a start: lease, overlay, let go.
pub(crate) fn start(home: &Home, id: &str, index: u64) {
    std::fs::create_dir_all(home.of_box(id).disks()).unwrap();
    let leased = lease(home, index);
    overlay::create(home, &leased, BackingFormat::Raw, &home.of_box(id).overlay(), 1 << 30).unwrap();
}

/// Whether the box's disk image is there and is the right one.
pub(crate) fn is_live(home: &Home, index: u64) -> bool {
    std::fs::read(home.disk_image(&digest(index))).is_ok_and(|found| found == contents(index))
}

pub(crate) fn remove(home: &Home, id: &str) {
    durable::discard_dir(home.of_box(id).root(), &home.tmp()).unwrap();
}

/// The images that are there, by file name.
pub(crate) fn images(home: &Home) -> usize {
    std::fs::read_dir(home.disk_images()).unwrap().count()
}

/// Every overlay in the home stands on a file that is there.
pub(crate) fn assert_whole(home: &Home) {
    for entry in std::fs::read_dir(home.boxes()).unwrap() {
        let path = entry.unwrap().path().join("disks/root.qcow2");
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let header = boxlite_storage::disk::qcow2::Qcow2Header::parse(&bytes).unwrap();
        let backing = PathBuf::from(std::str::from_utf8(header.backing.unwrap().name).unwrap());
        assert!(backing.exists(), "{} lacks {}", path.display(), backing.display());
    }
}

/// Every delta in the home stands on a file that is there.
pub(crate) fn assert_deltas_whole(home: &Home) {
    for entry in std::fs::read_dir(home.deltas()).into_iter().flatten() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let header = boxlite_storage::disk::qcow2::Qcow2Header::parse(&bytes).unwrap();
        let below = home.deltas().join(std::str::from_utf8(header.backing.unwrap().name).unwrap());
        assert!(below.exists(), "{} lacks {}", path.display(), below.display());
    }
}

/// A child process of this test binary, doing one job in the home, with `fault` armed.
pub(crate) fn spawn(home: &Home, job: &str, fault: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child::work", "--nocapture", "--test-threads=1"])
        .env("BOXLITE_SPACE_CHILD", job)
        .env("BOXLITE_SPACE_HOME", home.root())
        .env("BOXLITE_FAULT", fault)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}
