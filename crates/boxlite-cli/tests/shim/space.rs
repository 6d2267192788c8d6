//! A host whose disk fills up under a running box.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use boxlite_proto::{Frame, ShimRequest};
use boxlite_testkit::filesystem::SmallFilesystem;
use boxlite_testkit::program::run;
use boxlite_testkit::{deadline, oracle};
use boxlite_vm::shim::{DiskFloors, OutcomeCause, ShimClient};
use futures::StreamExt;

use crate::bench::bench;
use crate::ground::read_all;

/// A small filesystem of its own, unmounted when dropped.
struct SmallDisk {
    mounted: SmallFilesystem,
    filler: PathBuf,
}

impl SmallDisk {
    /// `None`, after saying so, where this process may not mount.
    fn mount(mebibytes: u32) -> Option<Self> {
        if oracle::skip_unless_root("mounting a small filesystem") {
            return None;
        }
        let mounted = SmallFilesystem::tmpfs(&format!("size={mebibytes}m"))?;
        Some(Self { filler: mounted.path().join("filler"), mounted })
    }

    fn path(&self) -> &Path {
        self.mounted.path()
    }

    /// Where the boxes of a home lie whose root the filesystem is.
    fn boxes(&self) -> PathBuf {
        let boxes = self.path().join("boxes");
        std::fs::create_dir_all(&boxes).unwrap();
        boxes
    }

    /// Takes room until `left` bytes are free.
    fn fill(&self, left: u64) {
        let free = boxlite_home::durable::free_space(self.path()).unwrap().bytes;
        let taken = std::fs::metadata(&self.filler).map_or(0, |metadata| metadata.len());
        let length = (taken + free).saturating_sub(left);
        run(Command::new("fallocate").arg("-l").arg(length.to_string()).arg(&self.filler));
    }

    /// Takes all room there is, whatever others write meanwhile.
    fn fill_up(&self) {
        let mut filler = std::fs::File::options().create(true).append(true).open(&self.filler).unwrap();
        for piece in [1 << 20, 4096] {
            while filler.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(&self.filler).unwrap();
    }
}

async fn until_out_of_space(client: &ShimClient) {
    deadline::within_async(Duration::from_secs(120), "the guest to be paused", async || {
        client.status().await.unwrap().expect("the box runs").out_of_space.then_some(())
    })
    .await;
}

const WRITE: &str = "echo begin; yes boxlite | head -c 40000000 > /file; sync; \
                     echo 3 > /proc/sys/vm/drop_caches; sha256sum /file";
const SHA256_COMMAND: &str = "yes boxlite | head -c 40000000 | sha256sum";

/// Mutation tried: with werror=report the guest is never paused and this fails.
#[tokio::test]
async fn a_full_disk_pauses_the_guest_and_nothing_is_lost() {
    let Some(bench) = bench() else { return };
    let Some(disk) = SmallDisk::mount(72) else { return };
    let guest = bench.new_box_in(&disk.boxes(), Some(WRITE));
    guest.start();
    let client = guest.client();
    let mut attached = client.attach(Some(0), false, None).await.unwrap();
    assert_eq!(&attached.output.next().await.unwrap().unwrap().bytes[..], b"begin\n");
    disk.fill(8 << 20);
    until_out_of_space(&client).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(client.status().await.unwrap().unwrap().out_of_space, "it stays paused while the disk is full");
    disk.free();
    let (out, _) = read_all(&mut attached).await;
    // From here on nothing but the reserved slot can be written.
    disk.fill(0);
    let expected = run(Command::new("sh").arg("-c").arg(SHA256_COMMAND));
    let sum = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(sum(&String::from_utf8(out).unwrap()), sum(&expected));
    let outcome = guest.outcome().await.expect("an outcome is published on a full disk");
    assert_eq!((outcome.exit_code(), outcome.end), (Some(0), OutcomeCause::MainExited));
    disk.free();
    run(Command::new("qemu-img").arg("check").arg(guest.paths.overlay()));
}

#[tokio::test]
async fn below_the_emergency_floor_the_guest_waits_before_the_disk_is_full() {
    let Some(bench) = bench() else { return };
    let Some(disk) = SmallDisk::mount(128) else { return };
    let mut guest = bench.new_box_in(&disk.boxes(), Some(WRITE));
    guest.spec.floors = DiskFloors { pause_below: 32 << 20, resume_at: 48 << 20 };
    guest.start();
    let client = guest.client();
    let mut attached = client.attach(Some(0), false, None).await.unwrap();
    assert_eq!(&attached.output.next().await.unwrap().unwrap().bytes[..], b"begin\n");
    disk.fill(30 << 20);
    until_out_of_space(&client).await;
    assert!(
        boxlite_home::durable::free_space(disk.path()).unwrap().bytes > 1 << 20,
        "room is left for others"
    );
    disk.free();
    let (out, _) = read_all(&mut attached).await;
    assert!(out.ends_with(b"/file\n"), "{}", String::from_utf8_lossy(&out));
    assert_eq!(guest.outcome().await.unwrap().exit_code(), Some(0));
}

/// More lines than a page of the log holds.
const OFFENCES: usize = 100;

/// Talks to the shim out of turn, which it logs before it hangs up.
fn offend(socket: &Path) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(&Frame::control(&ShimRequest::Status).unwrap().to_bytes()).unwrap();
    stream.read_to_end(&mut Vec::new()).expect("the shim hangs up");
}

/// Mutation tried: a log that warns of itself while it is written, as it did, waits for its own lock: the shim answers
/// nobody any more, and a guest that it has paused stays paused.
#[tokio::test]
async fn a_shim_whose_own_log_does_not_fit_the_disk_goes_on() {
    let Some(bench) = bench() else { return };
    let Some(disk) = SmallDisk::mount(72) else { return };
    let guest = bench.new_box_in(&disk.boxes(), None);
    guest.start();
    disk.fill_up();
    for _ in 0..OFFENCES {
        offend(&guest.paths.socket());
    }
    assert!(guest.client().status().await.unwrap().is_some(), "it answers");
    disk.free();
    offend(&guest.paths.socket());
    let log = guest.shim_log();
    assert!(log.contains("bytes are missing here"), "{log}");
    guest.client().stop(None, 100).await.unwrap();
    assert!(guest.outcome().await.is_some());
}
