//! A real, small ext4 that fills up: Ok → Warn, with gc freeing enough → Reject; and gc where it is full.
//!
//! The filesystem is made here where this user may mount one, or named by `BOXLITE_DISKTEST_HOME`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxlite_home::Home;
use boxlite_home::admission::{Admission, Claims, SpaceGuard, StartAdmission};
use boxlite_home::settings::{Bytes, Percent, Settings, SettingsOptions, SettingsVariables};
use boxlite_storage::gc::{Automatic, Catalog};
use boxlite_testkit::filesystem::SmallFilesystem;
use boxlite_types::{ErrorKind, GcOptions, Result, Verdict};

use crate::catalog::NumberedBoxes;
use crate::place::{age, collect, digest, images};

const MIB: u64 = 1 << 20;
const LARGEST: u64 = 8 << 30;

enum Disk {
    Mounted(SmallFilesystem),
    Named(PathBuf),
}

impl Disk {
    fn get() -> Option<Self> {
        if let Some(named) = std::env::var_os("BOXLITE_DISKTEST_HOME") {
            let named = PathBuf::from(named);
            let total = boxlite_home::durable::free_space(&named).unwrap().bytes_total;
            assert!(
                total <= LARGEST,
                "BOXLITE_DISKTEST_HOME lies on {total} bytes; it is filled, so at most 8 GiB"
            );
            return Some(Self::Named(named));
        }
        SmallFilesystem::ext4(1536 * MIB, &["-m", "0", "-N", "8192"]).map(Self::Mounted)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Mounted(filesystem) => filesystem.path(),
            Self::Named(path) => path,
        }
    }
}

fn free(home: &Home) -> u64 {
    boxlite_home::durable::free_space(home.root()).unwrap().bytes
}

fn allocate(path: &Path, bytes: u64) -> bool {
    let file = File::options().create(true).append(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), length, bytes).is_ok()
}

/// Grows the filler until `target` bytes are free, or nothing more can be had.
fn fill_to(home: &Home, target: u64) {
    let filler = home.root().join("filler");
    let mut most = u64::MAX;
    while free(home) > target + 4096 * 8 && most > 4096 {
        let bytes = (free(home) - target).min(most);
        if !allocate(&filler, bytes) {
            most = bytes / 2;
        }
    }
}

fn orphan(home: &Home, index: u64, bytes: u64) {
    let path = home.disk_image(&digest(index));
    assert!(allocate(&path, bytes));
    age(&path);
}

fn admit(home: &Home, settings: &Settings) -> Result<Admission> {
    let catalog: Arc<dyn Catalog> = Arc::new(NumberedBoxes::none());
    let collector = Automatic::new(home.clone(), catalog, settings.clone());
    let keep = [digest(0)];
    let claim = settings.claim.value.0;
    StartAdmission { home, settings, claim, reads_only: false, also: &[], keep: &keep }.run(&collector)
}

#[test]
fn a_filling_disk_goes_from_ok_over_warn_to_reject() {
    let Some(disk) = Disk::get() else { return };
    let home = Home::open(&disk.path().join("home")).unwrap();
    let options = SettingsOptions {
        soft_floor: Some(Bytes(1200 * MIB)),
        soft_percent: Some(Percent(0)),
        inode_floor: Some(100),
        ..SettingsOptions::default()
    };
    let settings = Settings::load(&home, &SettingsVariables::default(), &options).unwrap();
    // The image that the start is about to use, and three unneeded ones.
    orphan(&home, 0, MIB);
    for index in 1..=3 {
        orphan(&home, index, 50 * MIB);
    }
    fill_to(&home, 1210 * MIB);
    let admitted = admit(&home, &settings).unwrap();
    assert_eq!((admitted.verdict(), images(&home)), (Verdict::Ok, 4));
    drop(admitted);

    fill_to(&home, 1130 * MIB);
    let before = free(&home);
    let admitted = admit(&home, &settings).unwrap();
    assert_eq!(admitted.verdict(), Verdict::Ok);
    let collected = admitted.collected().unwrap();
    assert!(collected.ran && collected.failures.is_empty());
    assert_eq!(images(&home), 2, "two of 50 MiB are enough for 70, the start's own stays");
    let grown = free(&home) - before;
    assert!(
        grown.abs_diff(collected.bytes) <= MIB,
        "df grew by {grown}, the report says {}",
        collected.bytes
    );
    drop(admitted);

    fill_to(&home, 1100 * MIB);
    let admitted = admit(&home, &settings).unwrap();
    assert_eq!((admitted.verdict(), images(&home)), (Verdict::Warn, 1));
    assert!(!admitted.notices().is_empty());
    drop(admitted);

    // Refused whatever gc does: it does nothing, and the refusal says how little it could. Once that is enough, it does.
    orphan(&home, 3, 20 * MIB);
    fill_to(&home, 1024 * MIB - 60 * MIB);
    let refused = admit(&home, &settings).unwrap_err();
    let reclaimable = refused.shortage().unwrap().reclaimable.unwrap();
    assert!(reclaimable.abs_diff(20 * MIB) <= MIB, "{reclaimable}");
    assert_eq!(images(&home), 2, "an image was evicted in vain");
    std::fs::remove_file(home.root().join("filler")).unwrap();
    fill_to(&home, 1024 * MIB - 10 * MIB);
    let admitted = admit(&home, &settings).unwrap();
    assert_eq!((admitted.verdict(), images(&home)), (Verdict::Warn, 1));
    drop(admitted);

    fill_to(&home, 1024 * MIB - 4096 * 16);
    let before = std::fs::read_dir(home.root()).unwrap().count();
    let refused = admit(&home, &settings).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ResourceExhausted);
    let shortage = refused.shortage().unwrap();
    assert_eq!((shortage.need, shortage.have, shortage.inodes), (1024 * MIB, free(&home), false));
    assert_eq!(shortage.reclaimable, Some(0));
    assert_eq!(images(&home), 1, "the image that the start is about to use was collected");
    assert_eq!(std::fs::read_dir(home.root()).unwrap().count(), before);
    assert_eq!(Claims::open(&home).unwrap().promised().unwrap(), 0);
    let guard = SpaceGuard::new(&home, &settings).unwrap();
    assert_eq!(guard.check_before(1).unwrap_err().kind(), ErrorKind::ResourceExhausted);

    // Full of inodes, and then of bytes: gc frees all the same.
    orphan(&home, 4, 20 * MIB);
    let inodes = home.root().join("inodes");
    std::fs::create_dir(&inodes).unwrap();
    let mut made = 0;
    while File::create(inodes.join(made.to_string())).is_ok() {
        made += 1;
    }
    fill_to(&home, 0);
    let full = boxlite_home::durable::free_space(home.root()).unwrap();
    assert!(full.inodes == 0 && full.bytes < MIB, "{full:?}");
    let report = collect(&home, &GcOptions::default());
    assert!(!report.failed(), "{report:?}");
    assert!(!home.disk_image(&digest(4)).exists() && free(&home) >= 20 * MIB);
    assert_eq!(collect(&home, &GcOptions::default()).reclaimed, 0);
    std::fs::remove_file(home.root().join("filler")).unwrap();
    std::fs::remove_dir_all(&inodes).unwrap();
}
