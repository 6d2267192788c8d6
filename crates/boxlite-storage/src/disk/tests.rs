use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use boxlite_home::Home;
use boxlite_home::durable::{FileId, Lock, Staged};
use boxlite_home::lease::Leased;
use boxlite_testkit::oracle;
use boxlite_types::ErrorKind;

use super::overlay;
use super::qcow2::tests::follow_file;
use super::qcow2::{self, BackingFormat, Chains};

struct Place {
    directory: tempfile::TempDir,
    home: Home,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::open(&directory.path().join("home")).unwrap();
    std::fs::create_dir_all(home.of_box("b").disks()).unwrap();
    let image = home.disk_image("d");
    std::fs::write(&image, b"root").unwrap();
    File::options().write(true).open(&image).unwrap().set_len(1 << 30).unwrap();
    Place { directory, home }
}

fn qemu_img(arguments: &[&std::ffi::OsStr]) -> Option<String> {
    if !oracle::require("qemu-img") {
        return None;
    }
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(output.status.success(), "qemu-img {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn qemu_accepts_our_overlays_of_every_size() {
    let place = place();
    let image = place.home.disk_image("d");
    let lease = Leased::acquire(&image).unwrap().unwrap();
    for (index, size) in
        [1 << 30, 10 << 30, (10 << 30) + 1, (512 << 20) * 8192 + 512, 16 << 40].into_iter().enumerate()
    {
        let path = place.home.of_box("b").disks().join(format!("{index}.qcow2"));
        overlay::create(&place.home, &lease, BackingFormat::Raw, &path, size).unwrap();
        assert!(boxlite_home::durable::allocated_of(&path).unwrap() <= 12 << 10);
        let Some(_) = qemu_img(&["check".as_ref(), path.as_os_str()]) else { return };
        let info = qemu_img(&["info".as_ref(), "--output=json".as_ref(), path.as_os_str()]).unwrap();
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["virtual-size"], size.next_multiple_of(512));
        assert_eq!(info["backing-filename"], image.to_str().unwrap());
        assert_eq!(info["backing-filename-format"], "raw");
    }
    assert!(place.directory.path().exists());
}

/// `qemu-img` writes through an overlay of ours and reads it back, above and below the first cluster.
#[test]
fn qemu_writes_and_reads_through_our_overlay() {
    let place = place();
    let lease = Leased::acquire(&place.home.disk_image("d")).unwrap().unwrap();
    let path = place.home.of_box("b").overlay();
    overlay::create(&place.home, &lease, BackingFormat::Raw, &path, 10 << 30).unwrap();
    if !oracle::require("qemu-io") {
        return;
    }
    let status = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", "write -P 7 5G 1M", "-c", "read -P 7 5G 1M", "-c", "read -P 0 9G 64k"])
        .arg(&path)
        .status()
        .unwrap();
    assert!(status.success());
    qemu_img(&["check".as_ref(), path.as_os_str()]);
}

/// Mutation tried: without the look before the rename, the first overlay is lost.
#[test]
fn an_overlay_is_never_replaced() {
    let place = place();
    let lease = Leased::acquire(&place.home.disk_image("d")).unwrap().unwrap();
    let path = place.home.of_box("b").overlay();
    overlay::create(&place.home, &lease, BackingFormat::Raw, &path, 1 << 30).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = overlay::create(&place.home, &lease, BackingFormat::Raw, &path, 2 << 30).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(place.home.tmp()).unwrap().count(), 0);
}

#[test]
fn an_overlay_pins_its_image_by_chain() {
    let place = place();
    let image = place.home.disk_image("d");
    let lease = Leased::acquire(&image).unwrap().unwrap();
    let path = place.home.of_box("b").overlay();
    overlay::create(&place.home, &lease, BackingFormat::Raw, &path, 1 << 30).unwrap();
    let mut chains = Chains::new(None);
    let followed = follow_file(&mut chains, &path).unwrap().unwrap();
    let expected = FileId::of(&std::fs::metadata(&image).unwrap());
    assert_eq!(chains.below(followed.backing), (vec![expected], qcow2::ChainLink::End));
}

/// Mutation tried: without `still_at_path` the first case returns a lease on a file that is gone.
#[test]
fn a_lease_is_on_the_file_that_the_path_names() {
    let place = place();
    let image = place.home.disk_image("d");
    let gc = Lock::try_lock_open(File::open(&image).unwrap(), &image).unwrap().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| Leased::acquire(&image).unwrap());
        wait_until_blocked_on_flock();
        std::fs::remove_file(&image).unwrap();
        drop(gc);
        assert!(waiting.join().unwrap().is_none(), "a removed file was leased");
    });
    assert!(Leased::acquire(&place.home.disk_image("absent")).unwrap().is_none());

    std::fs::write(&image, b"again").unwrap();
    let first = Leased::acquire(&image).unwrap().unwrap();
    let second = Leased::acquire(&image).unwrap().unwrap();
    assert!(Lock::try_lock_open(File::open(&image).unwrap(), &image).unwrap().is_none(), "leases exclude gc");
    drop((first, second));
    assert!(Lock::try_lock_open(File::open(&image).unwrap(), &image).unwrap().is_some());
}

/// Until some thread of this process waits for a `flock` (or a bounded while has passed).
fn wait_until_blocked_on_flock() {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) {
        let blocked = std::fs::read_dir("/proc/self/task").unwrap().any(|task| {
            let path = task.unwrap().path().join("syscall");
            std::fs::read_to_string(path).is_ok_and(|line| line.starts_with(&format!("{} ", libc::SYS_flock)))
        });
        if blocked {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_published_file_turns_into_a_lease_and_touch_spares_the_grace() {
    use std::os::unix::fs::MetadataExt;
    let place = place();
    let image = place.home.disk_image("new");
    let lock = Staged::create(&place.home.tmp(), "new").unwrap().publish(&image).unwrap();
    let lease = Leased::of_published(lock).unwrap().unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let times = std::fs::FileTimes::new().set_accessed(old).set_modified(old);
    File::options().write(true).open(&image).unwrap().set_times(times).unwrap();
    lease.touch().unwrap();
    let metadata = std::fs::metadata(&image).unwrap();
    assert_eq!(metadata.mtime(), 1_000_000);
    assert!(metadata.atime() > 1_600_000_000);
}

#[test]
fn strange_things_are_not_leased() {
    let place = place();
    let link = place.home.disk_image("link");
    std::os::unix::fs::symlink(place.home.disk_image("d"), &link).unwrap();
    assert!(Leased::acquire(&link).is_err());
    let directory = place.home.disk_image("directory");
    std::fs::create_dir(&directory).unwrap();
    assert_eq!(Leased::acquire(&directory).unwrap_err().kind(), ErrorKind::Conflict);
}
