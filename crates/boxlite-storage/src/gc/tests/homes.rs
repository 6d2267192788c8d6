//! One name, two files: homes that were copied, moved, restored or mounted elsewhere. gc and a start mean the same
//! file by the name in a header.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use boxlite_types::GcOptions;
use boxlite_types::gc::{Fate, HolderKind, Skip};

use super::fate;
use super::place::{AGED, Place, digest};
use crate::disk::overlay;
use crate::disk::qcow2::BackingFormat::{Qcow2, Raw};

/// A home whose box `c` stands on the base `b` above the deltas `e` and `d` and the image `i`, and an orphan `o`; everything is aged and nothing
/// has a grace, so that only the chain protects what `c` needs.
fn cloned() -> Place {
    let mut place = Place::new();
    place.settings.grace.value = Duration::ZERO;
    place.image("i", 4096, AGED);
    place.image("o", 4096, AGED);
    place.delta("d", "i", AGED);
    place.delta("e", "d", AGED);
    place.base("b", &place.delta_path("e"), Qcow2, AGED);
    place.overlay("c", &place.base_path("b"), Qcow2);
    place.record("c", "none");
    place
}

/// Runs gc and asserts that the box keeps what a start of it opens, and that the orphan alone is removed.
fn assert_startable(place: &Place, how: &str) {
    let overlay = place.home.of_box("c").overlay();
    let report = place.gc(&GcOptions::default());
    assert!(!report.failed(), "{how}: {report:?}");
    let below = overlay::below(&place.home, &overlay).unwrap_or_else(|error| panic!("{how}: {error}"));
    assert_eq!(below.bases, [place.base_path("b")], "{how}");
    let image = [place.delta_path("e"), place.delta_path("d"), place.image_path("i")];
    assert_eq!(below.image, image, "{how}");
    assert!(image.iter().all(|path| path.exists()), "{how}: the disk image or a delta was removed");
    for (name, holder) in [("e", "b.qcow2".to_owned()), ("d", format!("{}.qcow2", digest("e")))] {
        let Fate::Kept { by, .. } = fate(&report, &digest(name)) else { panic!("{how}: {report:?}") };
        assert!(by.iter().any(|by| by.name == holder), "{how}: {by:?}");
    }
    let removed: Vec<_> = report.removed().map(|item| item.name.clone()).collect();
    assert_eq!(removed, [format!("{}.ext4", digest("o"))], "{how}");
    let Fate::Kept { by, .. } = fate(&report, "b.qcow2") else { panic!("{how}: {report:?}") };
    assert_eq!((by[0].name.as_str(), by[0].kind), ("c", HolderKind::Chain), "{how}");
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn copy(from: &Path, to: &Path) {
    assert!(run("cp", &["-a".as_ref(), "--sparse=always".as_ref(), from.as_ref(), to.as_ref()]));
}

/// A copy beside its original, on the same filesystem: gc in either keeps what that one's box stands on.
/// Mutation tried: following the header's absolute path alone; the copy lost its base and `c` could not start.
#[test]
fn a_copied_home_keeps_its_own_files() {
    let place = cloned();
    let other = place.beside("copy");
    copy(place.home.root(), &other);
    assert_startable(&place.same_records_at(&other), "the copy");
    assert_startable(&place, "the original");
}

/// The literal target is pinned besides the file that a start opens, where both lie in one home.
/// Mutation tried: of the two branches of a fork, the home's own alone; `renamed.qcow2` was removed.
#[test]
fn a_literal_target_in_this_home_is_pinned_too() {
    let place = cloned();
    // As by a person who renames a base by hand: the name means a file of `bases/` that is not there.
    std::fs::rename(place.base_path("b"), place.home.bases().join("renamed.qcow2")).unwrap();
    let elsewhere = place.home.root().join("attic");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(place.home.bases().join("renamed.qcow2"), elsewhere.join("b.qcow2")).unwrap();
    place.overlay("c", &elsewhere.join("b.qcow2"), Qcow2);
    let report = place.gc(&GcOptions::default());
    assert!(matches!(fate(&report, "renamed"), Fate::Kept { .. }), "{report:?}");
    assert!(place.image_path("i").exists());

    // With a file of that name in `bases/` as well, a start opens that one, and both stay.
    place.base("b", &place.image_path("i"), Raw, AGED);
    let report = place.gc(&GcOptions::default());
    assert_eq!(
        overlay::below(&place.home, &place.home.of_box("c").overlay()).unwrap().bases,
        [place.base_path("b")]
    );
    for name in ["renamed", "b.qcow2"] {
        assert!(matches!(fate(&report, name), Fate::Kept { .. }), "{report:?}");
    }
}

#[test]
fn a_moved_home_keeps_its_files() {
    let place = cloned();
    let other = place.beside("moved");
    std::fs::rename(place.home.root(), &other).unwrap();
    assert_startable(&place.same_records_at(&other), "the moved home");
}

/// A restored backup, while a home with other contents has taken the old place.
#[test]
fn a_home_restored_beside_another_keeps_its_files() {
    let place = cloned();
    let backup = place.beside("backup");
    std::fs::rename(place.home.root(), &backup).unwrap();
    // The new home at the old path has a base of the same name that stands on nothing of the backup's.
    let new = boxlite_home::Home::open(place.home.root()).unwrap();
    std::fs::write(new.disk_image(&digest("x")), b"other").unwrap();
    let head = crate::disk::qcow2::overlay_header(&new.disk_image(&digest("x")), Raw, 1 << 30).unwrap().head;
    std::fs::write(new.bases().join("b.qcow2"), head).unwrap();
    assert_startable(&place.same_records_at(&backup), "the backup");
}

/// The whole home, or parts of it, reached through symlinks.
#[test]
fn a_home_behind_symlinks_keeps_its_files() {
    let place = cloned();
    let link = place.beside("link");
    std::os::unix::fs::symlink(place.home.root(), &link).unwrap();
    for part in ["bases", "images"] {
        let real = place.beside(&format!("real-{part}"));
        std::fs::rename(place.home.root().join(part), &real).unwrap();
        std::os::unix::fs::symlink(&real, place.home.root().join(part)).unwrap();
    }
    assert_startable(&place.same_records_at(&link), "symlinked parts");
}

/// A mount for a test, unmounted at its end.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(at: &'a Path, arguments: &[&std::ffi::OsStr]) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut arguments = arguments.to_vec();
        arguments.push(at.as_ref());
        if !run("mount", &arguments) {
            assert!(std::env::var_os("CI").is_none(), "mount {arguments:?} does not work here");
            eprintln!("SKIPPED: mount {arguments:?} does not work here");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        run("umount", &["-l".as_ref(), self.0.as_ref()]);
    }
}

#[test]
fn a_bind_mounted_home_keeps_its_files() {
    let place = cloned();
    let at = place.beside("mount");
    let Some(_mounted) = Mounted::new(&at, &["--bind".as_ref(), place.home.root().as_ref()]) else { return };
    assert_startable(&place.same_records_at(&at), "the bind mount");
}

/// The headers name the lower layer's files, which are other files than the merged ones.
#[test]
fn a_home_above_an_overlayfs_layer_keeps_its_files() {
    let place = cloned();
    // An upper layer on tmpfs, since an overlayfs cannot lie on another.
    let upper = place.beside("upper");
    let Some(_tmpfs) = Mounted::new(&upper, &["-t".as_ref(), "tmpfs".as_ref(), "none".as_ref()]) else {
        return;
    };
    for directory in ["upper", "work"] {
        std::fs::create_dir(upper.join(directory)).unwrap();
    }
    let (lower, upper) = (place.home.root().display(), upper.display());
    let options = format!("lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work");
    let at = place.beside("merged");
    let arguments = ["-t", "overlay", "overlay", "-o", options.as_str()].map(std::ffi::OsStr::new);
    let Some(_merged) = Mounted::new(&at, &arguments) else { return };
    assert_startable(&place.same_records_at(&at), "the overlayfs");
    assert!(place.base_path("b").exists() && place.image_path("o").exists(), "the lower layer was changed");
}

/// The disk with the file in the middle is not mounted just now: nobody knows what that stands on.
/// Mutation tried: taking a missing qcow2 file for the end of the chain; the disk image was removed, exit status 0.
#[test]
fn a_missing_file_of_a_chain_is_unknown() {
    let place = cloned();
    let usb = place.beside("usb");
    std::fs::create_dir(&usb).unwrap();
    let middle = usb.join("mid.qcow2");
    let head = crate::disk::qcow2::overlay_header(&place.image_path("i"), Raw, 1 << 30).unwrap().head;
    std::fs::write(&middle, head).unwrap();
    std::fs::remove_file(place.base_path("b")).unwrap();
    place.overlay("c", &middle, Qcow2);
    std::fs::rename(&usb, place.beside("unplugged")).unwrap();
    let report = place.gc(&GcOptions::default());
    assert!(report.failed());
    assert_eq!(place.images(), 2, "{report:?}");
    let named = report.unreadable.iter().any(|found| found.path.ends_with("mid.qcow2"));
    assert!(named, "{:?}", report.unreadable);

    std::fs::rename(place.beside("unplugged"), &usb).unwrap();
    let report = place.gc(&GcOptions::default());
    assert!(!report.failed(), "{report:?}");
    assert_eq!((place.images(), place.image_path("i").exists()), (1, true));
}

/// A disk image that is missing stands on nothing: it is named, and what it cannot need is collected.
#[test]
fn a_missing_disk_image_is_named() {
    let place = cloned();
    std::fs::remove_file(place.image_path("i")).unwrap();
    let report = place.gc(&GcOptions::default());
    assert!(report.unreadable.iter().any(|found| found.path == place.image_path("i")), "{report:?}");
    assert_eq!(place.images(), 0);
    assert!(place.base_path("b").exists());
}

/// A base of a copy names the original's files, and these fork again at each level.
#[test]
fn forks_at_every_level_are_followed_once() {
    let place = cloned();
    let mut below = place.base_path("b");
    for level in 0..40 {
        place.base(&format!("l{level}"), &below, Qcow2, AGED);
        below = place.base_path(&format!("l{level}"));
    }
    place.overlay("c", &below, Qcow2);
    let other = place.beside("copy");
    copy(place.home.root(), &other);
    let copied = place.same_records_at(&other);
    let report = copied.gc(&GcOptions::default());
    assert!(!report.failed(), "{report:?}");
    assert_eq!(report.removed().count(), 1);
}

/// Two homes with one `bases/`: a box of the other home may stand on a base whose last box here was removed.
/// Mutations tried: the look at the directory left out; at symlinks alone (the bind mount lost its base).
#[test]
fn bases_that_another_home_may_have_stay() {
    let removed = |place: &Place, how: &str| {
        place.intend(crate::catalog::IntentKind::Base, "b.qcow2");
        for options in [super::dry_run(), GcOptions::default()] {
            let report = place.gc(&options);
            assert_eq!(super::skipped(&report, "b.qcow2"), Skip::Elsewhere, "{how}");
            assert!(matches!(fate(&report, &digest("i")), Fate::Kept { .. }), "{how}: {report:?}");
            assert!(!report.failed() && place.base_path("b").exists(), "{how}");
        }
        let purged = crate::gc::purge(&place.home, &place.catalog(), &place.settings, "b.qcow2");
        assert_eq!(purged.unwrap_err().kind(), boxlite_types::ErrorKind::Conflict, "{how}");
    };
    let gone = || {
        let place = cloned();
        std::fs::remove_dir_all(place.home.of_box("c").root()).unwrap();
        place.forget("c");
        place
    };
    let place = gone();
    let real = place.beside("shared");
    std::fs::rename(place.home.bases(), &real).unwrap();
    std::os::unix::fs::symlink(&real, place.home.bases()).unwrap();
    removed(&place, "a symlink");
    std::fs::remove_file(place.home.bases()).unwrap();
    std::fs::create_dir(place.home.bases()).unwrap();
    {
        let bases = place.home.bases();
        let Some(_mounted) = Mounted::new(&bases, &["--bind".as_ref(), real.as_ref()]) else { return };
        removed(&place, "a bind mount");
    }
    std::fs::remove_dir(place.home.bases()).unwrap();
    std::fs::rename(&real, place.home.bases()).unwrap();
    place.gc(&GcOptions::default());
    assert!(!place.base_path("b").exists() && !place.image_path("i").exists());
}
