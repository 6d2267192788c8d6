//! Tests of notes about what is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use boxlite_home::durable::{Lock, StagedDir};
use boxlite_home::{BoxPaths, is_id};
use boxlite_types::GcOptions;

use super::dry_run;
use super::place::{AGED, FRESH, Place};
use crate::catalog::IntentKind::{Base, Box as OfBox};
use crate::disk::qcow2::BackingFormat::Raw;
use crate::gc::{Catalog, collect};
use crate::store::Store;

const GONE: &str = "0123456789abcdef0123456789abcdef";
const THERE: &str = "fedcba9876543210fedcba9876543210";

fn noted() -> Place {
    let place = Place::new();
    place.image("i", 4096, AGED);
    place.overlay(THERE, &place.image_path("i"), Raw);
    place.unexplained_base("there", &place.image_path("i"), Raw, FRESH);
    for (kind, id) in [(OfBox, GONE), (OfBox, THERE), (Base, "gone.qcow2"), (Base, "there.qcow2")] {
        place.intend(kind, id);
    }
    place.use_base("gone");
    place.use_base("there");
    place
}

/// They stayed for ever. Mutations tried: no look at what is being made; dropping what is there; dropping in a pass
/// that was blind.
#[test]
fn notes_about_what_is_gone_are_dropped_by_a_pass_that_sees_everything() {
    let kept = |place: &Place| (place.intents().len(), place.used_bases().len());
    let place = noted();
    place.gc(&dry_run());
    assert_eq!(kept(&place), (4, 2), "a dry run");

    let staged = StagedDir::create(&place.home.tmp()).unwrap();
    place.gc(&GcOptions::default());
    assert_eq!(kept(&place), (4, 2), "a box is being made");
    drop(staged);

    let broken = place.base_path("broken");
    std::fs::write(&broken, b"QFI").unwrap();
    assert!(place.gc(&GcOptions::default()).failed());
    assert_eq!(kept(&place), (4, 2), "a blind pass");
    std::fs::remove_file(broken).unwrap();

    place.gc(&GcOptions::default());
    let left = [(OfBox, THERE.to_owned()), (Base, "there.qcow2".to_owned())];
    assert_eq!((place.intents(), place.used_bases()), (left.into(), vec!["there.qcow2".to_owned()]));
}

/// A box has its intent from before it exists until it has its record, whatever gc does at the same time. The maker
/// takes the steps of `create`.
/// Mutations tried: no look at what is being made; the look before the notes are read; the intent written before the
/// directory is staged.
#[test]
fn no_intent_of_a_box_that_is_being_made_is_dropped() {
    let mut place = Place::new();
    place.settings.grace.value = std::time::Duration::ZERO;
    let store = Arc::new(Store::open_in(&place.home).unwrap());
    let catalog: Arc<dyn Catalog> = Arc::clone(&store) as Arc<dyn Catalog>;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    collect(&place.home, &catalog, &place.settings, &GcOptions::default()).unwrap();
                }
            });
        }
        let maker = scope.spawn(|| {
            for _ in 0..150 {
                let id = uuid::Uuid::new_v4().simple().to_string();
                assert!(is_id(&id));
                let staged = StagedDir::create(&place.home.tmp()).unwrap();
                let lock = Lock::exclusive(&BoxPaths::new(staged.path().to_owned()).state_lock()).unwrap();
                store.intend(OfBox, &id, "its creation was cut short").unwrap();
                staged.publish(place.home.of_box(&id).root()).unwrap();
                assert!(store.has_intent(OfBox, &id).unwrap(), "a kill here would leave an unexplained box");
                lock.release();
            }
        });
        let made = maker.join();
        over.store(true, Ordering::Relaxed);
        made.unwrap();
    });
    collect(&place.home, &catalog, &place.settings, &GcOptions::default()).unwrap();
    collect(&place.home, &catalog, &place.settings, &GcOptions::default()).unwrap();
    let mut left = 0;
    catalog.intents(&mut |_| left += 1).unwrap();
    assert_eq!((left, std::fs::read_dir(place.home.boxes()).unwrap().count()), (0, 0));
}
