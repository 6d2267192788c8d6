//! Three files of any bytes that may name each other: following a chain ends, whatever they say.
#![no_main]

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;

use boxlite_storage::disk::qcow2::{BackingDirectories, Chains};
use boxlite_storage::disk::qcow2::chain::DEEPEST;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|files: (Vec<u8>, Vec<u8>, Vec<u8>)| {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let names = ["a", "b", "c"];
    for (name, bytes) in names.iter().zip([files.0, files.1, files.2]) {
        std::fs::write(directory.path().join(name), bytes).expect("a file");
    }
    // A directory of the same files under other names, so that chains fork.
    let own = || directory.path().join("home");
    let home = BackingDirectories { raw: own(), deltas: own(), bases: own() };
    std::fs::create_dir(&home.raw).expect("a directory");
    std::fs::copy(directory.path().join("b"), home.raw.join("a")).expect("a copy");
    std::fs::copy(directory.path().join("c"), home.raw.join("b")).expect("a copy");
    let opened = File::open(directory.path()).expect("a directory");
    let mut chains = Chains::new(Some(home));
    for name in names {
        let path = || directory.path().join(name);
        let name = CString::new(name).expect("a name");
        if let Ok(Some(followed)) = chains.follow(opened.as_fd(), &name, &path) {
            assert!(chains.below(followed.backing).0.len() <= 4 * DEEPEST);
        }
    }
});
