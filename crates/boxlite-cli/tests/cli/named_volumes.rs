//! Named volumes: what one box writes the next reads, one writer at a time, and nothing goes before `volume rm`.

use std::path::{Path, PathBuf};
use std::process::Command;

use boxlite_testkit::deadline::{TEST_TIMEOUT, until};
use boxlite_testkit::oracle;
use boxlite_testkit::program::{Output, run};
use rustix::process::{Signal, kill_process};

use crate::home::Home;

fn disk(home: &Home, name: &str) -> PathBuf {
    home.path().join("volumes").join(name).join("disk.ext4")
}

/// Fails unless the filesystem is sound as it is.
fn fsck(disk: &Path) {
    run(Command::new("e2fsck").arg("-fn").arg(disk));
}

/// Bytes of all files below a directory, as `du` counts them.
fn du(path: &Path) -> u64 {
    let text = run(Command::new("du").args(["-s", "--block-size=1"]).arg(path));
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn in_box(home: &Home, volume: &str, script: &str) -> Output {
    home.run(&["run", "--rm", "-v", volume, &home.image("mini"), "sh", "-c", script])
}

/// Mutations tried: without the flush of a box that removes itself, and without the look at what the volume holds before it is
/// filled from the image, the next box does not find the file.
#[test]
fn what_a_box_writes_is_there_for_the_next_until_the_volume_is_removed() {
    let Some(home) = Home::able() else { return };
    if !oracle::require("e2fsck") {
        return;
    }
    assert_eq!(home.run(&["volume", "ls", "-q"]).ok(), "");
    in_box(&home, "data:/var/lib/x", "echo kept > /var/lib/x/f; busybox mkdir /var/lib/x/d").ok();
    fsck(&disk(&home, "data"));
    // Root gives each box a user id of its own: the file is usable all the same.
    assert_eq!(in_box(&home, "data:/srv", "echo /srv/*; busybox cat /srv/f").ok(), "/srv/d /srv/f\nkept\n");
    assert_eq!(
        in_box(&home, "data:/srv:ro", "(echo x > /srv/g) 2>/dev/null || echo refused").ok(),
        "refused\n"
    );

    // An empty volume gets what the image has there, once.
    let seen =
        in_box(&home, "conf:/etc", "busybox ls /etc; busybox rm /etc/passwd; busybox stat -c %a /etc").ok();
    assert!(seen.lines().any(|name| name == "passwd"), "{seen}");
    let seen = in_box(&home, "conf:/etc", "busybox ls -a /etc").ok();
    assert!(seen.lines().all(|name| name != "passwd" && name != "lost+found"), "{seen}");
    assert!(seen.lines().count() > 2, "{seen}");
    fsck(&disk(&home, "conf"));

    let usage = home.run(&["system", "df", "--format", "json"]).json();
    assert_eq!(usage["volumes"]["count"], 2, "{usage}");
    let held = du(&home.path().join("volumes/data")) + du(&home.path().join("volumes/conf"));
    assert_eq!(usage["volumes"]["allocated"], held, "{usage}");
    let rows = usage.as_object().unwrap().values().filter_map(|row| row["allocated"].as_u64()).sum::<u64>();
    assert_eq!(rows + usage["other"].as_u64().unwrap(), du(home.path()), "{usage}");

    for options in [&["gc"][..], &["gc", "--all"], &["prune", "-f"]] {
        home.run(options).ok();
        assert_eq!(home.run(&["volume", "ls", "-q"]).ok(), "conf\ndata\n", "{options:?}");
    }
    home.run(&["create", "--name", "user", "-v", "data:/x", &home.image("mini"), "true"]).ok();
    home.run(&["volume", "rm", "data"]).refused("mounted by box user");
    home.run(&["volume", "rm", "-f", "data"]).refused("mounted by box user");
    assert_eq!(home.run(&["volume", "prune", "-f"]).ok().lines().next(), Some("removed volume conf"));
    let shown = home.run(&["volume", "inspect", "data"]).json();
    assert_eq!(
        (&shown[0]["boxes"][0], &shown[0]["size"]),
        (&"user".into(), &(10_u64 << 30).into()),
        "{shown}"
    );
    home.run(&["rm", "user"]).ok();
    assert_eq!(home.run(&["volume", "rm", "data"]).ok(), "data\n");
    assert_eq!(home.run(&["volume", "ls", "-q"]).ok(), "");
    home.run(&["volume", "rm", "data"]).refused("there is no volume 'data'");
    assert_eq!(home.run(&["volume", "rm", "-f", "data"]).ok(), "");
    assert_eq!(std::fs::read_dir(home.path().join("volumes")).unwrap().count(), 0);
    let events = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "type=volume",
        "--format",
        "{{.action}} {{.name}}",
    ];
    let told = home.run(&events).ok();
    assert!(told.starts_with("create ") && told.ends_with("remove conf\nremove data\n"), "{told}");
}

/// Mutations tried: a shared lock for writers, by which the second box boots and QEMU's own lock ends it without a name; the
/// look at the journal left out, by which the reader's guest cannot mount the volume.
#[test]
fn a_volume_has_one_writer_or_readers_and_a_kill_frees_it() {
    let Some(home) = Home::able() else { return };
    if !oracle::require("e2fsck") {
        return;
    }
    let image = home.image("mini");
    let start = |name: &str, volume: &str| {
        home.run(&["run", "-d", "--name", name, "-v", volume, &image, "sleep", "infinity"])
    };
    start("writer", "data:/d").ok();
    home.run(&["exec", "writer", "sh", "-c", "echo synced > /d/f; busybox sync; echo lost > /d/g"]).ok();
    for other in ["data:/d", "data:/d:ro"] {
        start("other", other).refused("attached to box writer");
        home.run(&["rm", "other"]).ok();
    }
    home.run(&["volume", "rm", "data"]).refused("mounted by box writer");

    // The box's death frees the volume, whose journal is then replayed.
    let id = home.run(&["inspect", "writer"]).json()[0]["id"].as_str().unwrap().to_owned();
    let (qemu, shim) = Home::processes(&id).unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    until(TEST_TIMEOUT, "QEMU has gone with its shim", || {
        !Path::new(&format!("/proc/{}", qemu.as_raw_nonzero())).exists()
    });
    let copy = home.path().join("copy.ext4");
    run(Command::new("cp").arg("--sparse=always").arg(disk(&home, "data")).arg(&copy));
    let replayed = Command::new("e2fsck").arg("-p").arg(&copy).output().unwrap();
    assert!(matches!(replayed.status.code(), Some(0 | 1)), "{replayed:?}");
    fsck(&copy);
    std::fs::remove_file(&copy).unwrap();
    in_box(&home, "data:/d:ro", "true").refused("was not unmounted by its last writer");
    assert_eq!(in_box(&home, "data:/d", "busybox cat /d/f").ok(), "synced\n");
    fsck(&disk(&home, "data"));

    home.run(&["rm", "-f", "writer"]).ok();
    start("reader", "data:/d:ro").ok();
    assert_eq!(in_box(&home, "data:/d:ro", "busybox cat /d/f").ok(), "synced\n");
    in_box(&home, "data:/d", "true").refused("attached to box reader");
    home.run(&["stop", "-t", "1", "reader"]).ok();
    in_box(&home, "data:/d", "true").ok();
}

#[test]
fn a_volume_holds_no_more_than_its_size() {
    let Some(home) = Home::able() else { return };
    home.run(&["volume", "create", "--size", "32m", "--label", "tier=db", "small"]).ok();
    let script =
        "busybox dd if=/dev/urandom of=/d/big bs=1M count=64 2>&1; busybox rm /d/big; echo fits > /d/f";
    let said = in_box(&home, "small:/d", script).ok();
    assert!(said.contains("No space left on device"), "{said}");
    let shown = home.run(&["volume", "inspect", "small"]).json();
    assert_eq!(
        (&shown[0]["size"], &shown[0]["labels"]["tier"]),
        (&(32 << 20).into(), &"db".into()),
        "{shown}"
    );
    // What the guest frees, the host has back.
    assert!(shown[0]["allocated"].as_u64().unwrap() < 16 << 20, "{shown}");
}

#[test]
fn what_is_no_volume_is_refused_or_kept() {
    let home = Home::bare();
    for (name, part) in [
        ("../x", "not a name for a volume"),
        ("a/b", "not a name for a volume"),
        (".x", "not a name for a volume"),
        ("", "not a name for a volume"),
        ("ä", "not a name for a volume"),
        (&"x".repeat(129), "not a name for a volume"),
    ] {
        home.run(&["volume", "create", name]).refused(part);
        home.run(&["volume", "rm", "--", name]).refused(part);
    }
    for (size, part) in
        [("1m", "from 32 MiB to 16 TiB"), ("17t", "from 32 MiB to 16 TiB"), ("0", "from 32 MiB")]
    {
        home.run(&["volume", "create", "--size", size, "x"]).refused(part);
    }
    assert!(!home.path().join("volumes").exists());
    home.run(&["volume", "create", "--size", "32m", "data"]).ok();
    home.run(&["volume", "create", "data"]).refused("there is a volume 'data' already");

    // A removal that is killed after its decision is finished by gc, or by who wants the name.
    let killed = |point: &str, line: &[&str]| {
        let killed = home.command(line).env("BOXLITE_FAULT", format!("{point}=kill")).spawn().unwrap();
        assert_eq!(Output::of(killed).code(), None, "{point}");
    };
    killed("volume.intended", &["volume", "rm", "data"]);
    assert_eq!(home.run(&["volume", "ls", "-q"]).ok(), "");
    home.run(&["volume", "create", "--size", "32m", "data"]).ok();
    home.run(&["gc"]).ok();
    assert_eq!(home.run(&["volume", "ls", "-q"]).ok(), "data\n");
    killed("volume.intended", &["volume", "rm", "data"]);
    assert!(home.run(&["gc"]).ok().contains("a volume that was removed"));
    killed("volume.unpublished", &["volume", "create", "--size", "32m", "data"]);
    assert_eq!(home.run(&["volume", "ls", "-q"]).ok(), "");
    home.run(&["gc"]).ok();
    assert_eq!(std::fs::read_dir(home.path().join("images/tmp")).unwrap().count(), 0);

    let stray = home.path().join("volumes/stray");
    std::fs::create_dir(&stray).unwrap();
    std::fs::write(stray.join("disk.ext4"), "mine").unwrap();
    let said = home.run(&["gc", "--all"]).ok();
    assert!(said.contains("boxlite gc --purge volumes/stray"), "{said}");
    home.run(&["volume", "rm", "-f", "stray"]).refused("is not a volume of boxlite's");
    home.run(&["volume", "create", "stray"]).refused("is not a volume of boxlite's");
    home.run(&["gc", "--purge", "volumes/stray"]).ok();
    assert!(!stray.exists());
}
