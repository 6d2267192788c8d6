//! The whole of gc's mark against the bare system calls, and against `qemu-img info` per overlay.
//!
//! `cargo bench -p boxlite-storage --bench mark [-- --boxes N]` prints all sides of one run and fails when a bound is
//! missed: at most 3 times getdents + open + pread of the same headers, at least 500 times faster than
//! `qemu-img info --backing-chain`, less than 300 bytes of memory per box.

use std::ffi::CString;
use std::fs::{File, FileTimes};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use boxlite_home::Home;
use boxlite_home::lease::Leased;
use boxlite_home::settings::Settings;
use boxlite_storage::disk::overlay;
use boxlite_storage::disk::qcow2::BackingFormat;
use boxlite_storage::gc::{self, Catalog};
use boxlite_types::GcOptions;
use catalog::NumberedBoxes;
use rustix::fs::{Mode, OFlags, RawDir};

#[path = "../tests/space/catalog.rs"]
mod catalog;

const IMAGES: usize = 100;
const LEVELS: usize = 7;

fn id(index: usize) -> String {
    format!("{index:032x}")
}

fn digest(index: usize) -> String {
    format!("{index:064x}")
}

/// Box `n` stands on a chain of `n % 8` bases above image `n % 100`.
fn populate(root: &Path, boxes: usize) -> Home {
    let home = Home::open(root).unwrap();
    let old = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(86_400));
    let write = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).unwrap();
        File::open(path).unwrap().set_times(old).unwrap();
    };
    // One overlay of each kind is made as the product makes it; all others are copies of its head, without a sync each.
    let head = |on: &Path, format| {
        let (leased, made) = (Leased::acquire(on).unwrap().unwrap(), home.tmp().join("head.qcow2"));
        overlay::create(&home, &leased, format, &made, 10 << 30).unwrap();
        let mut bytes = std::fs::read(&made).unwrap();
        std::fs::remove_file(&made).unwrap();
        bytes.truncate(4096);
        bytes
    };
    let base = |image: usize, level: usize| home.bases().join(format!("{image:016x}{level:016x}.qcow2"));
    for image in 0..IMAGES {
        write(&home.disk_image(&digest(image)), b"root");
        for level in 0..LEVELS {
            let bytes = match level {
                0 => head(&home.disk_image(&digest(image)), BackingFormat::Raw),
                _ => head(&base(image, level - 1), BackingFormat::Qcow2),
            };
            write(&base(image, level), &bytes);
        }
    }
    let tops: Vec<Vec<u8>> = (0..IMAGES * (LEVELS + 1))
        .map(|kind| match (kind % IMAGES, kind / IMAGES) {
            (image, 0) => head(&home.disk_image(&digest(image)), BackingFormat::Raw),
            (image, depth) => head(&base(image, depth - 1), BackingFormat::Qcow2),
        })
        .collect();
    for index in 0..boxes {
        let paths = home.of_box(&id(index));
        std::fs::create_dir_all(paths.disks()).unwrap();
        write(&paths.overlay(), &tops[index % tops.len()]);
    }
    home
}

fn mark(home: &Home, boxes: usize) {
    let catalog: Arc<dyn Catalog> =
        Arc::new(NumberedBoxes { boxes, name: |index| (id(index), digest(index % IMAGES)) });
    let options = GcOptions { dry_run: true, ..GcOptions::default() };
    let report = gc::collect(home, &catalog, &Settings::default(), &options).unwrap();
    assert!(!report.failed() && report.removed().next().is_none(), "everything here is needed");
    assert_eq!(report.disk_images.len(), IMAGES);
}

/// The least that any mark must do: list each directory, open each header's file and read it.
fn floor(home: &Home) -> usize {
    let mut read = 0;
    let mut outer = Vec::with_capacity(32 << 10);
    let mut inner = Vec::with_capacity(8 << 10);
    let boxes = open_directory(&home.boxes());
    let mut entries = RawDir::new(&boxes, outer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        if entry.file_name().to_bytes().starts_with(b".") {
            continue;
        }
        let mut path = entry.file_name().to_bytes().to_vec();
        path.extend_from_slice(b"/disks");
        let path = CString::new(path).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let disks = rustix::fs::openat(&boxes, &*path, flags, Mode::empty()).unwrap();
        read += headers_in(&disks, &mut inner);
    }
    read + headers_in(&open_directory(&home.bases()), &mut Vec::with_capacity(32 << 10))
}

fn open_directory(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn headers_in(directory: &OwnedFd, buffer: &mut Vec<u8>) -> usize {
    let mut read = 0;
    let mut header = [0; 4096];
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        if !entry.file_name().to_bytes().starts_with(b".") {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(directory, entry.file_name(), flags, Mode::empty()).unwrap();
            assert!(rustix::io::pread(&file, &mut header, 0).unwrap() > 100);
            read += 1;
        }
    }
    read
}

fn best(runs: usize, mut work: impl FnMut()) -> Duration {
    let times = (0..runs).map(|_| {
        let started = Instant::now();
        work();
        started.elapsed()
    });
    times.min().unwrap()
}

/// The most memory that a process needed which marks `home`, in bytes.
fn peak_memory(home: &Home, boxes: usize) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--measure-memory", &boxes.to_string()])
        .arg(home.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn high_water_mark() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--measure-memory") {
        mark(&Home::open(&PathBuf::from(&arguments[at + 2])).unwrap(), arguments[at + 1].parse().unwrap());
        println!("{}", high_water_mark());
        return;
    }
    // Without --bench, as under `cargo test --all-targets`, a small home only shows that it runs.
    let bounds = arguments.iter().any(|argument| argument == "--bench");
    let asked = arguments.iter().position(|argument| argument == "--boxes").map(|at| &arguments[at + 1]);
    let boxes = asked.map_or(if bounds { 10_000 } else { 200 }, |number| number.parse().unwrap());

    let directory = tempfile::tempdir().unwrap();
    let home = populate(&directory.path().join("home"), boxes);
    let small = populate(&directory.path().join("small"), boxes / 10);
    let headers = floor(&home);
    mark(&home, boxes);
    let mut floors = Vec::new();
    let mut marks = Vec::new();
    // In turn, so that what else the machine does hits both sides.
    for _ in 0..7 {
        floors.push(best(1, || assert_eq!(floor(&home), headers)));
        marks.push(best(1, || mark(&home, boxes)));
    }
    let (floor, mark) = (*floors.iter().min().unwrap(), *marks.iter().min().unwrap());
    let sample = boxes.min(100);
    let qemu = best(1, || {
        for index in 0..sample {
            let path = home.of_box(&id(index * (boxes / sample))).overlay();
            let info =
                Command::new("qemu-img").args(["info", "--backing-chain", "-U"]).arg(path).output().unwrap();
            assert!(info.status.success(), "{}", String::from_utf8_lossy(&info.stderr));
        }
    }) / sample as u32;
    let each = mark / boxes as u32;
    let memory = peak_memory(&home, boxes).saturating_sub(peak_memory(&small, boxes / 10)) as f64;
    let memory = memory / (boxes - boxes / 10) as f64;
    let over_floor = mark.as_secs_f64() / floor.as_secs_f64();
    let under_qemu = qemu.as_secs_f64() / each.as_secs_f64();
    println!("{boxes} boxes, {headers} headers, chains of up to {} files below the overlay", LEVELS + 1);
    println!("getdents + open + pread   {floor:>10.1?}   {:>8.2?} a box", floor / boxes as u32);
    println!(
        "the whole gc pass         {mark:>10.1?}   {each:>8.2?} a box   {over_floor:.2} times the floor (at most 3)"
    );
    println!(
        "qemu-img info             {:>10.1?}   {qemu:>8.2?} a box   {under_qemu:.0} times gc's (at least 500)",
        qemu * boxes as u32
    );
    println!("memory                    {memory:.0} bytes a box (less than 300)");
    if bounds {
        assert!(over_floor <= 3.0, "the mark takes {over_floor:.2} times the bare system calls");
        assert!(under_qemu >= 500.0, "the mark is only {under_qemu:.0} times faster than qemu-img");
        assert!(memory < 300.0, "the mark takes {memory:.0} bytes a box");
    }
}
