//! `run`: what a command in a box prints, reads and returns.

use std::process::Command;

use boxlite_testkit::deadline::eventually;
use boxlite_testkit::program::{Output, noise};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use crate::home::Home;

#[test]
fn a_command_runs_as_asked_and_its_box_goes() {
    let Some(home) = Home::able() else { return };
    let script = "echo out; echo err >&2; echo $A; pwd; id -u; id -g; hostname; exit 7";
    let output = home.run(&[
        "run",
        "--rm",
        "-e",
        "A=spaced value",
        "-w",
        "/var/made",
        "-u",
        "1234:5",
        "--hostname",
        "inside",
        &home.image("mini"),
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(output.text(), "out\nspaced value\n/var/made\n1234\n5\ninside\n", "{output:?}");
    assert_eq!(told(&output.err), ["err"]);
    assert_eq!(output.code(), Some(7));
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "", "--rm leaves nothing");
    let boxes = std::fs::read_dir(home.path().join("boxes")).unwrap().count();
    assert_eq!(boxes, 0, "nor a directory");
}

/// The lines of `err` but for what the first start of a home says where boxes are emulated.
fn told(err: &str) -> Vec<&str> {
    err.lines().filter(|line| !line.starts_with("boxlite: warning: boxes are emulated")).collect()
}

#[test]
fn large_binary_streams_pass_both_ways_unharmed() {
    let Some(home) = Home::able() else { return };
    let data = noise(50 << 20);
    let expected = Sha256::digest(&data);
    let output = home.run_with(&["run", "--rm", "-i", &home.image("mini"), "cat"], data);
    assert_eq!((output.code(), told(&output.err).len(), output.out.len()), (Some(0), 0, 50 << 20));
    assert_eq!(Sha256::digest(&output.out), expected);
}

#[test]
fn what_can_not_be_run_ends_with_127_and_leaves_the_box_to_look_at() {
    let Some(home) = Home::able() else { return };
    let output = home.run(&["run", "--name", "odd", &home.image("mini"), "--no-such-program"]);
    assert_eq!(output.code(), Some(127), "{output:?}");
    assert!(output.err.contains("boxlite: --no-such-program: "), "{output:?}");
    assert!(output.err.contains("hint: options of boxlite stand before the image"), "{output:?}");
    let info = home.run(&["inspect", "odd"]).json();
    assert_eq!(info[0]["exit_code"], 127, "{info}");
    home.run(&["rm", "odd"]).ok();
}

#[test]
fn signals_reach_the_command() {
    let Some(home) = Home::able() else { return };
    let script = "trap 'echo got it; exit 33' TERM; echo ready; while :; do sleep 0.1; done";
    let child = home.start(&["run", "--name", "trap", &home.image("mini"), "bash", "-c", script]);
    let pid = Pid::from_child(&child);
    eventually("the command to be ready", || {
        home.run(&["logs", "trap"]).text().contains("ready").then_some(())
    });
    kill_process(pid, Signal::TERM).unwrap();
    let output = Output::of(child);
    assert_eq!(output.text(), "ready\ngot it\n", "{output:?}");
    assert_eq!(output.code(), Some(33));
    // The same box again, ended by a signal that it does not catch.
    let child = home.start(&["start", "-a", "trap"]);
    eventually("the command to be killed", || home.run(&["kill", "trap"]).status.success().then_some(()));
    assert_eq!(Output::of(child).code(), Some(137));
    let info = home.run(&["inspect", "trap"]).json();
    assert_eq!((&info[0]["state"], &info[0]["exit_code"]), (&"stopped".into(), &137.into()), "{info}");
}

#[test]
fn an_interrupted_start_leaves_no_box_and_no_machine() {
    let Some(home) = Home::able() else { return };
    let child = home.start(&["run", "--rm", &home.image("mini"), "sleep", "infinity"]);
    let id = eventually("the box to be recorded", || {
        let id = home.run(&["ls", "-aq", "--no-trunc"]).text();
        (!id.is_empty()).then(|| id.trim().to_owned())
    });
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = Output::of(child);
    assert!(matches!(output.code(), Some(130)), "{output:?}");
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
    assert!(Home::processes(&id).is_none(), "its machine is gone");
}

/// Mutation tried: without the stop the machine goes on booting and the box runs.
#[test]
fn a_box_interrupted_as_it_boots_does_not_run_on() {
    let Some(home) = Home::able() else { return };
    let child = home.start(&["run", "--name", "ic", &home.image("mini"), "sleep", "infinity"]);
    let id = eventually("the machine to start", || {
        let id = home.run(&["ls", "-aq", "--no-trunc"]).text().trim().to_owned();
        (!id.is_empty() && Home::processes(&id).is_some()).then_some(id)
    });
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = Output::of(child);
    assert_eq!((output.code(), told(&output.err).len()), (Some(130), 0), "{output:?}");
    assert!(Home::processes(&id).is_none(), "its machine is gone");
    assert_eq!(home.run(&["ls", "-q"]).ok(), "");
    home.run(&["rm", "ic"]).ok();
}

#[test]
fn a_reader_that_goes_away_ends_the_writer_quietly() {
    let Some(home) = Home::able() else { return };
    let mut child = home.start(&["run", "--rm", &home.image("mini"), "yes"]);
    let head = Command::new("head").args(["-n", "3"]).stdin(child.stdout.take().unwrap()).output().unwrap();
    assert_eq!(head.stdout, b"y\ny\ny\n");
    let output = Output::of(child);
    assert_eq!((output.code(), told(&output.err).len()), (Some(141), 0), "{output:?}");
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
}
