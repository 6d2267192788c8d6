//! A box that uses up its disk quota: it alone is paused, for all to see, and goes on once the quota is raised.

use std::process::Command;
use std::time::Duration;

use boxlite_testkit::deadline;
use boxlite_testkit::program::run;

use crate::home::Home;

/// How long a guest on a busy host may take to write some hundred mebibytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(240);

const WRITE: &str = "yes boxlite | head -c 200000000 > /root/file && sync && echo written > /root/done";
const SUM: &str = "yes boxlite | head -c 200000000 | sha256sum";

/// Starts a box with this quota.
fn start(home: &Home, name: &str, quota: &str) {
    let image = home.image("mini");
    home.run(&["run", "-d", "--name", name, "--disk-quota", quota, &image, "sleep", "infinity"]).ok();
}

/// The line of `ls` for the box `name`.
fn line(home: &Home, name: &str) -> String {
    let table = home.run(&["ls", "-a", "--no-trunc"]).ok();
    table.lines().find(|line| line.ends_with(name)).expect("a line of that box").to_owned()
}

fn until_paused(home: &Home, name: &str) {
    deadline::until(WRITE_TIMEOUT, "the box to be paused", || line(home, name).contains("Paused"));
}

fn inspect(home: &Home, name: &str) -> serde_json::Value {
    home.run(&["inspect", name]).json()[0].clone()
}

/// The first word of what `sha256sum` printed.
fn sum(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// Mutation tried: an update that leaves `box.json` alone fails the last line.
#[test]
fn a_box_that_uses_up_its_quota_is_paused_alone_and_goes_on_once_it_is_raised() {
    let Some(home) = Home::able() else { return };
    start(&home, "writer", "40m");
    home.sleeper("other");
    home.run(&["exec", "-d", "writer", "sh", "-c", WRITE]).ok();
    until_paused(&home, "writer");

    let shown = line(&home, "writer");
    assert!(shown.contains("Paused (disk quota: "), "{shown}");
    assert!(shown.contains(" of 40 MiB used; raise it with `boxlite update`)"), "{shown}");
    assert!(line(&home, "other").contains("Up "), "{}", line(&home, "other"));
    assert_eq!(home.run(&["exec", "other", "echo", "served"]).ok(), "served\n");
    let inspected = inspect(&home, "writer");
    assert_eq!((&inspected["state"], &inspected["pause"]["cause"]), (&"paused".into(), &"disk_quota".into()));
    let (used, limit) = (&inspected["pause"]["quota"]["used"], &inspected["pause"]["quota"]["limit"]);
    assert!(used.as_u64() >= limit.as_u64() && *limit == 40 << 20, "{inspected}");
    assert!(used.as_u64() < Some(200_000_000), "it was paused before it had written all: {inspected}");
    home.run(&["exec", "--no-wait", "writer", "true"]).lacks_room("box writer is paused (disk quota: ");

    for (bad, parts) in [
        ("0", ["of 0 B is too small", "at least 16 MiB"]),
        ("15m", ["of 15 MiB is too small", "at least 16 MiB"]),
        ("40m", ["of 40 MiB is too small for box writer", "already"]),
        ("1t", ["of 1 TiB is not below", "virtual size of 10 GiB"]),
    ] {
        let refused = home.run(&["update", "--disk-quota", bad, "writer"]).refused(parts[0]);
        assert!(refused.contains(parts[1]), "{refused}");
    }
    assert!(line(&home, "writer").contains("Paused (disk quota: "), "{}", line(&home, "writer"));

    assert_eq!(home.run(&["update", "--disk-quota", "1g", "writer"]).ok(), "writer\n");
    deadline::until(WRITE_TIMEOUT, "the write to end", || {
        home.run(&["exec", "writer", "cat", "/root/done"]).text() == "written\n"
    });
    assert!(line(&home, "writer").contains("Up "), "{}", line(&home, "writer"));
    let expected = run(Command::new("sh").arg("-c").arg(SUM));
    assert_eq!(sum(&home.run(&["exec", "writer", "sha256sum", "/root/file"]).ok()), sum(&expected));
    let inspected = inspect(&home, "writer");
    assert_eq!(inspected["options"]["disk_quota"], 1 << 30);
    let description = home.path().join("boxes").join(inspected["id"].as_str().unwrap()).join("box.json");
    let description = std::fs::read_to_string(description).unwrap();
    assert!(description.contains("\"disk_quota\": 1073741824"), "{description}");
}

/// Data that stays in the guest's memory until somebody asks for it to be synced, its checksum, and then more than the quota.
const HOLD_BACK: &str = "echo 0 > /proc/sys/vm/dirty_writeback_centisecs; \
                         echo 90 > /proc/sys/vm/dirty_background_ratio; echo 90 > /proc/sys/vm/dirty_ratio; \
                         head -c 24000000 /dev/urandom > /root/data; sha256sum /root/data";
const OVERFLOW: &str = "dd if=/dev/urandom of=/root/more bs=1M count=80 && sync /root/more";

/// Mutation tried: with a quota that binds a stopping guest as well, the stop fails with "unflushed writes were lost".
#[test]
fn a_stop_of_a_box_that_is_paused_by_its_quota_keeps_what_was_not_synced() {
    let Some(home) = Home::able() else { return };
    start(&home, "held", "40m");
    let before = home.run(&["exec", "held", "sh", "-c", HOLD_BACK]).ok();
    home.run(&["exec", "-d", "held", "sh", "-c", OVERFLOW]).ok();
    until_paused(&home, "held");
    assert_eq!(home.run(&["stop", "-t", "1", "held"]).ok(), "held\n");
    assert_eq!(inspect(&home, "held")["state"], "stopped");

    home.run(&["start", "held"]).lacks_room("of its disk quota of 40 MiB, so its guest could not run");
    let file = home.path().with_extension("copied");
    std::fs::write(&file, "x").unwrap();
    home.run(&["cp", file.to_str().unwrap(), "held:/root/"]).lacks_room("disk quota of 40 MiB");
    std::fs::remove_file(&file).unwrap();
    assert!(home.run(&["cp", "held:/etc/passwd", "-"]).ok().contains("root"), "copies out of it go on");

    home.run(&["update", "--disk-quota", "none", "held"]).ok();
    assert_eq!(inspect(&home, "held")["options"]["disk_quota"], serde_json::Value::Null);
    home.run(&["start", "held"]).ok();
    assert_eq!(home.run(&["exec", "held", "sha256sum", "/root/data"]).ok(), before);
}

#[test]
fn a_quota_is_checked_at_creation_and_kept_by_clones() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    for (quota, refusal) in [("10g", "not below the disk's virtual size of 10 GiB"), ("1m", "too small")] {
        home.run(&["create", "--disk-quota", quota, &image, "true"]).refused(refusal);
    }
    home.run(&["create", "--name", "origin", "--disk-quota", "64m", &image, "true"]).ok();
    home.run(&["clone", "--name", "copy", "origin"]).ok();
    home.run(&["update", "--disk-quota", "1g", "origin"]).ok();
    assert_eq!(inspect(&home, "copy")["options"]["disk_quota"], 64 << 20);
    assert_eq!(inspect(&home, "origin")["options"]["disk_quota"], 1 << 30);
    home.run(&["update", "--disk-quota", "1g", "nobody"]).refused("nobody");
}
