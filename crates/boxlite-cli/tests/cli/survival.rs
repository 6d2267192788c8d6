//! `kill -9` of each process in turn: the next command tells the truth.

use std::fs;
use std::path::{Path, PathBuf};

use boxlite_testkit::deadline::eventually;
use boxlite_testkit::program::Output;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::home::Home;

fn state(home: &Home, name: &str) -> (String, serde_json::Value) {
    let info = home.run(&["inspect", name]).json();
    (info[0]["state"].as_str().unwrap().to_owned(), info[0].clone())
}

fn gone(pid: Pid) -> bool {
    // A zombie is not gone.
    test_kill_process(pid).is_err()
}

#[test]
fn the_truth_is_told_whichever_process_was_killed() {
    let Some(home) = Home::able() else { return };
    let id = home.run(&["create", "--name", "victim", &home.image("mini"), "sleep", "infinity"]).ok();
    let id = id.trim();

    // The command line: the box runs on.
    let child = home.start(&["start", "-a", "victim"]);
    let cli = Pid::from_child(&child);
    eventually("the box to run", || home.run(&["exec", "victim", "true"]).status.success().then_some(()));
    kill_process(cli, Signal::KILL).unwrap();
    Output::of(child);
    assert_eq!(state(&home, "victim").0, "running");
    assert_eq!(home.run(&["exec", "victim", "echo", "alive"]).ok(), "alive\n");

    // QEMU: the run has failed, and the box can be started again.
    let (qemu, shim) = Home::processes(id).expect("a virtual machine and its shim");
    kill_process(qemu, Signal::KILL).unwrap();
    eventually("the shim to end after its machine", || gone(shim).then_some(()));
    let (after, info) = state(&home, "victim");
    assert_eq!(after, "failed", "{info}");
    assert!(info["reason"].is_string(), "{info}");
    assert!(gone(qemu), "no zombie is left");
    home.run(&["exec", "victim", "true"]).refused("not running");

    // The shim: its machine goes with it.
    home.run(&["start", "victim"]).ok();
    let (qemu, shim) = Home::processes(id).expect("a virtual machine and its shim");
    kill_process(shim, Signal::KILL).unwrap();
    eventually("the machine to go with its shim", || gone(qemu).then_some(()));
    // The jailer ends, and lets go of the box's lock, an instant after the machine.
    eventually("the box to have failed", || (state(&home, "victim").0 == "failed").then_some(()));
    home.run(&["start", "victim"]).ok();
    assert_eq!(home.run(&["exec", "victim", "echo", "again"]).ok(), "again\n");
}

#[test]
fn a_box_whose_socket_is_gone_can_be_stopped_and_removed() {
    let Some(home) = Home::able() else { return };
    home.sleeper("mute");
    let id = state(&home, "mute").1["id"].as_str().unwrap().to_owned();
    let socket = home.path().join("boxes").join(&id).join("shim.sock");
    fs::remove_file(&socket).unwrap();
    home.run(&["stop", "-t", "1", "mute"]).ok();
    let (stopped, info) = state(&home, "mute");
    assert_eq!(stopped, "stopped", "{info}");
    home.run(&["start", "mute"]).ok();
    let (qemu, shim) = Home::processes(&id).expect("a virtual machine and its shim");
    fs::remove_file(&socket).unwrap();
    home.run(&["rm", "-f", "mute"]).ok();
    eventually("shim and machine to be gone", || (gone(shim) && gone(qemu)).then_some(()));
    assert!(!home.path().join("boxes").join(&id).exists());
}

#[test]
fn a_disk_image_that_vanished_is_made_again_or_its_absence_explained() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    // Small enough to be compared whole.
    fs::write(home.path().join("config.toml"), "disk_size = \"128MiB\"\n").unwrap();
    home.run(&["run", "--name", "keeper", &image, "sh", "-c", "echo kept >/root/note"]).ok();
    let directory = home.path().join("images/disk-images");
    let vanish = |directory: &Path| {
        let files: Vec<PathBuf> =
            fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(!files.is_empty());
        let bytes = fs::read(&files[0]).unwrap();
        for file in files {
            fs::remove_file(file).unwrap();
        }
        bytes
    };
    let before = vanish(&directory);
    let output = home.run(&["start", "-a", "keeper"]);
    assert_eq!(output.code(), Some(0), "{output:?}");
    let after = vanish(&directory);
    assert!(before == after, "the same image again, byte for byte");

    home.run(&["rmi", "-f", &image]).ok();
    vanish(&home.path().join("images/blobs/sha256"));
    let error = home.run(&["start", "keeper"]).refused("");
    assert!(error.contains("keeper") || error.contains(&image), "{error}");
    assert!(error.contains("pull"), "it says how to get the image back: {error}");
    assert_eq!(state(&home, "keeper").0, "stopped", "a refused start changes nothing");
    // Its message helps.
    home.run(&["pull", &image]).ok();
    home.run(&["start", "-a", "keeper"]).ok();
}
