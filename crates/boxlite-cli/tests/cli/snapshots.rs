//! Snapshots of boxes that run and of boxes at rest, and the way back to them.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use boxlite_testkit::deadline::eventually;
use boxlite_testkit::program::Output;

use crate::home::Home;

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn id_of(home: &Home, name: &str) -> String {
    home.run(&["inspect", name]).json()[0]["id"].as_str().unwrap().to_owned()
}

fn overlay(home: &Home, name: &str) -> PathBuf {
    home.path().join("boxes").join(id_of(home, name)).join("disks/root.qcow2")
}

fn configure(home: &Home) {
    fs::write(home.path().join("config.toml"), "disk_size = \"128MiB\"\ngrace = \"0s\"\n").unwrap();
}

/// The base that the box's overlay names.
fn base_below(overlay: &Path) -> PathBuf {
    let listed =
        Command::new("qemu-img").args(["info", "-U", "--output=json"]).arg(overlay).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    listed["full-backing-filename"].as_str().unwrap().into()
}

/// Checks that the disk `top` holds a filesystem that needs neither repair nor its journal, and returns its flat copy.
fn whole(home: &Home, top: &Path) -> PathBuf {
    let flat = home.path().join("flat.img");
    let convert = Command::new("qemu-img").args(["convert", "-U", "-O", "raw"]).arg(top).arg(&flat).output();
    let convert = convert.unwrap();
    assert!(convert.status.success(), "{}", String::from_utf8_lossy(&convert.stderr));
    let checked = Command::new("e2fsck").arg("-fn").arg(&flat).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{said}{}", String::from_utf8_lossy(&checked.stderr));
    assert!(!said.contains("journal"), "nothing is to be recovered: {said}");
    let features = Command::new("dumpe2fs").arg("-h").arg(&flat).output().unwrap();
    let features = String::from_utf8_lossy(&features.stdout).into_owned();
    assert!(!features.contains("needs_recovery"), "{features}");
    flat
}

/// A file on a flat disk.
fn file_on(flat: &Path, path: &str) -> String {
    let shown = Command::new("debugfs").arg("-R").arg(format!("cat {path}")).arg(flat).output().unwrap();
    String::from_utf8(shown.stdout).unwrap()
}

fn exec(home: &Home, script: &str) -> String {
    home.run(&["exec", "box", "sh", "-c", script]).ok()
}

/// The names of the qcow2 files that the box's QEMU could write to, once it has let go of those that it could.
fn writable_in_qemu(home: &Home) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let (qemu, _) = Home::processes(&id_of(home, "box")).expect("QEMU");
    let of_process = PathBuf::from(format!("/proc/{}", qemu.as_raw_nonzero()));
    let directories = [home.path().join("bases"), overlay(home, "box").parent().unwrap().to_owned()];
    let files: Vec<PathBuf> = directories
        .iter()
        .flat_map(|directory| names(directory).into_iter().map(|name| directory.join(name)))
        .collect();
    let look = || {
        let mut found = Vec::new();
        for name in names(&of_process.join("fd")) {
            let flags = fs::read_to_string(of_process.join("fdinfo").join(&name)).unwrap_or_default();
            let flags = flags.lines().find_map(|line| line.strip_prefix("flags:").map(str::trim));
            let Some(flags) = flags.and_then(|octal| u32::from_str_radix(octal, 8).ok()) else { continue };
            let Ok(open) = fs::metadata(of_process.join("fd").join(&name)) else { continue };
            let is_open = |path: &&PathBuf| fs::metadata(path).is_ok_and(|file| file.ino() == open.ino());
            if flags & 3 != 0
                && let Some(path) = files.iter().find(is_open)
            {
                found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
        found.sort();
        found.dedup();
        found
    };
    eventually("QEMU to let go of the bases", || Some(look()).filter(|found| found.len() == 1))
}

fn snapshots(home: &Home) -> Vec<String> {
    home.run(&["snapshot", "ls", "-q", "box"]).ok().lines().map(str::to_owned).collect()
}

/// Before: with the file's node inside the format's, `blockdev-reopen` left QEMU its right to write to the second base.
#[test]
fn a_running_box_is_kept_as_it_was_and_comes_back() {
    let Some(home) = Home::able() else { return };
    configure(&home);
    home.sleeper("box");
    exec(
        &home,
        "echo one >/root/file; dd if=/dev/urandom of=/root/noise bs=64k count=32 2>/dev/null; md5sum /root/noise >/root/sum",
    );
    // Somebody writes all the time.
    exec(&home, "(i=0; while :; do i=$((i+1)); echo $i >>/root/ticks; sleep 0.05; done) >/dev/null 2>&1 &");
    // What the agent changes of the kernel for a freeze, it puts back.
    let pace = "grep . /proc/sys/vm/dirty_*bytes /proc/sys/vm/dirty_*ratio /sys/kernel/rcu_expedited";
    let before = exec(&home, pace);
    assert_eq!(home.run(&["snapshot", "create", "box", "first"]).ok(), "first\n");
    assert_eq!(exec(&home, pace), before);
    let listed = home.run(&["snapshot", "ls", "box", "--format", "json"]).json();
    let frozen = listed[0]["frozen_us"].as_u64().unwrap();
    println!("the guest stood still for {frozen} us");
    assert!(frozen < 5_000_000, "{listed}");
    assert!(listed[0]["bytes"].as_u64().unwrap() >= 2 << 20, "{listed}");

    // The base is what the guest had written, and stays so while the box writes on.
    let root = overlay(&home, "box");
    let base = base_below(&root);
    let flat = whole(&home, &base);
    assert_eq!(file_on(&flat, "/root/file"), "one\n");
    let before = fs::read(&base).unwrap();
    exec(&home, "echo two >/root/file; rm /root/noise; sync");
    assert!(fs::read(&base).unwrap() == before, "a base changed");

    // A second one costs what was written since, and gc keeps all of it.
    home.run(&["snapshot", "create", "box", "second"]).ok();
    home.run(&["snapshot", "create", "box", "second"]).refused("second");
    assert_eq!(names(&home.path().join("bases")).len(), 2);
    let second = base_below(&root);
    assert_eq!(file_on(&whole(&home, &second), "/root/file"), "two\n");
    exec(&home, "echo three >/root/file");
    assert_eq!(writable_in_qemu(&home), ["root.qcow2"], "QEMU has no right to write to a base");
    home.run(&["gc"]).ok();
    assert_eq!(names(&home.path().join("bases")).len(), 2);
    home.run(&["snapshot", "restore", "box", "first"]).refused("running");

    // Back, by way of a stop.
    home.run(&["snapshot", "restore", "-f", "box", "first"]).ok();
    home.run(&["snapshot", "restore", "box", "none"]).refused("none");
    home.run(&["start", "box"]).ok();
    assert_eq!(exec(&home, "cat /root/file; cd /; md5sum -c /root/sum"), "one\n/root/noise: OK\n");

    // What stands on nothing any more is still a snapshot, and says so.
    let name = second.file_name().unwrap().to_str().unwrap();
    let why = home.run(&["gc", "--explain", name]).ok();
    assert!(why.contains("snapshot of box"), "{why}");
    home.run(&["gc", "--purge", name]).refused("");
    home.run(&["gc"]).ok();
    assert_eq!(names(&home.path().join("bases")).len(), 2);
    home.run(&["stop", "-t", "1", "box"]).ok();
    home.run(&["snapshot", "restore", "box", "second"]).ok();
    home.run(&["start", "box"]).ok();
    assert_eq!(exec(&home, "cat /root/file"), "two\n");

    // The first holds the second, and goes with it; one that is removed goes once nothing stands on it.
    home.run(&["snapshot", "rm", "box", "first"]).ok();
    home.run(&["gc"]).ok();
    assert_eq!(names(&home.path().join("bases")).len(), 2);
    assert_eq!(snapshots(&home), ["second"]);
    home.run(&["rm", "-f", "box"]).ok();
    home.run(&["gc"]).ok();
    assert_eq!(names(&home.path().join("bases")), [""; 0]);
}

#[test]
fn a_box_at_rest_has_its_snapshots_and_their_clones() {
    let Some(home) = Home::able() else { return };
    configure(&home);
    let image = home.image("mini");
    let count = "echo x >>/root/count; wc -l </root/count";
    home.run(&["create", "--name", "box", &image, "sh", "-c", count]).ok();
    let runs = |name: &str| home.run(&["start", "-a", name]).text().trim().to_owned();
    home.run(&["snapshot", "create", "box", "empty"]).ok();
    assert_eq!(runs("box"), "1");
    home.run(&["snapshot", "create", "box", "one"]).ok();
    home.run(&["snapshot", "create", "box", "same"]).ok();
    assert_eq!(names(&home.path().join("bases")).len(), 1, "nothing was written in between");
    assert_eq!(runs("box"), "2");
    let made_up = home.run(&["snapshot", "create", "box"]).ok();
    assert_eq!(snapshots(&home), ["empty", "one", "same", made_up.trim()]);

    home.run(&["clone", "--name", "copy", "--from-snapshot", "one", "box"]).ok();
    assert_eq!(runs("copy"), "2");
    assert_eq!(runs("box"), "3");
    home.run(&["snapshot", "restore", "box", "same"]).ok();
    assert_eq!(runs("box"), "2");
    home.run(&["snapshot", "restore", "box", "empty"]).ok();
    assert_eq!(runs("box"), "1");
    home.run(&["clone", "--from-snapshot", "none", "box"]).refused("none");

    // The clone stands on the base of `one`; nothing stands on that of the last.
    home.run(&["snapshot", "rm", "box", "one", "same", made_up.trim()]).ok();
    home.run(&["gc"]).ok();
    assert_eq!(names(&home.path().join("bases")).len(), 1);
    assert_eq!(runs("copy"), "3");
    home.run(&["rm", "copy"]).ok();
    home.run(&["gc"]).ok();
    assert_eq!(names(&home.path().join("bases")), [""; 0]);
    assert_eq!(runs("box"), "2");
    let floors = [("BOXLITE_HARD_FLOOR", "8000TiB"), ("BOXLITE_SOFT_FLOOR", "8000TiB")];
    let refused = { home.command(["snapshot", "create", "box"]) }.envs(floors).spawn().unwrap();
    Output::of(refused).lacks_room("free");
    home.run(&["snapshot", "create", "box", "no/name"]).refused("no/name");
}

/// At each step the box runs on, and starts again with all that it wrote; the next snapshot goes on from there. Between what is
/// prepared and the switch the guest runs, which has cost more of its pause than all the rest.
#[test]
fn a_kill_at_any_step_loses_nothing() {
    let Some(home) = Home::able() else { return };
    configure(&home);
    home.sleeper("box");
    let steps = [
        "base.noted",
        "link.made",
        "base.linked",
        "publish.renamed",
        "snapshot.prepared",
        "snapshot.replaced",
        "snapshot.switched",
        "snapshot.recorded",
    ];
    for (round, step) in steps.into_iter().enumerate() {
        exec(&home, &format!("echo before {round} >>/root/diary"));
        let kept = snapshots(&home).len();
        let killed = { home.command(["snapshot", "create", "box"]) }
            .env("BOXLITE_FAULT", format!("{step}=kill"))
            .spawn()
            .unwrap();
        let killed = Output::of(killed);
        assert_eq!(killed.status.signal(), Some(9), "at {step}: {killed:?}");
        let is_taken = snapshots(&home).len() - kept;
        assert_eq!(is_taken, usize::from(step == "snapshot.recorded"), "at {step}");
        // The guest is not left standing still, and gc beside it takes nothing that is needed.
        exec(&home, &format!("echo after {round} >>/root/diary; sync"));
        home.run(&["gc"]).ok();
        if ["base.linked", "snapshot.replaced"].contains(&step) {
            // Whatever QEMU wrote to, the box comes back with it.
            home.run(&["kill", "-s", "KILL", "box"]).ok();
            home.run(&["wait", "box"]);
            home.run(&["start", "box"]).ok();
        } else {
            home.run(&["snapshot", "create", "box", &format!("round-{round}")]).ok();
        }
        let lines: Vec<String> =
            (0..=round).map(|round| format!("before {round}\nafter {round}\n")).collect();
        let expected = lines.concat();
        assert_eq!(exec(&home, "cat /root/diary"), expected, "at {step}");
    }
    home.run(&["stop", "-t", "1", "box"]).ok();
    let checked = Command::new("qemu-img").arg("check").arg(overlay(&home, "box")).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));

    // The way back is one rename.
    for step in ["publish.renamed", "restore.replaced"] {
        let killed = { home.command(["snapshot", "restore", "box", "round-0"]) }
            .env("BOXLITE_FAULT", format!("{step}=kill"))
            .spawn()
            .unwrap();
        assert_eq!(Output::of(killed).status.signal(), Some(9), "at {step}");
        home.run(&["gc"]).ok();
        home.run(&["start", "box"]).ok();
        assert_eq!(exec(&home, "cat /root/diary"), "before 0\nafter 0\n", "at {step}");
        home.run(&["stop", "-t", "1", "box"]).ok();
    }
    home.run(&["rm", "box"]).ok();
    home.run(&["gc"]).ok();
    assert_eq!(names(&home.path().join("bases")), [""; 0]);
}
