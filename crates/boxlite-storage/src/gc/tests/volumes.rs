//! Named volumes: nobody's garbage, unless an intent says so.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use boxlite_home::durable::Lock;
use boxlite_types::gc::{Fate, Skip};
use boxlite_types::{ErrorKind, GcOptions, VolumeDescription};
use jiff::Timestamp;

use super::place::{AGED, Place, du};
use super::{dry_run, fate, skipped};
use crate::catalog::IntentKind;
use crate::gc::purge;

const ID: &str = "00000000000000000000000000000001";

/// A volume as the home has it, with so many bytes.
fn volume(place: &Place, name: &str, id: &str, bytes: usize) {
    let paths = place.home.of_volume(name);
    std::fs::create_dir_all(paths.root()).unwrap();
    let described = VolumeDescription {
        format: VolumeDescription::FORMAT,
        id: id.to_owned(),
        name: name.to_owned(),
        size: 32 << 20,
        labels: BTreeMap::new(),
        created_at: Timestamp::now(),
    };
    std::fs::write(paths.description(), serde_json::to_vec(&described).unwrap()).unwrap();
    std::fs::write(paths.disk(), vec![7; bytes]).unwrap();
    for path in [paths.description(), paths.disk(), paths.root().to_owned()] {
        place.age(&path, AGED);
    }
}

/// Mutations tried: taking every volume without the look at intents for removed; taking an intent by the volume's name.
#[test]
fn a_volume_goes_on_an_intent_with_its_id_alone() {
    let place = Place::new();
    volume(&place, "data", ID, 4096);
    place.intend(IntentKind::Volume, "data");
    place.intend(IntentKind::Box, ID);
    for options in [dry_run(), GcOptions::default(), GcOptions { all: true, ..GcOptions::default() }] {
        let report = place.gc(&options);
        assert_eq!((report.volumes.len(), report.failed()), (0, false), "{report:#?}");
    }
    assert!(place.home.of_volume("data").disk().exists());
    place.intend(IntentKind::Volume, ID);
    let before = du(place.home.of_volume("data").root());
    assert!(matches!(fate(&place.gc(&dry_run()), "data"), Fate::Removed { .. }));
    let report = place.gc(&GcOptions::default());
    assert_eq!((report.removed().count(), report.reclaimed), (1, before), "{report:#?}");
    assert!(!place.home.of_volume("data").root().exists());
    assert!(!place.intents().contains(&(IntentKind::Volume, ID.to_owned())));
    assert_eq!(place.gc(&GcOptions::default()).reclaimed, 0);
}

/// Mutation tried: leaving out the look at the disk's lock.
#[test]
fn what_is_attached_or_being_recorded_stays() {
    let place = Place::new();
    volume(&place, "data", ID, 4096);
    place.intend(IntentKind::Volume, ID);
    let paths = place.home.of_volume("data");
    for path in [paths.disk(), paths.root().to_owned()] {
        let file = std::fs::File::open(&path).unwrap();
        let held = Lock::try_shared_on(file, &path).unwrap().unwrap();
        assert_eq!(skipped(&place.gc(&GcOptions::default()), "data"), Skip::InUse);
        drop(held);
    }
    assert_eq!(place.gc(&GcOptions::default()).removed().count(), 1);
}

/// Mutation tried: an entry without a description counts as one that is to be removed.
#[test]
fn what_nothing_explains_is_kept_shown_and_purged_by_name_alone() {
    let place = Place::new();
    let volumes = place.home.volumes();
    volume(&place, "moved", ID, 4096);
    std::fs::rename(volumes.join("moved"), volumes.join("elsewhere")).unwrap();
    std::fs::create_dir(volumes.join("empty")).unwrap();
    std::fs::write(volumes.join("file"), "x").unwrap();
    symlink("/etc", volumes.join("link")).unwrap();
    std::fs::create_dir(volumes.join(".hidden")).unwrap();
    volume(&place, "newer", "00000000000000000000000000000002", 4096);
    let newer = place.home.of_volume("newer").description();
    std::fs::write(&newer, std::fs::read_to_string(&newer).unwrap().replace("\"format\":1", "\"format\":2"))
        .unwrap();
    for id in [ID, "00000000000000000000000000000002"] {
        place.intend(IntentKind::Volume, id);
    }
    for options in [dry_run(), GcOptions::default(), GcOptions { all: true, ..GcOptions::default() }] {
        let report = place.gc(&options);
        for name in [".hidden", "elsewhere", "empty", "file", "link", "newer"] {
            assert_eq!(skipped(&report, name), Skip::Unexplained);
        }
        assert_eq!(report.removed().count(), 0, "{report:#?}");
    }
    assert_eq!(place.intents().len(), 2, "an intent stays as long as its volume may be there");
    let purge =
        |name: &str| purge(&place.home, &place.catalog(), &place.settings, name).map_err(|e| e.kind());
    assert!(purge("volumes/empty").is_ok());
    assert_eq!(purge("volumes/file"), Err(ErrorKind::Corrupt));
    assert_eq!(purge("volumes/link"), Err(ErrorKind::Corrupt));
    assert_eq!(purge("volumes/../boxes"), Err(ErrorKind::InvalidInput));
    assert_eq!(purge("volumes/none"), Err(ErrorKind::NotFound));
    volume(&place, "data", "00000000000000000000000000000003", 4096);
    assert_eq!(purge("volumes/data"), Err(ErrorKind::Conflict));
    assert!(volumes.join("link").is_symlink() && volumes.join("file").exists());
}
