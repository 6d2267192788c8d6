use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use boxlite_types::ErrorKind;

use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

/// Mutation tried: `check_privacy` left out of `Home::open`.
#[test]
fn a_home_is_closed_to_other_users() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("new");
    Home::open(&root).unwrap();
    assert_eq!(mode(&root), 0o700);
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o2755)).unwrap();
    Home::open(&root).unwrap();
    assert_eq!(mode(&root), 0o2700);
}

/// Needs root, who can give files away. Mutation tried: `check_privacy` left out of `Home::open`.
#[test]
fn a_home_of_another_user_is_refused_as_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("theirs");
    std::fs::create_dir(&root).unwrap();
    if chown(&root, Some(12_345), None).is_err() {
        eprintln!("skipped: this user cannot give a directory away");
        return;
    }
    let error = Home::open(&root).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("belongs to user 12345"), "{error}");
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "nothing was made in it");
}

/// A delta is published by a rename, as a disk image is. Mutation tried: `deltas` left out of `check_filesystem`.
#[test]
fn deltas_lie_on_the_filesystem_of_their_home() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("home");
    let home = Home::open(&root).unwrap();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    if device(elsewhere.path()) == device(&root) {
        return;
    }
    std::os::unix::fs::symlink(elsewhere.path(), home.deltas()).unwrap();
    let error = Home::open(&root).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("images/deltas lies on another filesystem"), "{error}");
}
