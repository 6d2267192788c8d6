//! The box's volumes.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use boxlite::ErrorKind;
use boxlite_testkit::deadline;
use boxlite_vm::shim::Launched;
use sha2::{Digest, Sha256};

use crate::guest::ground;
use crate::network::TIMEOUT;

const COPY: &str = r#"
import hashlib, os, shutil, sys
read = hashlib.sha256(open("/data/input", "rb").read()).hexdigest()
os.mkdir("/data/made")
shutil.copyfile("/data/input", "/data/made/copy")
os.chmod("/data/made/copy", 0o751)
with open("/data/made/grown", "wb") as grown:
    for number in range(300):
        grown.write(bytes([number % 256]) * 4096)
os.symlink("copy", "/data/made/link")
os.chown("/data/made/grown", 1234, 5678)
os.rename("/data/renamed", "/data/made/renamed")
print(read)
"#;

#[tokio::test]
async fn data_goes_both_ways_unharmed() {
    let Some(ground) = ground() else { return };
    let shared = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..5_000_001u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(shared.path().join("input"), &content).unwrap();
    std::fs::write(shared.path().join("renamed"), "x").unwrap();
    let mut guest = ground.new_box(None, &[format!("{}:/data", shared.path().display())]);
    guest.up().await;
    let said = guest.python(COPY, &[]).await;
    guest.stop().await;

    let digest = hex::encode(Sha256::digest(&content));
    assert_eq!(said.trim(), digest);
    let made = shared.path().join("made");
    assert!(std::fs::read(made.join("copy")).unwrap() == content);
    assert_eq!(std::fs::metadata(made.join("copy")).unwrap().permissions().mode() & 0o7777, 0o751);
    let grown = std::fs::metadata(made.join("grown")).unwrap();
    assert_eq!((grown.len(), grown.uid(), grown.gid()), (300 * 4096, 1234, 5678));
    assert_eq!(std::fs::read_link(made.join("link")).unwrap(), Path::new("copy"));
    assert!(made.join("renamed").exists() && !shared.path().join("renamed").exists());
}

const WRITE: &str = r#"
import errno, os, subprocess
subprocess.run(["busybox", "mount", "-o", "remount,rw", "/data"], check=True)
options = [line.split()[3] for line in open("/proc/mounts") if line.split()[1] == "/data"][-1]
assert options.startswith("rw"), options
tries = {
    "write": lambda: open("/data/file", "r+"),
    "create": lambda: open("/data/new", "w"),
    "truncate": lambda: os.truncate("/data/file", 0),
    "unlink": lambda: os.unlink("/data/file"),
    "rename": lambda: os.rename("/data/file", "/data/other"),
    "link": lambda: os.link("/data/file", "/data/other"),
    "symlink": lambda: os.symlink("/", "/data/other"),
    "mkdir": lambda: os.mkdir("/data/other"),
    "chmod": lambda: os.chmod("/data/file", 0o777),
    "chown": lambda: os.chown("/data/file", 1, 1),
    "utime": lambda: os.utime("/data/file", (1, 1)),
    "mknod": lambda: os.mknod("/data/other"),
}
for name, attempt in tries.items():
    try:
        attempt()
        print(name, "worked")
    except OSError as error:
        if error.errno != errno.EROFS:
            print(name, error)
print(open("/data/file").read())
"#;

// Mutation tried: without `--readonly` for virtiofsd every one of these works in the guest.
#[tokio::test]
async fn a_read_only_volume_is_read_only_even_when_the_guest_mounts_it_read_write() {
    let Some(ground) = ground() else { return };
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("file"), "precious").unwrap();
    let before = std::fs::metadata(shared.path().join("file")).unwrap();
    let mut guest = ground.new_box(None, &[format!("{}:/data:ro", shared.path().display())]);
    guest.up().await;
    assert_eq!(guest.python(WRITE, &[]).await, "precious\n");
    guest.stop().await;

    let after = std::fs::metadata(shared.path().join("file")).unwrap();
    assert_eq!((before.ctime(), before.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
    let names: Vec<_> =
        std::fs::read_dir(shared.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
}

#[tokio::test]
async fn a_killed_shim_leaves_no_virtiofsd_and_no_qemu() {
    let Some(ground) = ground() else { return };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let volumes = [format!("{}:/one", one.path().display()), format!("{}:/two:ro", two.path().display())];
    let mut guest = ground.new_box(Some(&[]), &volumes);
    guest.up().await;
    let marks = [one.path(), two.path()];
    assert!(marks.iter().all(|mark| processes_naming(mark) > 0));
    let Launched { shim_pid: shim, vm_pid } = guest.launched();
    let pid = rustix::process::Pid::from_raw(shim as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    for mark in marks {
        deadline::until(TIMEOUT, "no process of it", || processes_naming(mark) == 0);
    }
    deadline::until(TIMEOUT, "QEMU to be gone", || !Path::new(&format!("/proc/{vm_pid}")).exists());
    deadline::until(TIMEOUT, "the box to be gone", || guest.lock_is_free());
}

/// Processes on whose command line `path` appears.
fn processes_naming(path: &Path) -> usize {
    let needle = path.to_str().unwrap();
    let lines = std::fs::read_dir("/proc").unwrap();
    let lines = lines.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(needle)).count()
}

#[tokio::test]
async fn a_directory_that_vanished_is_said_before_anything_boots() {
    let Some(ground) = ground() else { return };
    let shared = tempfile::tempdir().unwrap();
    let mut guest = ground.new_box(None, &[format!("{}:/data", shared.path().display())]);
    let path = shared.path().to_owned();
    drop(shared);
    let error = guest.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    deadline::until(TIMEOUT, "the box to be gone", || guest.lock_is_free());
}
