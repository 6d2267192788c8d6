//! Clones: two boxes that share what one of them had written, and part from there.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use boxlite_testkit::deadline::eventually;
use boxlite_testkit::program::Output;

use crate::disks::overlay;
use crate::home::Home;

/// Appends its host name to a file, so that each run shows whose disk it found.
const DIARY: &str = "hostname >>/root/diary; cat /root/diary";

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// The files of the chain as QEMU's own tool follows it, the overlay first.
fn chain(overlay: &Path) -> Vec<String> {
    let command = ["info", "--backing-chain", "--output=json"];
    let listed = Command::new("qemu-img").args(command).arg(overlay).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let files = listed.as_array().unwrap().iter();
    files.map(|file| file["filename"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
}

fn sound(overlay: &Path) {
    let checked = Command::new("qemu-img").arg("check").arg(overlay).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

fn diary(home: &Home, name: &str) -> String {
    let output = home.run(&["start", "-a", name]);
    assert_eq!(output.code(), Some(0), "{output:?}");
    output.text()
}

/// The origin of the tests: it has run once and written its name.
fn origin(home: &Home) {
    fs::write(home.path().join("config.toml"), "disk_size = \"128MiB\"\ngrace = \"0s\"\n").unwrap();
    let image = home.image("mini");
    let run = ["run", "--name", "origin", "--hostname", "first", &image, "sh", "-c", DIARY];
    assert_eq!(home.run(&run).ok(), "first\n");
}

/// Mutations tried: with the origin's overlay left in place, its next run shows in the clone; without the look at
/// `pristine`, the second clone of an unchanged box lengthens the chain.
#[test]
fn a_clone_has_the_files_and_goes_its_own_way() {
    let Some(home) = Home::able() else { return };
    origin(&home);
    let id = home.run(&["clone", "--name", "copy", "origin"]).ok();
    assert_eq!(id.trim().len(), 32, "{id}");
    assert_eq!(chain(&overlay(&home, "copy")).len(), 3, "overlay, base, disk image");
    assert_eq!(diary(&home, "origin"), "first\nfirst\n");
    assert_eq!(diary(&home, "copy"), "first\nfirst\n");
    assert_eq!(diary(&home, "copy"), "first\nfirst\nfirst\n");
    assert_eq!(diary(&home, "origin"), "first\nfirst\nfirst\n");

    // A clone of a clone that was written to stands on both; clones of an unchanged box stand on one base.
    home.run(&["clone", "--name", "grandchild", "copy"]).ok();
    home.run(&["clone", "--name", "sibling", "copy"]).ok();
    let (grandchild, sibling) = (overlay(&home, "grandchild"), overlay(&home, "sibling"));
    assert_eq!(chain(&grandchild).len(), 4);
    assert_eq!(chain(&grandchild)[1..], chain(&sibling)[1..]);
    assert_eq!(names(&home.path().join("bases")).len(), 2);
    assert_eq!(diary(&home, "sibling"), "first\n".repeat(4));
    for name in ["origin", "copy", "grandchild", "sibling"] {
        sound(&overlay(&home, name));
    }

    // gc keeps what any of them stands on, and takes it when the last has gone.
    home.run(&["rm", "origin"]).ok();
    home.run(&["rm", "copy"]).ok();
    home.run(&["gc"]).ok();
    assert_eq!(names(&home.path().join("bases")).len(), 2);
    assert_eq!(diary(&home, "grandchild"), "first\n".repeat(4));
    home.run(&["rm", "grandchild"]).ok();
    home.run(&["rm", "sibling"]).ok();
    home.run(&["gc"]).ok();
    assert_eq!(names(&home.path().join("bases")), [""; 0]);
}

#[test]
fn what_cannot_be_cloned_is_left_as_it_was() {
    let Some(home) = Home::able() else { return };
    home.run(&["clone", "nobody"]).refused("nobody");
    home.sleeper("busy");
    home.run(&["clone", "busy"]).refused("running");
    let image = home.image("mini");
    home.run(&["create", "--name", "fresh", &image, "true"]).ok();
    home.run(&["clone", "--name", "busy", "fresh"]).refused("busy");
    home.run(&["clone", "--name", "no/name", "fresh"]).refused("no/name");
    let floors = [("BOXLITE_HARD_FLOOR", "8000TiB"), ("BOXLITE_SOFT_FLOOR", "8000TiB")];
    let refused = { home.command(["clone", "fresh"]) }.envs(floors).spawn().unwrap();
    Output::of(refused).lacks_room("free");
    home.run(&["run", "-d", "--rm", "--name", "passing", &image, "true"]).ok();
    eventually("the box to be removed at its end", || {
        (!home.run(&["ls", "-a"]).text().contains("passing")).then_some(())
    });
    home.run(&["clone", "passing"]).refused("passing");
    assert_eq!(home.run(&["ls", "-aq"]).ok().lines().count(), 2);
    // Nothing was written to that box yet, so there is nothing to share.
    home.run(&["clone", "--name", "fresher", "fresh"]).ok();
    assert_eq!(home.run(&["start", "-a", "fresher"]).code(), Some(0));
    assert_eq!(names(&home.path().join("bases")), [""; 0]);
}

/// Mutation tried: with the record written before the origin's overlay is replaced, the kill in between leaves a
/// clone on a file that the origin still writes to.
#[test]
fn a_kill_at_any_step_leaves_the_origin_whole_and_gc_converges() {
    let Some(home) = Home::able() else { return };
    origin(&home);
    let root = overlay(&home, "origin");
    let written = fs::read(&root).unwrap();
    let points = [
        "link.made",
        "link.durable",
        "publish.written",
        "publish.synced",
        "publish.renamed",
        "publish.durable",
        "publish.written=kill:2",
        "publish.renamed=kill:2",
        "publish.durable=kill:2",
    ];
    for point in points {
        let fault = if point.contains('=') { point.to_owned() } else { format!("{point}=kill") };
        let killed =
            { home.command(["clone", "--name", "copy", "origin"]) }.env("BOXLITE_FAULT", &fault).spawn();
        let killed = Output::of(killed.unwrap());
        assert_eq!(killed.status.signal(), Some(9), "at {point}: {killed:?}");
        assert_eq!(home.run(&["ls", "-aq"]).ok().lines().count(), 1, "at {point}: no clone");
        sound(&root);
        chain(&root);
        if point == "link.durable" {
            // The base that was left is this very file: the next clone stands on it, and makes no second one.
            home.run(&["clone", "--name", "after", "origin"]).ok();
            assert_eq!(names(&home.path().join("bases")).len(), 1, "one file is one base");
            home.run(&["rm", "after"]).ok();
        }
        home.run(&["gc"]).ok();
        let again = home.run(&["gc", "--format", "json"]).json();
        assert_eq!(again["reclaimed"], 0, "at {point}: {again}");
        assert!(names(&home.path().join("bases")).len() <= 1, "at {point}");
        if point.ends_with("durable=kill:2") {
            assert_eq!(diary(&home, "origin"), "first\nfirst\n", "at {point}");
        }
        // The next round's origin has something of its own again. What it stood on explains nothing any more, so gc
        // leaves it to a person.
        fs::write(&root, &written).unwrap();
        for base in names(&home.path().join("bases")) {
            home.run(&["gc", "--purge", &base]).ok();
        }
    }
    assert_eq!(diary(&home, "origin"), "first\nfirst\n");
    home.run(&["clone", "--name", "copy", "origin"]).ok();
    assert_eq!(diary(&home, "copy"), "first\n".repeat(3));
}
