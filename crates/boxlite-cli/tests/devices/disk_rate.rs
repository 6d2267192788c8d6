//! A bound on the rate of a box's disk.

use std::time::{Duration, Instant};

use boxlite_vm::shim::{Outcome, OutcomeCause};

use crate::guest::ground;

const MIB: u64 = 1 << 20;

/// Writes mebibytes that do not compress to nothing, flushed if that is said, and reads them back past the caches.
const WRITE: &str = r#"
import os, sys
mebibytes, flushed = int(sys.argv[1]), sys.argv[2] == "flushed"
with open("/root/data", "wb") as file:
    for _ in range(mebibytes):
        file.write(os.urandom(1 << 20))
    file.flush()
    if flushed:
        os.fsync(file.fileno())
"#;

const READ: &str = r#"
open("/proc/sys/vm/drop_caches", "w").write("1")
print(len(open("/root/data", "rb").read()))
"#;

/// Only lower bounds of time are compared, so a busy host changes nothing. Mutation tried: without the order to QEMU both
/// take less; with a bound that a stop leaves in force, what was not flushed is lost.
#[tokio::test]
async fn a_disk_is_no_faster_than_its_bound_and_a_stop_loses_nothing_by_it() {
    let Some(ground) = ground() else { return };
    let mut guest = ground.new_box(None, &[]);
    guest.spec.disk_io = Some(MIB);
    guest.up().await;
    // A tenth of a second's bytes are let through at once.
    let at_least = Duration::from_secs(7);
    let began = Instant::now();
    guest.python(WRITE, &["8", "flushed"]).await;
    assert!(began.elapsed() >= at_least, "8 MiB were written in {:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(guest.python(READ, &[]).await.trim(), (8 * MIB).to_string());
    assert!(began.elapsed() >= at_least, "8 MiB were read in {:?}", began.elapsed());

    guest.python(WRITE, &["64", "later"]).await;
    let (paths, run) = (guest.paths.clone(), guest.spec.run_id.clone());
    guest.stop().await;
    let outcome = Outcome::read(&paths, &run).unwrap().unwrap();
    assert_eq!(outcome.end, OutcomeCause::Stopped);
}
