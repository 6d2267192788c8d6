//! The box's volumes.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
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

const PRIVILEGES: &str = r#"
import ctypes, errno, os, stat, subprocess
libc = ctypes.CDLL(None, use_errno=True)
subprocess.run(["busybox", "mount", "-o", "remount,rw,suid,dev", "/data"], check=True)
os.chdir("/data")
def make(name):
    open(name, "w").write("exit 0")
    os.chmod(name, 0o755)
    return name
def leave_whiteout(name):
    RENAME_WHITEOUT = 4
    if libc.renameat2(-100, name.encode(), -100, b"moved", RENAME_WHITEOUT):
        raise OSError(ctypes.get_errno(), "renameat2")
def create(mode):
    os.umask(0)
    os.close(os.open("created", os.O_CREAT | os.O_WRONLY, mode))
tries = {
    "setuid": lambda: os.chmod(make("a"), 0o4755),
    "setgid": lambda: os.chmod(make("b"), 0o2755),
    "setuid of an open file": lambda: os.fchmod(os.open(make("c"), os.O_RDWR), 0o4755),
    "setgid directory": lambda: (os.mkdir("d"), os.chmod("d", 0o2775)),
    "create setuid": lambda: create(0o4755),
    "mknod setuid": lambda: os.mknod("e", stat.S_IFREG | 0o4755),
    "block device": lambda: os.mknod("f", stat.S_IFBLK | 0o666, os.makedev(8, 0)),
    "character device": lambda: os.mknod("g", stat.S_IFCHR | 0o666, os.makedev(1, 1)),
    "whiteout": lambda: os.mknod("h", stat.S_IFCHR | 0o666, 0),
    "whiteout of a rename": lambda: leave_whiteout(make("k")),
    "capability": lambda: os.setxattr(make("i"), "security.capability", bytes.fromhex("0100000200ffffff00000000ffffff0000000000")),
    "hand over, then setuid": lambda: (os.chown(make("j"), 0, 0), os.chmod("j", 0o6755)),
}
for name, attempt in tries.items():
    try:
        attempt()
        print(name, "worked")
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL):
            print(name, error)
open("given", "r+").write("x")
os.rename(make("ordinary"), "renamed")
os.chmod("renamed", 0o640)
os.mkfifo("fifo")
os.mkdir("sticky"); os.chmod("sticky", 0o1777)
"#;

const ATTRIBUTES_AND_EVENTS: &str = r#"
import ctypes, os, shutil, struct
os.chdir("/data")
open("noted", "w").write("x")
os.setxattr("noted", "user.note", b"kept")
shutil.copy2("noted", "copied")
print(os.getxattr("copied", "user.note"), os.listxattr("noted"), os.listxattr("given"))
libc = ctypes.CDLL(None)
watch = libc.inotify_init1(os.O_NONBLOCK)
libc.inotify_add_watch(watch, b"/data", 0x2 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200)
open("watched", "w").write("x")
os.rename("watched", "noticed")
os.unlink("noticed")
events, at = os.read(watch, 4096), 0
while at < len(events):
    _, mask, _, length = struct.unpack_from("iIII", events, at)
    names = {0x2: "modify", 0x8: "close_write", 0x40: "from", 0x80: "to", 0x100: "create", 0x200: "delete"}
    print(names[mask], events[at + 16:at + 16 + length].rstrip(b"\0").decode())
    at += 16 + length
"#;

const ATTRIBUTES_AND_EVENTS_SAID: &str = "b'kept' ['user.note'] []
create watched
modify watched
close_write watched
from watched
to noticed
delete noticed
";

/// The guest may mount the volume as it likes, so only what the host lets virtiofsd do counts. Mutations tried: without
/// the filter, and without the capability taken from virtiofsd. What users' programs keep in attributes works, and they
/// are told what changes in the box.
#[tokio::test]
async fn no_file_of_a_volume_comes_to_give_privileges_on_the_host() {
    let Some(ground) = ground() else { return };
    let shared = tempfile::tempdir().unwrap();
    let given = shared.path().join("given");
    std::fs::write(&given, "a program of the host's root").unwrap();
    std::fs::set_permissions(&given, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let mut guest = ground.new_box(None, &[format!("{}:/data", shared.path().display())]);
    guest.up().await;
    assert_eq!(guest.python(PRIVILEGES, &[]).await, "");
    assert_eq!(guest.python(ATTRIBUTES_AND_EVENTS, &[]).await, ATTRIBUTES_AND_EVENTS_SAID);
    guest.stop().await;

    for entry in std::fs::read_dir(shared.path()).unwrap() {
        let entry = entry.unwrap();
        let (name, found) = (entry.file_name(), entry.metadata().unwrap());
        assert_eq!((found.mode() & 0o6000, found.rdev()), (0, 0), "{name:?}");
        assert!(!found.file_type().is_char_device(), "{name:?}");
        let capability = rustix::fs::lgetxattr(entry.path(), "security.capability", &mut [0_u8; 64][..]);
        assert!(capability.is_err(), "{name:?}");
    }
    let note = &mut [0_u8; 16];
    let length = rustix::fs::getxattr(shared.path().join("copied"), "user.note", &mut note[..]).unwrap();
    assert_eq!(&note[..length], b"kept");
    let mode = |name: &str| std::fs::metadata(shared.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("given"), mode("renamed"), mode("sticky")), (0o755, 0o640, 0o1777));
}

const MAPPED: &str = r#"
import os
print(*[os.stat(name).st_uid + os.stat(name).st_gid for name in ("/data", "/data/given")])
open("/data/given", "a").write("more")
os.mkdir("/data/made")
open("/data/made/file", "w").write("x")
try:
    os.chown("/data/made/file", 77, 88)
except OSError as error:
    print(error)
os.setegid(99); os.seteuid(99)
try:
    open("/data/by_another", "w").write("x")
except OSError as error:
    print("refused to another")
"#;

/// Mutation tried: without the translation of ids, what the box makes is root's on the host.
#[tokio::test]
async fn with_mapped_ids_a_volume_is_roots_in_the_box_and_its_owners_on_the_host() {
    let Some(ground) = ground() else { return };
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("given"), "given").unwrap();
    std::os::unix::fs::chown(shared.path(), Some(1234), Some(5678)).unwrap();
    std::os::unix::fs::chown(shared.path().join("given"), Some(4321), Some(8765)).unwrap();
    let mut guest = ground.new_box(None, &[format!("{}:/data:U", shared.path().display())]);
    guest.up().await;
    let said = guest.python(MAPPED, &[]).await;
    guest.stop().await;
    assert_eq!(said.lines().next(), Some("0 0"), "{said}");
    let owner = |name: &str| {
        let found = std::fs::metadata(shared.path().join(name)).unwrap();
        (found.uid(), found.gid())
    };
    assert_eq!(
        (owner("made"), owner("made/file"), owner("given")),
        ((1234, 5678), (1234, 5678), (4321, 8765))
    );
    assert_eq!(std::fs::read_to_string(shared.path().join("given")).unwrap(), "givenmore");
}

/// Every process of a box, its shim included: by the parents of its QEMU, and by their children.
fn processes_of(launched: Launched) -> Vec<u32> {
    let mut found = vec![launched.shim_pid];
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| pid));
        next += 1;
    }
    found
}

/// QEMU and virtiofsd must not have the lock's descriptor, with which they could release the lock: the box would look as if
/// it had ended. Mutation tried: with virtiofsd started as the jailer is.
#[tokio::test]
async fn what_serves_a_guest_has_no_descriptor_of_the_home_but_qemu_its_disk() {
    let Some(ground) = ground() else { return };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let volumes = [format!("{}:/one", one.path().display()), format!("{}:/two:ro", two.path().display())];
    let mut guest = ground.new_box(None, &volumes);
    guest.spec.box_id = format!("group{}", std::process::id());
    guest.up().await;
    let root = ground.home.root();
    let (mut daemons, mut holders) = (Vec::new(), 0);
    for pid in processes_of(guest.launched()) {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        let program = program.file_name().unwrap().to_str().unwrap().to_owned();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let open: Vec<_> = open.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap()).collect();
        let of_home: Vec<_> = open.iter().filter(|path| path.starts_with(root)).collect();
        match program.as_str() {
            "boxlite-shim" => holders += usize::from(of_home.contains(&&guest.paths.shim_lock())),
            "boxlite-virtiofsd" => {
                assert!(of_home.is_empty(), "{of_home:?}");
                daemons.push(pid);
            }
            _ if pid == guest.launched().vm_pid => {
                assert!(!of_home.contains(&&guest.paths.shim_lock()), "{of_home:?}");
            }
            other => panic!("{other} is not expected, with {open:?}"),
        }
    }
    assert!(daemons.len() >= 2 && holders >= 2, "{daemons:?}, {holders}");

    // What a host with control groups counts for QEMU it counts for them.
    let group = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = format!("/boxlite/{}", guest.spec.box_id);
    let of_qemu: Vec<_> =
        group(guest.launched().vm_pid).lines().filter(|of| of.ends_with(&line)).map(str::to_owned).collect();
    for daemon in daemons {
        assert!(of_qemu.iter().all(|of| group(daemon).lines().any(|own| own == of)), "{}", group(daemon));
    }
    let directory = std::path::PathBuf::from(format!("/sys/fs/cgroup/memory{line}"));
    assert_eq!(directory.exists(), of_qemu.iter().any(|of| of.contains(":memory:")));
    guest.stop().await;
    deadline::until(TIMEOUT, "the group to be gone", || !directory.exists());
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
