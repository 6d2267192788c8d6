//! The guest's kernel: its modules come when they are asked for, in images without kmod, and no box has a copy of them; its clock
//! follows the host's.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boxlite_testkit::assets::Assets;
use boxlite_testkit::deadline;

use crate::home::Home;

/// Uses what Debian's kernel has as modules. What a program asks for by name goes through `modprobe` of busybox, everything else
/// through the kernel's own request.
const USE: &str = r#"
set -e
release=$(uname -r)
test -s /lib/modules/$release/modules.dep.bin
grep -qE '^/dev/[^ ]* (/usr)?/lib/modules ext4 ro,' /proc/mounts
mkdir -p /dev/shm/o && cd /dev/shm/o && mkdir lower upper work merged
echo low > lower/file
busybox mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged
echo high > merged/file
echo "overlay: $(cat lower/file) $(cat upper/file)"
exec 3<>/dev/fuse 4<>/dev/net/tun
echo "devices: $(grep -cw -e fuse -e tun /proc/misc)"
busybox dd if=/dev/zero of=disk bs=1M count=1 2>/dev/null
loop=$(busybox losetup -f) && busybox losetup $loop disk
echo "loop: $(cat /sys/block/${loop#/dev/}/size)"
busybox modprobe nf_nat
busybox modprobe squashfs
echo "asked for: $(grep -c -e '^nf_nat ' -e '^nf_conntrack ' -e '^squashfs ' /proc/modules)"
busybox ip link add name br0 type bridge
echo "bridge: $(cat /sys/class/net/br0/mtu)"
if busybox modprobe no_such_module 2>/dev/null; then echo "made up"; fi
if echo x 2>/dev/null > /lib/modules/$release/modules.dep; then echo "written"; fi
"#;

/// The guest's own words for what it says is as `USE` has it.
const USED: &str = "overlay: low high\ndevices: 2\nloop: 2048\nasked for: 3\nbridge: 1500\n";

/// The descriptors of a process that are `file`, and whether any of them can write.
fn descriptors(process: rustix::process::Pid, file: &Path) -> Vec<bool> {
    let process = process.as_raw_nonzero();
    let same = |fd: &std::path::PathBuf| std::fs::read_link(fd).is_ok_and(|target| target == file);
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten().map(|fd| fd.path());
    open.filter(same)
        .map(|fd| {
            let number = fd.file_name().unwrap().to_str().unwrap();
            let info = std::fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            u32::from_str_radix(flags, 8).unwrap() & 3 != 0
        })
        .collect()
}

/// In an image without `modprobe`: what is mounted before and after the kernel's first request.
const USE_LATE: &str = r"
set -e
grep -c /lib/modules /proc/mounts || true
exec 3<>/dev/net/tun
grep -c /lib/modules /proc/mounts
mkdir -p /dev/shm/l /dev/shm/u /dev/shm/w /dev/shm/m
busybox mount -t overlay -o lowerdir=/dev/shm/l,upperdir=/dev/shm/u,workdir=/dev/shm/w overlay /dev/shm/m
grep -c -e '^overlay ' -e '^tun ' /proc/modules
";

/// Mutation tried: the kernel is not told of the agent's `modprobe` (no overlay).
#[test]
fn modules_come_when_they_are_asked_for_and_no_box_has_a_copy() {
    let Some(home) = Home::able() else { return };
    home.sleeper("first");
    home.sleeper("second");
    home.run(&["exec", "second", "rm", "/usr/bin/modprobe"]).ok();
    home.run(&["stop", "-t", "1", "second"]).ok();
    home.run(&["start", "second"]).ok();
    assert_eq!(home.run(&["exec", "first", "bash", "-c", USE]).ok(), USED);
    assert_eq!(home.run(&["exec", "second", "bash", "-c", USE_LATE]).ok(), "0\n1\n2\n");
    // One file, which each box's QEMU can only read.
    let image =
        boxlite_vm::guest::find_module_image(&Assets::locate().kernel()).expect("an image of modules");
    let image = std::fs::canonicalize(image).unwrap();
    for name in ["first", "second"] {
        let id = home.run(&["inspect", name]).json()[0]["id"].as_str().unwrap().to_owned();
        let (qemu, _) = Home::processes(&id).expect("a QEMU");
        let writable = descriptors(qemu, &image);
        assert!(!writable.is_empty() && !writable.contains(&true), "{writable:?}");
        let shown = home.run(&["diff", name]).ok();
        assert!(!shown.contains("modules"), "{shown}");
    }
    // Before: the first request failed where the image has something else than a directory in the modules' place.
    let odd = "busybox umount /usr/lib/modules && rmdir /usr/lib/modules && echo odd > /usr/lib/modules";
    home.run(&["exec", "second", "bash", "-c", odd]).ok();
    home.run(&["restart", "-t", "1", "second"]).ok();
    let first = "exec 3<>/dev/net/tun; grep -c '^tun ' /proc/modules; cat /lib/modules";
    assert_eq!(home.run(&["exec", "second", "bash", "-c", first]).ok(), "1\nodd\n");
}

#[test]
fn the_clock_is_right_again_after_a_pause() {
    let Some(home) = Home::able() else { return };
    // The second makes a template, and the third comes from that. Before: a guest that was restored was never told the time.
    for name in ["first", "second", "a"] {
        home.sleeper(name);
    }
    let clock = || home.run(&["exec", "a", "date", "+%s"]).ok().trim().parse::<u64>().unwrap();
    let host = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // A pause of years, without the wait.
    home.run(&["exec", "a", "date", "-s", "@1000000000"]).ok();
    assert!(clock() < 1_100_000_000);
    home.run(&["pause", "a"]).ok();
    home.run(&["unpause", "a"]).ok();
    deadline::until(Duration::from_secs(60), "the guest's clock to follow the host's", || {
        let before = host();
        let guest = clock();
        (before - 2..=host() + 2).contains(&guest)
    });
}
