//! Three files of any bytes that may name each other: following a chain ends, whatever they say.
#![no_main]

use boxlite_storage::disk::qcow2::{BackingDirectories, Chains};
use boxlite_storage::disk::qcow2::chain::{DEEPEST, follow_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|files: (Vec<u8>, Vec<u8>, Vec<u8>)| {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let names = ["a", "b", "c"].map(|name| directory.path().join(name));
    for (path, bytes) in names.iter().zip([files.0, files.1, files.2]) {
        std::fs::write(path, bytes).expect("a file");
    }
    // A directory of the same files under other names, so that chains fork.
    let home = BackingDirectories { raw: directory.path().join("home"), qcow2: directory.path().join("home") };
    std::fs::create_dir(&home.raw).expect("a directory");
    std::fs::copy(&names[1], home.raw.join("a")).expect("a copy");
    std::fs::copy(&names[2], home.raw.join("b")).expect("a copy");
    let mut chains = Chains::new(Some(home));
    for path in &names {
        if let Ok(Some(followed)) = follow_file(&mut chains, path) {
            assert!(chains.below(followed.backing).0.len() <= 4 * DEEPEST);
        }
    }
});
