//! Coming up and going down.

use boxlite_proto::FromGuest;

use crate::able;
use crate::machine::{self, Machine};

#[test]
fn a_guest_comes_up_and_goes_down_cleanly() {
    if !able() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("root.ext4");
    machine::root_image(&image, 64, |_| {});
    let machine = Machine::boot(&image, machine::config(), &[]);
    let FromGuest::Ready { timings, warnings } = &machine.ready else { panic!("{:?}", machine.ready) };
    eprintln!("up after {:?}: {timings:?}", machine.boot_time);
    assert!(warnings.is_empty(), "{warnings:?}");
    machine.sh("dd if=/dev/urandom of=/file bs=1M count=8");
    machine.shut_down(std::time::Duration::from_secs(10));
    machine::check(&image).unwrap();
}
