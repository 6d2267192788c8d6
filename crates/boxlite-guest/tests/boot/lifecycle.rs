//! Boot and shutdown of a guest.

use std::os::unix::fs::symlink;
use std::time::Duration;

use boxlite_proto::{BootConfig, FromGuest, HostEntry, NetConfig, ShareMount};

use crate::able;
use crate::machine::{self, Machine, spec};

#[test]
fn a_guest_comes_up_and_goes_down_cleanly() {
    if !able() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("root.ext4");
    machine::root_image(&image, 64, |_| {});
    let machine = Machine::boot(&image, machine::config(), &[]);
    let FromGuest::Ready { timings, warnings, .. } = &machine.ready else { panic!("{:?}", machine.ready) };
    eprintln!("up after {:?}: {timings:?}", machine.boot_time);
    assert!(warnings.is_empty(), "{warnings:?}");
    // Three that must be ended in three ways, one of them still writing.
    let polite = machine.exec(spec(&[
        "sh",
        "-c",
        "trap 'echo bye > /bye; exit 0' TERM; echo up; while :; do sleep 0.1; done",
    ]));
    polite.until("up");
    let stubborn =
        machine.exec(spec(&["sh", "-c", "trap '' TERM; echo up; while :; do echo x >> /log; done"]));
    stubborn.until("up");
    machine.sh("dd if=/dev/urandom of=/file bs=1M count=8 2>/dev/null; sh -c 'sleep 1000 & exit 0'");
    machine.shut_down(Duration::from_secs(2));
    machine::check(&image).unwrap();

    // What was written is there, and a machine that nobody ends ends itself.
    let machine = Machine::boot(&image, machine::config(), &[]);
    assert_eq!(machine.sh("cat /bye; stat -c %s /file; grep -c x /log | grep -qv '^0$'"), "bye\n8388608");
    assert!(machine.power_off());
    machine::check(&image).unwrap();
}

#[test]
fn the_tree_is_complete_whatever_the_image_lacks() {
    if !able() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("root.ext4");
    machine::root_image(&image, 64, |root| {
        std::fs::remove_dir(root.join("proc")).unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf")).unwrap();
        symlink("/etc/loop", root.join("etc/loop")).unwrap();
        std::fs::write(root.join("etc/hosts"), "1.2.3.4 the-image\n").unwrap();
    });
    let config = BootConfig {
        network: Some(NetConfig {
            address: [10, 0, 2, 15].into(),
            prefix: 24,
            gateway: Some([10, 0, 2, 2].into()),
            mac: [2, 0, 0, 1, 2, 3],
            members: Vec::new(),
        }),
        extra_hosts: vec![HostEntry { name: "other".into(), address: "10.9.8.7".into() }],
        ..machine::config()
    };
    let net =
        ["-netdev", "user,id=n0,restrict=on", "-device", "virtio-net-device,netdev=n0,mac=52:54:00:12:34:56"];
    let machine = Machine::boot(&image, config, &net);
    assert!(
        matches!(&machine.ready, FromGuest::Ready { warnings, .. } if warnings.is_empty()),
        "{:?}",
        machine.ready
    );

    let mounts = machine.sh("cut -d' ' -f2,3 /proc/mounts");
    for mount in [
        "/ ext4",
        "/proc proc",
        "/sys sysfs",
        "/dev devtmpfs",
        "/dev/pts devpts",
        "/dev/shm tmpfs",
        "/dev/mqueue mqueue",
        "/sys/fs/cgroup cgroup2",
    ] {
        assert!(mounts.lines().any(|line| line == mount), "{mount} is not in {mounts}");
    }
    assert!(machine.sh("grep ' / ' /proc/mounts").contains("discard"));
    assert_eq!(machine.sh("hostname; cat /etc/hostname"), "testbox\ntestbox");
    let hosts = machine.sh("cat /etc/hosts");
    assert!(hosts.contains("10.0.2.15\ttestbox") && hosts.contains("10.9.8.7\tother"), "{hosts}");
    assert!(!hosts.contains("the-image"), "{hosts}");
    assert_eq!(machine.sh("cat /etc/resolv.conf"), "nameserver 10.0.2.3\nsearch example.test");
    assert_eq!(
        machine.sh("stat -c %a /tmp /dev/shm; ls /root 2>/dev/null | wc -l; ls -A /dev/fd/ | head -1"),
        "1777\n1777\n0\n0"
    );
    let network = machine.sh("ip -o addr; ip route");
    for part in ["inet 127.0.0.1/8", "inet 10.0.2.15/24", "default via 10.0.2.2 dev eth0"] {
        assert!(network.contains(part), "{part} is not in {network}");
    }
    machine.sh("ping -c 1 -W 20 10.0.2.2");
    let skew: i64 = machine.sh("date +%s").parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!((now.as_secs() as i64 - skew).abs() < 20, "the clock is off: {skew}");
    machine.shut_down(Duration::from_secs(5));
    machine::check(&image).unwrap();
    // The image's own file was only covered.
    let debugfs =
        std::process::Command::new("debugfs").args(["-R", "cat /etc/hosts"]).arg(&image).output().unwrap();
    assert_eq!(debugfs.stdout, b"1.2.3.4 the-image\n");
}

/// Before: the file was mounted over `/dev/null`, and no command without input started any more.
#[test]
fn a_device_that_an_image_links_a_file_to_stays_a_device() {
    if !able() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("root.ext4");
    machine::root_image(&image, 64, |root| {
        let _ = std::fs::remove_file(root.join("etc/hosts"));
        symlink("/dev/null", root.join("etc/hosts")).unwrap();
    });
    let machine = Machine::boot(&image, machine::config(), &[]);
    let FromGuest::Ready { warnings, .. } = &machine.ready else { panic!("{:?}", machine.ready) };
    assert!(warnings.iter().any(|warning| warning.contains("/dev/null")), "{warnings:?}");
    assert_eq!(machine.sh("test -c /dev/null && cat /dev/null && hostname"), "testbox");
}

#[test]
fn the_root_grows_to_its_disk() {
    if !able() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("root.ext4");
    machine::root_image(&image, 64, |_| {});
    std::fs::File::options().write(true).open(&image).unwrap().set_len(3 << 30).unwrap();
    let machine = Machine::boot(&image, machine::config(), &[]);
    assert!(
        matches!(&machine.ready, FromGuest::Ready { warnings, .. } if warnings.is_empty()),
        "{:?}",
        machine.ready
    );
    let kibibytes: u64 = machine.sh("df -k / | tail -1 | awk '{print $2}'").parse().unwrap();
    assert!(kibibytes > 2_800_000, "{kibibytes}");
    machine.shut_down(Duration::from_secs(5));
    machine::check(&image).unwrap();
}

/// Space that a guest frees returns to the host.
#[test]
fn deleted_files_are_given_back() {
    use std::os::unix::fs::MetadataExt;
    if !able() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("root.ext4");
    machine::root_image(&image, 512, |_| {});
    let allocated = || std::fs::metadata(&image).unwrap().blocks() * 512;
    let machine = Machine::boot(&image, machine::config(), &[]);
    let before = allocated();
    machine.sh("dd if=/dev/urandom of=/big bs=1M count=100 2>/dev/null; sync");
    let full = allocated();
    assert!(full > before + (90 << 20));
    machine.sh("rm /big; sync");
    let machine_gone = {
        machine.shut_down(Duration::from_secs(5));
        allocated()
    };
    assert!(machine_gone < before + (10 << 20), "{before} {full} {machine_gone}");
    machine::check(&image).unwrap();
}

/// A busy host was seen to make such a guest, and a template of it: `sleep` never returned in any box of that template.
/// Mutation tried: an agent that does not look.
#[test]
fn a_guest_without_a_timer_does_not_come_up_and_is_no_template() {
    if !able() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("root.ext4");
    machine::root_image(&image, 64, |_| {});
    let machine = Machine::boot_by_kernel(&image, machine::config(), "nolapic_timer", &[]);
    assert!(
        !machine.features.iter().any(|feature| feature == boxlite_proto::UNTOUCHED),
        "{:?}",
        machine.features
    );
    let FromGuest::BootFailed { reason, may_retry } = &machine.ready else { panic!("{:?}", machine.ready) };
    assert!(reason.contains("no timer") && *may_retry, "{reason}");
}

#[test]
fn what_can_not_come_up_says_why() {
    if !able() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("root.ext4");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let machine = Machine::boot(&image, machine::config(), &[]);
    let FromGuest::BootFailed { reason, .. } = &machine.ready else { panic!("{:?}", machine.ready) };
    assert!(reason.contains("no ext4"), "{reason}");
    drop(machine);

    machine::root_image(&image, 64, |_| {});
    let mount = ShareMount { tag: "absent".into(), target: "/share".into(), read_only: false, file: None };
    let machine = Machine::boot(&image, BootConfig { mounts: vec![mount], ..machine::config() }, &[]);
    let FromGuest::BootFailed { reason, .. } = &machine.ready else { panic!("{:?}", machine.ready) };
    assert!(reason.contains("absent") && reason.contains("/share"), "{reason}");
}
