//! Tests the agent in a real guest: QEMU, a real kernel, a real root filesystem.
//!
//! Oracles: busybox inside, `e2fsck` and SHA-256 outside. Most tests share one guest and run in it at the same time,
//! which is a test in itself.

mod copy;
mod exec;
mod lifecycle;
mod machine;
mod streams;

use std::sync::OnceLock;

use boxlite_testkit::oracle;
use machine::Machine;

/// Whether this machine can run the tests. Prints why not, and panics where CI says that it must be able to.
fn able() -> bool {
    match machine::missing() {
        None => true,
        Some(reason) => {
            oracle::skip(reason);
            false
        }
    }
}

/// The guest that most tests share.
fn shared() -> Option<&'static Machine> {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    able().then(|| {
        MACHINE.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap().keep();
            let image = directory.join("root.ext4");
            machine::root_image(&image, 256, |_| {});
            let machine = Machine::boot(&image, machine::config(), &[]);
            // QEMU has it open and needs no name for it.
            std::fs::remove_dir_all(directory).unwrap();
            machine
        })
    })
}
