//! An image's init system is process 1, and what runs in its box runs beside it. A script stands for systemd, which
//! `scripts/test-guest` runs as well. Also what images say of volumes.

use crate::home::Home;

/// Process 1 that does what systemd does when it is told to halt.
const INIT: &str = r#"
trap 'echo halting; exit 0' RTMIN+3
echo "process $$ of $(grep -c . <(ls -d /proc/[0-9]*)) in $container"
echo "machine $container_uuid"
grep -E '^(tmpfs /run|tmpfs /tmp|cgroup2 /sys/fs/cgroup) ' /proc/mounts | cut -d' ' -f1-3
grep CapBnd /proc/self/status
touch /run/started
while :; do sleep 1 & wait $!; done
"#;

/// Mutation tried: the right to restart the machine is kept.
#[test]
fn an_init_system_is_process_1_and_halts_when_it_is_stopped() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["run", "-d", "--name", "system", "--init-system", &image, "bash", "-c", INIT]).ok();
    let wait = "until [ -e /run/started ]; do sleep 0.1; done; tr '\\0' ' ' < /proc/1/cmdline | head -c 7; \
                echo; kill -0 1 && echo signalled; echo $(($(ls -d /proc/[0-9]* | wc -l) < 12))";
    assert_eq!(home.run(&["exec", "system", "bash", "-c", wait]).ok(), "bash -c\nsignalled\n1\n");
    let file = home.path().join("copied");
    home.run(&["cp", "system:/run/started", file.to_str().unwrap()]).ok();
    home.run(&["stop", "system"]).ok();
    let id = home.run(&["inspect", "system"]).json()[0]["id"].as_str().unwrap().to_owned();
    let said = home.run(&["logs", "system"]).ok();
    assert!(said.starts_with("process 1 of "), "{said}");
    assert!(said.contains(" in boxlite\n") && said.ends_with("halting\n"), "{said}");
    assert!(said.contains(&format!("machine {id}")), "{said}");
    for mount in ["tmpfs /run tmpfs", "tmpfs /tmp tmpfs", "cgroup2 /sys/fs/cgroup cgroup2"] {
        assert!(said.lines().any(|line| line == mount), "{mount}: {said}");
    }
    let bounding = said.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("capabilities").trim();
    assert_eq!(u64::from_str_radix(bounding, 16).unwrap() >> 22 & 1, 0, "it may restart the machine");
    assert_eq!(home.run(&["inspect", "system"]).json()[0]["exit_code"], 0);

    // Before: the system's own /run hid what such a link leads to, and no name was resolved.
    let link = "busybox umount /etc/resolv.conf && rm /etc/resolv.conf && ln -s ../run/resolve/stub.conf /etc/resolv.conf";
    home.run(&["start", "system"]).ok();
    home.run(&["exec", "system", "bash", "-c", link]).ok();
    home.run(&["restart", "system"]).ok();
    let resolver =
        home.run(&["exec", "system", "bash", "-c", "cat /etc/resolv.conf; readlink /etc/resolv.conf"]).ok();
    assert_eq!(resolver, "nameserver 10.0.2.3\n../run/resolve/stub.conf\n");

    let shown =
        home.run(&["run", "--rm", "--init-system=false", &image, "bash", "-c", "echo $$ $container"]).ok();
    assert_ne!(shown.split_whitespace().next(), Some("1"), "{shown}");
}

/// Mutation tried: the agent does not make them.
#[test]
fn the_volumes_of_an_image_are_directories_of_its_boxes() {
    let Some(home) = Home::able() else { return };
    home.run(&["create", "--name", "origin", &home.image("mini")]).ok();
    home.run(&["commit", "-q", "-c", "VOLUME /data/deep", "origin", "with/volume"]).ok();
    let look = "test -d /data/deep && echo kept > /data/deep/file && cat /data/deep/file";
    assert_eq!(home.run(&["run", "--rm", "with/volume", "bash", "-c", look]).ok(), "kept\n");
}
