//! INT at every moment of a `run`: it ends, and leaves neither a box nor a machine.

use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use boxlite_testkit::deadline::{TEST_TIMEOUT, until};
use boxlite_testkit::program::{Output, run};
use rustix::process::{Pid, Signal, kill_process};

use crate::home::Home;

/// An interrupted `run` that takes longer hangs; a busy machine needs a good part of this.
const END_TIMEOUT: Duration = Duration::from_secs(60);

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

/// Whether the process catches INT. A test may run where that is ignored, and then its children ignore it until they do.
fn catches_interrupts(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    caught & (1 << (libc::SIGINT - 1)) != 0
}

fn threads(child: &Child) -> usize {
    std::fs::read_dir(Path::new("/proc").join(child.id().to_string()).join("task")).map_or(0, Iterator::count)
}

/// Before: the box stayed in state Created.
#[test]
fn a_box_that_is_recorded_as_its_creation_is_interrupted_does_not_stay() {
    let Some(home) = Home::able() else { return };
    home.run(&["pull", "-q", &home.image("mini")]).ok();
    let gate = home.path().join("gate");
    run(Command::new("mkfifo").arg(&gate));
    let arguments = ["run", "--rm", &home.image("mini"), "sleep", "infinity"];
    let mut command = home.command(arguments);
    command.env("BOXLITE_FAULT", format!("create.recorded=wait:{}", gate.display()));
    let child = command.spawn().expect("starting boxlite");
    // Opens as soon as the box is recorded, and its creation goes on when this is closed again.
    let opened = std::fs::File::options().write(true).open(&gate).unwrap();
    let busy = threads(&child);
    interrupt(&child);
    until(TEST_TIMEOUT, "the interruption to be noticed", || threads(&child) < busy);
    drop(opened);
    let output = Output::of(child);
    assert_eq!((output.code(), output.err.as_str()), (Some(130), ""), "{output:?}");
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
    assert_eq!(std::fs::read_dir(home.path().join("boxes")).unwrap().count(), 0);
}

/// Interrupts so many runs, each at another moment of the first 150 ms.
fn interrupt_runs(tries: u64) {
    let Some(home) = Home::able() else { return };
    home.run(&["pull", "-q", &home.image("mini")]).ok();
    let mut failures = Vec::new();
    for number in 0..tries {
        // Steps of the golden ratio cover the span evenly, however many there are.
        let moment = Duration::from_micros(number * 92_705 % 150_000);
        let child = home.start(&["run", "--rm", &home.image("mini"), "sleep", "infinity"]);
        thread::sleep(moment);
        until(TEST_TIMEOUT, "signals to be caught", || catches_interrupts(&child));
        interrupt(&child);
        let output = Output::within(child, END_TIMEOUT);
        let left = home.run(&["ls", "-aq"]).ok();
        if output.code() != Some(130) || !left.is_empty() {
            for id in left.split_whitespace() {
                home.run(&["rm", "-f", id]);
            }
            failures.push(format!("try {number}, after {moment:?}: {output:?}, left: {left:?}"));
            println!("{}", failures[failures.len() - 1]);
        }
        if number % 50 == 49 {
            println!("{} tries, {} failures", number + 1, failures.len());
        }
    }
    assert!(failures.is_empty(), "{} of {tries}: {failures:#?}", failures.len());
}

/// Before: 2 of 250 hung until a second signal, and 6 left a box in state Created.
#[test]
fn an_interruption_at_any_moment_leaves_nothing() {
    interrupt_runs(40);
}

#[test]
#[ignore = "takes an hour: cargo test -p boxlite-cli --test cli -- --ignored two_thousand --nocapture"]
fn two_thousand_interruptions_leave_nothing() {
    interrupt_runs(2_000);
}
