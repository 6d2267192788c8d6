//! `--tmpfs`, `--mount`, `--read-only` and `--shm-size`: checked before anything is pulled, in force in the box, and kept with it.

use crate::home::Home;

#[test]
fn what_cannot_be_mounted_is_refused_before_anything_is_pulled() {
    let home = Home::bare();
    let nowhere = "127.0.0.1:1/nobody/listens:latest";
    for (options, part) in [
        (&["--tmpfs", "run"][..], "is not absolute"),
        (&["--tmpfs", "/run:size=0"], "no bound"),
        (&["--tmpfs", "/run:colour=red"], "is none of size="),
        (&["--tmpfs", "/dev/shm:size=1g"], "--shm-size bounds it"),
        (&["--tmpfs", "/proc/x"], "nothing can be mounted"),
        (&["--tmpfs", "/a", "--tmpfs", "/a/"], "a tmpfs and a tmpfs want to be mounted at \"/a\""),
        (&["-v", "/:/a:ro", "--mount", "type=tmpfs,dst=/a"], "a volume and a tmpfs"),
        (&["--shm-size", "0"], "would have no bound"),
        (&["-v", "/nowhere/at/all:/a"], "/nowhere/at/all"),
        (&["--mount", "type=bind,src=/nowhere/at/all,dst=/a"], "/nowhere/at/all"),
        (&["--mount", "type=volume,src=./data,dst=/a"], "not a name for a volume"),
        (&["-v", "data:a"], "is not absolute"),
        (&["-v", "data:/a:U"], "none of ro and rw"),
        (&["-v", "data:/a", "-v", "data:/b"], "asked for twice"),
        (&["-v", "data:/a", "--tmpfs", "/a/"], "want to be mounted"),
        (&["-v", "../../etc/passwd\n:/a"], "passwd"),
        (&["--mount", "type=tmpfs"], "target=PATH is missing"),
        (&["--mount", "type=bind,src=/a,dst=/b,tmpfs-size=1m"], "for type=tmpfs"),
    ] {
        let line = [&["create"], options, &[nowhere]].concat();
        home.run(&line).refused(part);
    }
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
}

/// Prints what is mounted where, without what the kernel adds of itself.
const LOOK: &str = r#"
for path in / /cache /cache/deep /run /dev/shm; do
    busybox awk -v path=$path '$2 == path {print $2, $3, $4}' /proc/mounts | busybox tail -n 1
done
busybox stat -c '%n %a %u:%g' /cache /run
busybox df -k /cache /dev/shm | busybox awk 'NR > 1 {print $6, $2}'
for directory in /run /cache; do
    printf '#!/bin/sh\necho executed in %s\n' $directory > $directory/tool
    busybox chmod 755 $directory/tool
    $directory/tool 2>/dev/null || echo not executed in $directory
done
for path in /etc/new /root/new /cache/deep/new /cache/new /dev/shm/new /tmp/new; do
    (echo x > $path) 2>/dev/null && echo "$path written"
done
busybox dd if=/dev/zero of=/cache/big bs=1M count=3 2>/dev/null || echo full
echo "$(busybox cat /etc/hostname)"
true
"#;

#[test]
fn what_is_mounted_is_as_was_asked_for_and_stays_with_the_box() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let options = [
        "--hostname",
        "here",
        "--tmpfs",
        "/cache/deep:ro",
        "--mount",
        "type=tmpfs,dst=/cache,tmpfs-size=2m,tmpfs-mode=0750",
        "--tmpfs",
        "/run:exec,suid,dev,uid=7,gid=8,mode=700",
        "--read-only",
        "--shm-size",
        "1m",
    ];
    let line = [&["run", "-d", "--name", "first"], &options[..], &[&image, "sleep", "infinity"]].concat();
    home.run(&line).ok();
    let look = |name: &str| home.run(&["exec", name, "sh", "-c", LOOK]).ok();
    let seen = look("first");
    let lines: Vec<&str> = seen.lines().collect();
    let mounted = |path: &str, kind: &str, options: &[&str]| {
        let start = format!("{path} {kind} ");
        let line = lines.iter().find_map(|line| line.strip_prefix(&start));
        let has: Vec<&str> = line.unwrap_or_else(|| panic!("no {start}in {seen}")).split(',').collect();
        assert!(options.iter().all(|option| has.contains(option)), "{path}: {has:?}");
    };
    mounted("/", "ext4", &["ro"]);
    mounted("/cache", "tmpfs", &["rw", "nosuid", "nodev", "noexec", "size=2048k", "mode=750"]);
    mounted("/cache/deep", "tmpfs", &["ro", "nosuid", "nodev", "noexec"]);
    mounted("/run", "tmpfs", &["rw", "uid=7", "gid=8"]);
    mounted("/dev/shm", "tmpfs", &["rw", "nosuid", "nodev", "noexec", "size=1024k"]);
    let rest = [
        "/cache 750 0:0",
        "/run 700 7:8",
        "/cache 2048",
        "/dev/shm 1024",
        "executed in /run",
        "not executed in /cache",
        "/cache/new written",
        "/dev/shm/new written",
        "full",
        "here",
    ];
    assert!(lines.ends_with(&rest), "{seen}");

    // The root is read-only for `cp` too, the box running or not, and what was in memory is gone with a run.
    let file = home.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    home.run(&["cp", file, "first:/root/new"]).refused("ead-only");
    home.run(&["stop", "-t", "1", "first"]).ok();
    home.run(&["cp", file, "first:/root/new"]).refused("ead-only");
    home.run(&["start", "first"]).ok();
    assert_eq!(look("first"), seen);

    home.run(&["stop", "-t", "1", "first"]).ok();
    home.run(&["clone", "--name", "second", "first"]).ok();
    let shown = home.run(&["inspect", "second"]).json()[0]["options"].clone();
    assert_eq!((&shown["read_only"], &shown["shm_size"]), (&true.into(), &(1 << 20).into()), "{shown}");
    assert_eq!(shown["tmpfs"][1], "/run:exec,suid,dev,uid=7,gid=8,mode=700", "{shown}");
    home.run(&["start", "second"]).ok();
    assert_eq!(look("second"), seen);
}
