//! The cache of boot files: which are removed, which stay, and that no start loses those that it found.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use boxlite_home::admission::{Goal, Missing};
use boxlite_home::lease::Leased;
use boxlite_types::gc::{Fate, Skip};
use boxlite_types::{GcOptions, GcReport, Verdict};
use boxlite_vm::guest::{BootSources, GuestDevices, boot_files};

use super::super::usage;
use super::place::{FRESH, Place, du};
use super::{dry_run, skipped};

const HOUR: Duration = Duration::from_secs(3600);

fn put(place: &Place, name: &str, used: Duration) -> PathBuf {
    let path = place.home.vm().join(name);
    std::fs::write(&path, vec![1; 8192]).unwrap();
    place.used(&path, used);
    path
}

fn named(kind: &str, digit: char) -> String {
    format!("{kind}-{}", String::from(digit).repeat(24))
}

fn removed(report: &GcReport) -> Vec<&str> {
    let removed = report.boot_files.iter().filter(|item| matches!(item.fate, Fate::Removed { .. }));
    removed.map(|item| item.name.as_str()).collect()
}

/// Mutations tried: no last of its kind, the modification time for the last use, any name that begins with `vmlinux`.
#[test]
fn what_was_booted_within_a_day_and_the_last_of_each_kind_stay() {
    let place = Place::new();
    put(&place, &named("vmlinux", 'a'), 30 * HOUR);
    put(&place, &named("vmlinux", 'b'), HOUR);
    put(&place, &named("vmlinux", 'c'), 25 * HOUR);
    put(&place, &named("initramfs-bn", 'a'), 40 * HOUR);
    put(&place, &named("initramfs-b", 'a'), 40 * HOUR);
    put(&place, &named("initramfs-b", 'b'), 45 * HOUR);
    let foreign = [
        "host.json",
        "vmlinux-mine",
        "vmlinux-AAAAAAAAAAAAAAAAAAAAAAAA",
        "initramfs--000000000000000000000000",
    ];
    for name in foreign {
        put(&place, name, 100 * HOUR);
    }
    std::fs::create_dir(place.home.vm().join(named("vmlinux", 'd'))).unwrap();
    let fresh = put(&place, &named("initramfs-bs", 'a'), 48 * HOUR);
    place.age(&fresh, FRESH);

    let plan = place.gc(&dry_run());
    let space =
        usage(&place.home, &place.catalog(), &place.settings, &std::collections::BTreeSet::new()).unwrap();
    let directory = std::fs::metadata(place.home.vm()).unwrap().blocks() * 512;
    assert_eq!(space.boot_files.allocated, du(&place.home.vm()) - directory);
    assert_eq!((space.boot_files.count, space.boot_files.reclaimable), (12, 3 * 8192));
    let report = place.gc(&GcOptions::default());
    assert!(!report.failed(), "{report:?}");
    assert_eq!(plan.boot_files, report.boot_files);
    assert_eq!(removed(&report), [named("initramfs-b", 'b'), named("vmlinux", 'a'), named("vmlinux", 'c')]);
    assert_eq!(report.reclaimed, 3 * 8192);
    assert_eq!(skipped(&report, &named("vmlinux", 'b')), Skip::Recent);
    assert_eq!(skipped(&report, &named("initramfs-bn", 'a')), Skip::Current);
    assert_eq!(skipped(&report, &named("initramfs-bs", 'a')), Skip::Grace);
    assert!(foreign.iter().all(|name| place.home.vm().join(name).exists()));
    assert_eq!(place.gc(&GcOptions::default()).reclaimed, 0);

    let all = place.gc(&GcOptions { all: true, ..GcOptions::default() });
    assert_eq!(removed(&all), [named("initramfs-b", 'a'), named("initramfs-bn", 'a')]);
}

/// Mutation tried: removing what somebody has locked.
#[test]
fn a_leased_boot_file_is_in_use() {
    let place = Place::new();
    let leased = put(&place, &named("vmlinux", 'a'), 48 * HOUR);
    put(&place, &named("vmlinux", 'b'), 47 * HOUR);
    let lease = Leased::acquire(&leased).unwrap().unwrap();
    assert_eq!(skipped(&place.gc(&GcOptions::default()), &named("vmlinux", 'a')), Skip::InUse);
    drop(lease);
    let until = GcOptions { until: Some(50 * HOUR), ..GcOptions::default() };
    assert_eq!(skipped(&place.gc(&until), &named("vmlinux", 'a')), Skip::Recent);
    assert_eq!(removed(&place.gc(&GcOptions::default())), [named("vmlinux", 'a')]);
}

#[test]
fn automatic_gc_leaves_boot_files_once_it_has_reached_its_goal() {
    let place = Place::new();
    put(&place, &named("vmlinux", 'a'), 48 * HOUR);
    put(&place, &named("vmlinux", 'b'), 47 * HOUR);
    let goal = Goal { keep: &[], missing: &Missing::default, outlook: &|_| Verdict::Ok };
    let report = place.gc_for(&goal, Verdict::Ok, false);
    assert_eq!(skipped(&report, &named("vmlinux", 'a')), Skip::Enough);
    assert_eq!(removed(&place.gc(&GcOptions::default())), [named("vmlinux", 'a')]);
}

/// Mutations tried: a day for templates under pressure as well; no day where only the free share is small.
#[test]
fn templates_go_sooner_where_space_is_short() {
    let place = Place::new();
    put(&place, &named("template-b", 'a'), HOUR);
    put(&place, &named("template-b", 'b'), 2 * HOUR);
    put(&place, &named("initramfs-b", 'a'), 2 * HOUR);
    let just = put(&place, &named("template-bn", 'c'), 2 * HOUR);
    place.used(&just, FRESH);
    let pass = |missing: Missing, dry_run| {
        let (missing, outlook) = (move || missing, |_| Verdict::Warn);
        let goal = Goal { keep: &[], missing: &missing, outlook: &outlook };
        place.gc_for(&goal, Verdict::Ok, dry_run)
    };
    let short = Missing { bytes: u64::MAX, ..Missing::default() };
    assert_eq!(removed(&pass(Missing { share_only: true, ..short }, true)), Vec::<&str>::new());
    assert_eq!(removed(&place.gc(&dry_run())), Vec::<&str>::new());
    let report = pass(short, false);
    assert_eq!(removed(&report), [named("template-b", 'a'), named("template-b", 'b')]);
    assert_eq!(skipped(&report, &named("template-bn", 'c')), Skip::Recent);
}

/// Starts that find boot files aged for days race gc for them; whoever leased one finds it at its path.
/// Mutations tried: gc removes what is locked; no look at the path after leasing; two makers at once.
#[test]
fn a_start_never_loses_the_boot_files_it_found() {
    let place = Place::new();
    let kernel_dir = place.home.root().join("kernel");
    let agent = place.home.root().join("agent");
    std::fs::create_dir_all(kernel_dir.join("modules")).unwrap();
    let mut elf = vec![0; 4096];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 62;
    std::fs::write(kernel_dir.join("vmlinuz"), &elf).unwrap();
    std::fs::write(&agent, &elf).unwrap();
    let built_in = "x/virtio_mmio.ko\nx/virtio_console.ko\nx/virtio_blk.ko\n";
    std::fs::write(kernel_dir.join("modules/modules.builtin"), built_in).unwrap();
    let sources = BootSources { kernel_dir, agent };
    let all = GcOptions { all: true, ..GcOptions::default() };
    let gone = AtomicUsize::new(0);
    let began = Instant::now();
    let goes_on = || gone.load(Ordering::Relaxed) < 20 && began.elapsed() < Duration::from_secs(120);
    std::thread::scope(|scope| {
        let start = || {
            while goes_on() {
                let found =
                    boot_files(&sources, GuestDevices::default(), &place.home.vm(), &place.home.tmp())
                        .unwrap();
                // As gc finds them days later, while they are held.
                for lease in &found.leases {
                    let long_ago = std::time::SystemTime::now() - 48 * HOUR;
                    let times = std::fs::FileTimes::new().set_accessed(long_ago).set_modified(long_ago);
                    lease.file().set_times(times).unwrap();
                }
                std::thread::yield_now();
                assert!(found.kernel.exists() && found.initramfs.exists());
                drop(found);
                // Without a pause one of the two holds a lease nearly always.
                std::thread::sleep(Duration::from_micros(500));
            }
        };
        scope.spawn(start);
        scope.spawn(start);
        scope.spawn(|| {
            while goes_on() {
                let report = place.gc(&all);
                assert!(report.failures.is_empty(), "{report:?}");
                gone.fetch_add(removed(&report).len(), Ordering::Relaxed);
            }
        });
    });
    assert!(gone.into_inner() >= 20);
}
