use super::*;

/// Mutation tried: `make_private` and `ensure_file` left out of `Store::open_as`.
#[test]
fn only_its_owner_reads_the_database_and_its_journal() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let scratch = tempfile::tempdir().unwrap();
    let files = ["boxlite.db", "boxlite.db-journal"].map(|name| scratch.path().join(name));
    let modes = || files.clone().map(|file| std::fs::metadata(file).unwrap().mode() & 0o777);
    Store::open(&files[0]).unwrap();
    assert_eq!(modes(), [0o600; 2]);
    for file in &files {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    Store::open(&files[0]).unwrap();
    assert_eq!(modes(), [0o600; 2]);
}
