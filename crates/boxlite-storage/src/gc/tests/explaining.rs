//! Why something stays, how much is to be freed, and the second derivation.

use std::path::Path;
use std::time::Duration;

use boxlite_types::GcOptions;
use boxlite_types::gc::{Fate, HolderKind, Skip, SubjectKind};

use super::place::{AGED, FRESH, Place, digest, du, has_qemu_img};
use super::{dry_run, fate, skipped};
use crate::disk::qcow2::BackingFormat::{Qcow2, Raw};
use crate::gc::plan::GcPlan;
use crate::gc::rules::{GcScope, Rules};
use crate::gc::{collect, explain};

/// Mutations tried: no `needs`; a grace that ends at once.
#[test]
fn an_explanation_says_who_pins_what_and_until_when() {
    let place = Place::new();
    place.image("i", 4096, AGED);
    place.image("o", 4096, AGED);
    place.image("f", 4096, FRESH);
    place.base("b", &place.image_path("i"), Raw, AGED);
    place.overlay("one", &place.base_path("b"), Qcow2);
    place.record("one", "i");
    let explain =
        |name: &str| explain(&place.home, &place.catalog(), &place.settings, &[name.to_owned()]).unwrap();
    let image = explain(&digest("i"));
    assert_eq!((image.subjects.len(), image.subjects[0].kind), (1, SubjectKind::DiskImage));
    let Fate::Kept { by, holders: 3 } = &image.subjects[0].item.fate else { panic!("{image:?}") };
    let kinds: Vec<_> = by.iter().map(|holder| (holder.name.as_str(), holder.kind)).collect();
    let expected = [("one", HolderKind::Record), ("one", HolderKind::Chain), ("b.qcow2", HolderKind::Base)];
    assert_eq!(kinds, expected);
    assert_eq!(image.subjects[0].eligible_at, None);

    let needs: Vec<_> = explain("one").needs.into_iter().map(|needed| needed.kind).collect();
    assert_eq!(needs, [SubjectKind::Base, SubjectKind::DiskImage]);
    assert_eq!(explain("b.qcow2").needs.len(), 1);

    let fresh = explain(&digest("f")).subjects.remove(0);
    let grace = place.settings.grace.value.as_secs().cast_signed();
    assert_eq!(fresh.eligible_at, Some(fresh.item.modified + grace));
    let orphan = explain(&digest("o")).subjects.remove(0);
    assert!(matches!(orphan.item.fate, Fate::Removed { .. }) && orphan.eligible_at.is_some());
    assert_eq!(explain("nothing has this name").subjects, []);
}

/// Mutations tried: not counting garbage; one disk image more than is asked for.
#[test]
fn free_stops_once_enough_was_freed() {
    let place = Place::new();
    for (index, name) in ["old", "middle", "new"].into_iter().enumerate() {
        place.image(name, 8192, AGED);
        let ago = 90_000 - 1_000 * index as u64;
        place.used(&place.image_path(name), std::time::Duration::from_secs(ago));
    }
    let blob = du(&place.blob("loose", AGED));
    for (free, images) in
        [(0, 0), (1, 0), (blob, 0), (blob + 1, 1), (blob + 8192, 1), (blob + 8193, 2), (1 << 40, 3)]
    {
        let report = place.gc(&GcOptions { free: Some(free), ..dry_run() });
        let gone = report.disk_images.iter().filter(|item| matches!(item.fate, Fate::Removed { .. }));
        assert_eq!(gone.count(), images, "{free}");
        assert!(report.reclaimed >= free.min(blob + 3 * 8192), "{free}");
    }
    let report = place.gc(&GcOptions { free: Some(blob + 1), ..GcOptions::default() });
    assert!(matches!(fate(&report, &digest("old")), Fate::Removed { .. }));
    assert_eq!(skipped(&report, &digest("new")), Skip::Enough);
}

/// The two derivations agree on every home of these tests ([`Place::gc`] compares them), so that orphans go; a
/// disagreement keeps everything. Mutation tried: removing what qemu-img knows to be needed; the disk image was lost.
#[test]
fn nothing_is_removed_unless_qemu_img_agrees() {
    if !has_qemu_img() {
        return;
    }
    let place = Place::new();
    place.sparse_image("i", 1 << 30, AGED);
    place.image("o", 4096, AGED);
    let (image, base) = (place.image_path("i"), place.base_path("b"));
    make_overlay(&base, "raw", &image);
    place.age(&base, AGED);
    std::fs::create_dir_all(place.home.of_box("one").disks()).unwrap();
    make_overlay(&place.home.of_box("one").overlay(), "qcow2", &base);
    let report = place.verified(&GcOptions::default());
    assert!(!report.failed(), "{report:?}");
    assert_eq!((report.removed().count(), place.images()), (1, 1));

    // A header that our reader believes and qemu-img does not: reference counts of 2^99 bits.
    place.image("o", 4096, AGED);
    let two = place.overlay("two", &place.image_path("i"), Raw);
    let mut bytes = std::fs::read(&two).unwrap();
    bytes[96..100].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(&two, bytes).unwrap();
    assert!(!collect(&place.home, &place.catalog(), &place.settings, &dry_run()).unwrap().failed());
    let report = place.verified(&GcOptions::default());
    assert!(report.failed());
    assert_eq!((report.removed().count(), place.images()), (0, 2), "{report:?}");
    let named = report.unreadable.iter().any(|found| found.path == two);
    assert!(named, "{report:?}");
}

/// Mutation tried: qemu-img left to read as it does; the base counted as used just now.
#[test]
fn a_verification_is_no_use_of_a_file() {
    if !has_qemu_img() {
        return;
    }
    let place = Place::new();
    place.sparse_image("i", 1 << 30, AGED);
    place.base("b", &place.image_path("i"), Raw, AGED);
    place.used(&place.base_path("b"), AGED + Duration::from_secs(60));
    let accessed = || std::fs::metadata(place.base_path("b")).unwrap().accessed().unwrap();
    let before = accessed();
    assert!(!place.verified(&dry_run()).failed());
    assert_eq!(accessed(), before);
}

/// Makes an overlay as `qemu-img` makes one.
fn make_overlay(overlay: &Path, format: &str, backing: &Path) {
    let output = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
        .args([backing, overlay])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A plan whose marks are wrong: it would remove a base, or the disk image below it, that a box stands on.
/// Mutation tried: asking only whether the marks reached the file.
#[test]
fn a_wrong_mark_is_noticed_before_anything_is_removed() {
    if !has_qemu_img() {
        return;
    }
    let place = Place::new();
    place.image("i", 4096, AGED);
    place.image("o", 4096, AGED);
    place.base("b", &place.image_path("i"), Raw, AGED);
    place.overlay("one", &place.base_path("b"), Qcow2);
    place.record("one", "none");
    for wrong in [digest("i"), "b.qcow2".to_owned()] {
        let (catalog, rules) = (place.catalog(), Rules::new(&place.settings, &GcOptions::default(), &[]));
        let scope = GcScope { home: &place.home, catalog: &*catalog, rules };
        let mut plan = GcPlan::make(&scope);
        let at = plan.settled.iter().position(|planned| planned.item.name.starts_with(&wrong)).unwrap();
        let planned = plan.settled.remove(at);
        plan.candidates.push(planned.with(Fate::Removed { reason: "a wrong mark".to_owned() }));
        let read = |disk: &Path, format: Option<&str>| {
            Ok(boxlite_vm::qemu_img::backing(disk, format)?.map(|below| (below.path, below.format)))
        };
        plan.verify(&scope, &read).unwrap();
        assert!(plan.candidates.is_empty(), "{wrong}: {:?}", plan.candidates);
        assert!(plan.unreadable.iter().any(|found| found.reason.contains("stands on it")), "{wrong}");
    }
}
